"""Tests of reading a photo: which files become which pixels, and which become which error."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.photo import LARGEST_SIDE, PhotoError, read_photo
from tests.builders import encoded

# Red, green and blue above yellow, white and black, in squares that JPEG keeps apart.
SIX_COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [255, 255, 255], [0, 0, 0]]], "uint8"
)
SQUARES = SIX_COLOURS.repeat(16, axis=0).repeat(16, axis=1)
TURNS = Image.Transpose
# What a camera with this EXIF orientation does to the upright photo before it stores it.
STORED = {
    2: TURNS.FLIP_LEFT_RIGHT,
    3: TURNS.ROTATE_180,
    4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE,
    6: TURNS.ROTATE_90,
    7: TURNS.TRANSVERSE,
    8: TURNS.ROTATE_270,
}


def squares(row: list[Any], kind: str = "uint8") -> np.ndarray:
    """Return one row of pixels, each as a square of 8 by 8."""
    return np.array([row], kind).repeat(8, axis=0).repeat(8, axis=1)


def encode(image: Any, kind: str = "PNG", **settings: Any) -> bytes:
    """Return an image or an array of pixels as the bytes of an image file."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return encoded(image, kind, **settings)


def row_of(content: bytes) -> list[list[int]]:
    """Return the middle of each square of a photo that is not clean."""
    photo = read_photo(content)
    assert not photo.clean
    return photo.pixels[4, 4::8].tolist()


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG of one pixel with another size in its header."""
    content = encode(Image.new("1", (1, 1)))
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def reason_of(source: Any, *limits: int) -> str:
    with pytest.raises(PhotoError) as failed:
        read_photo(source, *limits)
    return str(failed.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("JPEG", {"quality": 95}), ("JPEG", {"exif": b"Exif\0\0no such thing"}), ("PNG", {})],
)
def test_rgb_jpeg_and_png_are_clean_whatever_the_file_is_called(kind, settings, tmp_path):
    file = tmp_path / "ein schönes Kleid.gif"
    file.write_bytes(encode(SQUARES, kind, **settings))
    photo = read_photo(file)
    assert photo.clean
    assert photo.pixels.dtype == np.uint8
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(file)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_upright_photo(orientation):
    upright = Image.fromarray(SQUARES)
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    photo = read_photo(encode(stored, exif=exif(orientation)))
    assert photo.clean == (orientation == 1)
    np.testing.assert_array_equal(photo.pixels, SQUARES)


def test_transparency_becomes_white():
    # 51 of 255 is a fifth: 0.2 * 0 + 0.8 * 255 = 204.
    colours = squares([[200, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 51]])
    assert row_of(encode(colours)) == [[255, 255, 255], [200, 0, 0], [204, 204, 204]]
    lossless = encode(colours[:, :16], "WEBP", lossless=True)
    assert row_of(lossless) == [[255, 255, 255], [200, 0, 0]]
    greys = Image.fromarray(squares([[10, 0], [10, 255], [0, 51]]), "LA")
    assert row_of(encode(greys)) == [[255] * 3, [10] * 3, [204] * 3]
    declared = encode(SQUARES[:, :32], transparency=(255, 0, 0))
    assert row_of(declared)[::2] == [[255, 255, 255], [0, 255, 0]]
    picture = Image.fromarray(squares([0, 1]), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    for transparency in (1, b"\xff\x00"):
        content = encode(picture, transparency=transparency)
        assert row_of(content) == [[10, 20, 30], [255, 255, 255]]


def test_greys_are_read_and_deep_ones_scaled():
    deep = encode(squares([0, 257, 32896, 65278, 65535], "uint16"))
    assert Image.open(io.BytesIO(deep)).mode == "I;16"
    assert row_of(deep) == [[grey] * 3 for grey in (0, 1, 128, 254, 255)]
    assert row_of(encode(Image.fromarray(squares([False, True], "bool")))) == [[0] * 3, [255] * 3]
    assert row_of(encode(np.full((8, 8), 90, "uint8"), "JPEG")) == [[90] * 3]


@pytest.mark.parametrize(("kind", "within"), [("JPEG", 35), ("TIFF", 0)])
def test_cmyk_becomes_rgb(kind, within):
    ink = Image.new("CMYK", (40, 30), (255, 255, 0, 0))  # Full cyan and magenta give blue.
    pixels = read_photo(encode(ink, kind)).pixels
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels.astype(int) - [0, 0, 255]).max() <= within


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF", "WEBP", "PNG", "MPO"])
def test_of_several_images_in_a_file_the_first_is_taken(kind):
    settings = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "MPO" else {}
    if kind != "BMP":  # It holds only one.
        settings |= {"save_all": True, "append_images": [Image.new("RGB", (48, 32), "black")]}
    content = encode(SQUARES, kind, **settings)
    photo = read_photo(content)
    assert photo.clean == (kind == "PNG")
    np.testing.assert_allclose(photo.pixels[8::16, 8::16], SIX_COLOURS, atol=5)


def test_large_photo_is_reduced_by_averaging_with_its_proportions():
    for kind in ("JPEG", "PNG", "BMP"):
        photo = read_photo(encode(Image.new("RGB", (3 * LARGEST_SIDE, LARGEST_SIDE), "red"), kind))
        assert not photo.clean
        assert photo.pixels.shape == (341, 1024, 3)
        np.testing.assert_allclose(photo.pixels[::100, ::100], [[[255, 0, 0]] * 11] * 4, atol=2)
    stripes = np.zeros((8, 4 * LARGEST_SIDE, 3), "uint8")
    stripes[:, ::2] = 255
    assert np.ptp(read_photo(encode(stripes)).pixels[:, 2:-2]) <= 2
    assert read_photo(encode(stripes[:, :LARGEST_SIDE])).clean


# TensorFlow refuses such files in the middle of a training, without naming them.
def test_damaged_end_of_a_png_is_read_but_not_clean():
    content = encode(SQUARES)
    wrong_checksum = content[:-13] + bytes([content[-13] ^ 1]) + content[-12:]
    for damaged in (wrong_checksum, *(content[:-cut] for cut in (1, 8, 12, 16, 19))):
        photo = read_photo(damaged)
        assert not photo.clean
        np.testing.assert_array_equal(photo.pixels, SQUARES)


def test_file_that_is_no_photo_or_half_a_photo_gives_the_reason():
    expected = "not a photo in one of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"
    for content in (b"<html>404</html>", b"%PDF-1.7", b"\0" * 100, b"P6 1 1 255 "):
        assert reason_of(content) == expected
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), "uint8")
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        content = encode(noise, kind)
        assert reason_of(content[: len(content) // 2]).startswith("damaged: ")
    assert "truncated" in reason_of(encode(SQUARES, "JPEG")[:-2])
    assert reason_of(b"") == "empty file"


@pytest.mark.parametrize(
    ("width", "height", "limits", "expected"),
    [
        (48, 32, [1535], "too large: 48 x 32 pixels, at most 1535 are read"),
        (9000, 9000, [], "too large: 9000 x 9000 pixels, at most 80000000 are read"),
        (40_000, 40_000, [], "Image size (1600000000 pixels) exceeds limit"),
    ],
)
def test_size_is_checked_before_anything_is_decoded(width, height, limits, expected, monkeypatch):
    content = png_that_claims(width, height)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    assert expected in reason_of(content, *limits)


def test_photo_in_which_nothing_can_be_seen_is_refused():
    image = Image.new("RGB", (7, 5000))
    for source in (encode(image), image, np.asarray(image)):
        assert reason_of(source) == "too small: 7 x 5000 pixels, at least 8 x 8 are needed"


def test_files_that_cannot_be_opened_give_the_systems_reason(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert reason_of(tmp_path / "no.jpg") == "cannot be opened: No such file or directory"
    assert reason_of(tmp_path).startswith("cannot be opened: ")
    assert reason_of(tmp_path / "link.jpg") == "a link to a file that does not exist"
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(200_000_001)
    expected = "too large: 200000001 bytes, at most 200000000 are read"
    assert reason_of(tmp_path / "huge.jpg") == expected


def test_image_in_memory_gives_the_same_as_its_file_and_is_not_changed():
    content = encode(SQUARES, "JPEG", exif=exif(6))
    image, large = Image.open(io.BytesIO(content)), Image.new("RGB", (3000, 2000))
    np.testing.assert_array_equal(read_photo(image).pixels, read_photo(content).pixels)
    assert read_photo(large).pixels.shape == (683, 1024, 3)
    assert (image.size, image.getexif()[0x0112], large.size) == ((48, 32), 6, (3000, 2000))


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays_of_all_shapes_are_read(kind, channels):
    array = np.full((9, 10, *channels), 200, kind)
    array[0] = 255
    pixels = read_photo(array).pixels
    assert (pixels.dtype, pixels.shape) == ("uint8", (9, 10, 3))
    assert (pixels[0] == 255).all()
    # Of the fourth channel, opacity, 200 of 255 let 55 of white through.
    assert set(pixels[1:].ravel()) <= ({211, 212} if channels == (4,) else {200})


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((9, 9, 2)), r"the shape \(9, 9, 2\)"),
        (np.zeros((1, 9, 9, 3)), r"the shape \(1, 9, 9, 3\) \(a batch: give"),
        (np.zeros((3, 9, 9)), r"the shape \(3, 9, 9\) \(channels first: give"),
        (np.zeros(9), r"the shape \(9,\)"),
        (np.full((9, 9, 3), 0.5), "fractions of 1, as if divided by 255"),
        (np.full((9, 9, 3), 256), "numbers from 0 to 255. Received: others"),
        (np.full((9, 9, 3), np.nan), "numbers from 0 to 255. Received: others"),
        (np.full((9, 9, 3), "a"), "numbers from 0 to 255. Received: others"),
    ],
)
def test_other_arrays_are_refused(array, reason):
    with pytest.raises(PhotoError, match=reason):
        read_photo(array)


def test_heic_is_read_or_names_the_package_for_it(monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(SQUARES)).save(file, format="HEIF")
    photo = read_photo(file.getvalue())
    assert not photo.clean
    np.testing.assert_allclose(photo.pixels[8::16, 8::16], SIX_COLOURS, atol=30)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PhotoError, match=r'HEIC, as iPhones take them: pip install "fashion_keras'):
        read_photo(file.getvalue())


RAMP = np.arange(256).repeat(8).reshape(8, 256)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((RAMP / 255).astype("float32"), ""),
        ((RAMP * 257).astype("int32"), ""),
        (RAMP.astype("float32"), "fractions from 0 to 255, where 0 to 1 are expected"),
        ((RAMP * 16).astype("uint16"), "greys from 0 to 4080, where 0 to 65535 are expected"),
        (RAMP.astype("int32"), "greys from 0 to 255, where 0 to 65535 are expected"),
        ((RAMP * 65536).astype("int32"), "greys from 0 to 1.67117e"),
        ((RAMP - 100).astype("int32"), "greys from -100 to 155"),
        ((RAMP / 255 + np.nan).astype("float32"), "fractions from nan to nan"),
    ],
)
def test_values_of_another_range_are_scaled_or_refused(values, reason):
    content = encode(values, "TIFF")
    if not reason:
        np.testing.assert_array_equal(read_photo(content).pixels[..., 0], RAMP)
    else:
        with pytest.raises(PhotoError, match=reason):
            read_photo(content)


def test_panorama_is_reduced_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # pytest has reset it.
        content = encode(Image.new("L", (12000, 9000), 99), "JPEG")
        assert read_photo(content).pixels.shape == (768, 1024, 3)
    program = "import sys; from fashion_keras.data.photo import read_photo as read; "
    program += "print(read(sys.stdin.buffer.read()).pixels.shape)"
    ended = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True)
    assert (ended.stdout.split(), ended.stderr) == ([b"(768,", b"1024,", b"3)"], b"")
