"""Tests of the one decoder: which files become which pixels, and which become which error."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.photo import LARGEST_SIDE, SMALLEST_SIDE, PhotoError, read_photo

# Red, green and blue above yellow, white and black, in squares that JPEG keeps apart.
SIX_COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [255, 255, 255], [0, 0, 0]]], "uint8"
)
SQUARES = SIX_COLOURS.repeat(16, axis=0).repeat(16, axis=1)
TURNS = Image.Transpose
# What a camera with this EXIF orientation does to the upright picture before it stores it.
STORED = {
    2: TURNS.FLIP_LEFT_RIGHT,
    3: TURNS.ROTATE_180,
    4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE,
    6: TURNS.ROTATE_90,
    7: TURNS.TRANSVERSE,
    8: TURNS.ROTATE_270,
}


@pytest.fixture(autouse=True)
def _tiny_photos_are_large_enough(request, monkeypatch):
    """Let most tests use photos of few pixels, which are easier to write down."""
    if "smallest_side" not in request.fixturenames:
        monkeypatch.setattr("fashion_keras.data.photo.SMALLEST_SIDE", 1)


@pytest.fixture
def smallest_side():
    """Leave the smallest side as it is, and return it."""
    return SMALLEST_SIDE


def encode(picture, kind="PNG", **settings):
    """Return a picture or an array of pixels as the bytes of an image file."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_that_claims(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def reason_of(source, *limits):
    with pytest.raises(PhotoError) as failed:
        read_photo(source, *limits)
    return str(failed.value)


def test_rgb_jpeg_is_clean():
    content = encode(SQUARES, "JPEG", quality=95)
    photo = read_photo(content)
    assert photo.clean
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("settings", [{}, {"interlace": True}, {"compress_level": 0}])
def test_rgb_png_is_clean(settings):
    photo = read_photo(encode(SQUARES, **settings))
    assert photo.clean
    assert photo.pixels.dtype == np.uint8
    np.testing.assert_array_equal(photo.pixels, SQUARES)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turn_gives_the_upright_picture(orientation):
    upright = Image.fromarray(SQUARES)
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    photo = read_photo(encode(stored, exif=exif(orientation)))
    assert photo.clean == (orientation == 1)
    np.testing.assert_array_equal(photo.pixels, SQUARES)


def test_exif_turn_of_a_jpeg_is_applied():
    stored = Image.fromarray(SQUARES).transpose(TURNS.ROTATE_90)
    photo = read_photo(encode(stored, "JPEG", quality=95, subsampling=0, exif=exif(6)))
    assert not photo.clean
    np.testing.assert_allclose(photo.pixels[8::16, 8::16], SIX_COLOURS, atol=4)


def test_transparency_is_laid_on_white():
    pixels = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 51]]], "uint8")
    photo = read_photo(encode(pixels))
    assert not photo.clean
    # 51 of 255 is a fifth: 0.2 * 0 + 0.8 * 255 = 204.
    assert photo.pixels.tolist() == [[[255, 255, 255], [200, 0, 0], [204, 204, 204]]]


def test_transparent_grey_is_laid_on_white():
    picture = Image.fromarray(np.array([[[10, 0], [10, 255], [0, 51]]], "uint8"), "LA")
    photo = read_photo(encode(picture))
    assert not photo.clean
    assert photo.pixels[0, :, 0].tolist() == [255, 10, 204]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_transparent_palette_colour_is_laid_on_white(transparency):
    picture = Image.fromarray(np.array([[0, 1]], "uint8"), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    photo = read_photo(encode(picture, transparency=transparency))
    assert not photo.clean
    assert photo.pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_colour_declared_transparent_is_laid_on_white():
    photo = read_photo(encode(SQUARES[:, :32], transparency=(255, 0, 0)))
    assert not photo.clean
    assert photo.pixels[0, [0, 31]].tolist() == [[255, 255, 255], [0, 255, 0]]


def test_opaque_palette_is_read():
    photo = read_photo(encode(Image.fromarray(SQUARES).quantize(8)))
    assert not photo.clean
    np.testing.assert_array_equal(photo.pixels, SQUARES)


def test_16_bit_grey_is_scaled():
    content = encode(np.array([[0, 257, 32896, 65278, 65535]], "uint16"))
    photo = read_photo(content)
    assert Image.open(io.BytesIO(content)).mode == "I;16"
    assert not photo.clean
    assert photo.pixels.tolist() == [[[grey] * 3 for grey in (0, 1, 128, 254, 255)]]


def test_black_and_white_png_is_read():
    photo = read_photo(encode(Image.fromarray(np.array([[False, True]]))))
    assert not photo.clean
    assert photo.pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg_is_read():
    picture = Image.fromarray(SQUARES).convert("CMYK")
    photo = read_photo(encode(picture, "JPEG", quality=95, subsampling=0))
    assert not photo.clean
    np.testing.assert_allclose(photo.pixels[8::16, 8::16], SIX_COLOURS, atol=4)


def test_grey_jpeg_is_read():
    photo = read_photo(encode(np.full((8, 8), 90, "uint8"), "JPEG"))
    assert not photo.clean
    assert photo.pixels.shape == (8, 8, 3)
    assert np.unique(photo.pixels).tolist() == [90]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    settings = {"lossless": True} if kind == "WEBP" else {}
    content = encode(first, kind, save_all=True, append_images=[second], **settings)
    assert Image.open(io.BytesIO(content)).n_frames == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert np.unique(read_photo(content).pixels.reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_two_pictures_of_a_camera_in_one_jpeg_give_the_first():
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    content = encode(first, "MPO", save_all=True, append_images=[second])
    photo = read_photo(content)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert not photo.clean
    assert np.unique(photo.pixels).tolist() == [255]


def test_transparent_webp_is_laid_on_white():
    pixels = np.array([[[200, 0, 0, 0], [200, 0, 0, 255]]], "uint8")
    photo = read_photo(encode(pixels, "WEBP", lossless=True))
    assert not photo.clean
    assert photo.pixels.tolist() == [[[255, 255, 255], [200, 0, 0]]]


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF"])
def test_other_formats_are_read_but_not_clean(kind):
    photo = read_photo(encode(SQUARES, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert not photo.clean
    np.testing.assert_array_equal(photo.pixels, SQUARES)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_large_photo_is_reduced_with_its_proportions(kind):
    content = encode(Image.new("RGB", (LARGEST_SIDE * 3, LARGEST_SIDE), "red"), kind)
    photo = read_photo(content)
    assert not photo.clean
    assert photo.pixels.shape == (341, 1024, 3)
    np.testing.assert_allclose(photo.pixels[::100, ::100], [[[255, 0, 0]] * 11] * 4, atol=2)


def test_reducing_averages_and_does_not_skip_pixels():
    stripes = np.zeros((4, 4096, 3), "uint8")
    stripes[:, ::2] = 255
    assert np.ptp(read_photo(encode(stripes)).pixels[:, 2:-2]) <= 2


def test_photo_of_the_largest_side_is_clean():
    photo = read_photo(encode(Image.new("RGB", (LARGEST_SIDE, 3))))
    assert photo.clean
    assert photo.pixels.shape == (3, LARGEST_SIDE, 3)


def test_single_pixel_is_read():
    photo = read_photo(encode(np.array([[[1, 2, 3]]], "uint8")))
    assert photo.clean
    assert photo.pixels.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("width", "height", "shape"), [(1, 5000, (1024, 1, 3)), (5000, 1, (1, 1024, 3))]
)
def test_line_of_one_pixel_keeps_its_pixel(width, height, shape):
    photo = read_photo(encode(Image.new("RGB", (width, height))))
    assert not photo.clean
    assert photo.pixels.shape == shape


def test_content_decides_whatever_the_file_is_called(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(encode(SQUARES, "PNG"))
    photo = read_photo(file)
    assert photo.clean
    np.testing.assert_array_equal(photo.pixels, SQUARES)


def test_file_and_its_bytes_give_the_same(tmp_path):
    file = tmp_path / "ein schönes Kleid.jpg"
    file.write_bytes(encode(SQUARES, "JPEG"))
    of_file, of_bytes = read_photo(file), read_photo(file.read_bytes())
    assert of_file.clean == of_bytes.clean is True
    np.testing.assert_array_equal(of_file.pixels, of_bytes.pixels)


# TensorFlow refuses such files in the middle of a training, without naming them.
@pytest.mark.parametrize("fine_tune_from", [1, 8, 12, 16, 19])
def test_png_without_its_end_is_read_but_not_clean(fine_tune_from):
    photo = read_photo(encode(SQUARES)[:-fine_tune_from])
    assert not photo.clean
    np.testing.assert_array_equal(photo.pixels, SQUARES)


@pytest.mark.parametrize("place", [-16, -13, -9])
def test_png_with_a_wrong_checksum_is_not_clean(place):
    content = bytearray(encode(SQUARES))
    content[place] ^= 1
    assert not read_photo(bytes(content)).clean


def test_unreadable_exif_does_not_spoil_a_photo():
    photo = read_photo(encode(SQUARES, "JPEG", exif=b"Exif\0\0no such thing"))
    assert photo.clean
    assert photo.pixels.shape == (32, 48, 3)


def test_empty_file_is_called_empty(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert reason_of(tmp_path / "empty.jpg") == "empty file"
    assert reason_of(b"") == "empty file"


@pytest.mark.parametrize("content", [b"<html>404</html>", b"%PDF-1.7", b"\0" * 100, b"P6 1 1 255 "])
def test_file_that_is_no_photo_names_the_formats(content):
    expected = "not a photo in one of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"
    assert reason_of(content) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_half_a_photo_is_damaged(kind):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), "uint8")
    content = encode(noise, kind)
    assert reason_of(content[: len(content) // 2]).startswith("damaged: ")


def test_jpeg_without_its_last_bytes_is_damaged():
    assert "truncated" in reason_of(encode(SQUARES, "JPEG")[:-2])


def test_missing_file_tells_the_systems_reason(tmp_path):
    assert reason_of(tmp_path / "no.jpg") == "cannot be opened: No such file or directory"


def test_folder_is_no_photo(tmp_path):
    assert reason_of(tmp_path).startswith("cannot be opened: ")


def test_claim_of_too_many_pixels_is_refused():
    assert reason_of(png_that_claims(40_000, 40_000)) == "too large: more than 80000000 pixels"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_photo_with_too_many_pixels_is_refused_with_its_size():
    reason = reason_of(encode(Image.new("1", (10_000, 10_000))))
    assert reason == "too large: 10000 x 10000 pixels, at most 80000000 are read"


def test_warnings_as_errors_give_the_same_refusal():
    assert reason_of(png_that_claims(10_000, 10_000)) == "too large: more than 80000000 pixels"


def test_size_is_checked_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    content = bytes(png_that_claims(48, 32))
    assert reason_of(content, 1535) == "too large: 48 x 32 pixels, at most 1535 are read"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "P", "CMYK", "1"])
def test_strips_of_a_photo_fit_together(mode, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 4), dtype="uint8")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., :2].reshape(40, 60).view("uint16").copy())
    else:
        image = Image.fromarray(pixels).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
    whole = read_photo(image).pixels
    monkeypatch.setattr("fashion_keras.data.photo._STRIP", 7)
    np.testing.assert_array_equal(read_photo(image).pixels, whole)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (7, 8), (8, 7)])
def test_photo_in_which_nothing_can_be_seen_is_refused(width, height, smallest_side):
    expected = f"too small: {width} x {height} pixels, at least 8 x 8 are needed"
    assert reason_of(encode(Image.new("RGB", (width, height)))) == expected
    assert reason_of(Image.new("RGB", (width, height))) == expected
    assert reason_of(np.zeros((height, width, 3), "uint8")) == expected


def test_photo_of_the_smallest_side_is_read(smallest_side):
    assert read_photo(encode(Image.new("RGB", (smallest_side, 9)))).pixels.shape == (9, 8, 3)


def test_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    content = encode(Image.new("1", (8000, 8000)))
    assert 7_000 < len(content) < 9_000
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    expected = f"a decompression bomb: 8000 x 8000 pixels in {len(content)} bytes"
    assert reason_of(content) == expected


def test_plain_picture_of_moderate_size_is_no_bomb():
    assert read_photo(encode(Image.new("1", (2000, 2000)))).pixels.shape == (1024, 1024, 3)


@pytest.mark.parametrize(("name", "expected"), [("cmyk.jpg", 35), ("cmyk.tiff", 0)])
def test_cmyk_becomes_rgb(name, expected, tmp_path):
    ink = Image.new("CMYK", (40, 30), (255, 255, 0, 0))  # Full cyan and magenta give blue.
    ink.save(tmp_path / name)
    pixels = read_photo(tmp_path / name).pixels
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels.astype(int) - [0, 0, 255]).max() <= expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_all_kinds_of_bmp_are_read(mode):
    picture = Image.fromarray(SQUARES).convert(mode)
    white = picture.convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(read_photo(encode(picture, "BMP")).pixels, np.asarray(white))


def test_link_to_nothing_and_its_loop(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert reason_of(tmp_path / "link.jpg") == "a link to a file that does not exist"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "symbolic links" in reason_of(tmp_path / "loop.jpg")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_without_permission_tells_it(tmp_path):
    file = tmp_path / "secret.jpg"
    file.write_bytes(encode(SQUARES))
    file.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's folders are for their owner only.
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # The superuser may read everything.
    try:
        assert reason_of(file) == "cannot be opened: Permission denied"
    finally:
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason_of(tmp_path / "pipe.jpg") == "not a file but a pipe, socket or device"


def test_huge_file_is_not_read_into_memory(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(200_000_001)
    expected = "too large: 200000001 bytes, at most 200000000 are read"
    assert reason_of(tmp_path / "huge.jpg") == expected


def test_image_in_memory_gives_the_same_as_its_file_and_stays_as_it_is():
    content = encode(SQUARES, "JPEG", exif=exif(6))
    image = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(read_photo(image).pixels, read_photo(content).pixels)
    assert image.size == (48, 32)
    assert image.getexif()[0x0112] == 6
    large = Image.new("RGB", (3000, 2000))
    assert read_photo(large).pixels.shape == (683, 1024, 3)
    assert large.size == (3000, 2000)


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_array_of_each_form_is_read(kind, channels):
    array = np.full((9, 10, *channels), 200, kind)
    array[0] = 255
    pixels = read_photo(array).pixels
    assert pixels.dtype == "uint8"
    assert pixels.shape == (9, 10, 3)
    assert (pixels[0] == 255).all()
    # Of the fourth channel, opacity, 200 of 255 let 55 of white through.
    assert set(pixels[1:].ravel()) <= ({211, 212} if channels == (4,) else {200})


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((9, 9, 2)), r"the shape \(9, 9, 2\)"),
        (np.zeros((1, 9, 9, 3)), r"the shape \(1, 9, 9, 3\)"),
        (np.zeros(9), r"the shape \(9,\)"),
        (np.full((9, 9, 3), 0.5), "fractions of 1, as if divided by 255"),
        (np.full((9, 9, 3), 256), "numbers from 0 to 255. Received: others"),
        (np.full((9, 9, 3), -1), "numbers from 0 to 255. Received: others"),
        (np.full((9, 9, 3), np.nan), "numbers from 0 to 255. Received: others"),
        (np.full((9, 9, 3), "a"), "numbers from 0 to 255. Received: others"),
    ],
)
def test_array_of_another_sort_is_refused(array, reason):
    with pytest.raises(PhotoError, match=reason):
        read_photo(array)


def test_name_that_is_too_long_is_told_as_such(tmp_path):
    assert reason_of(tmp_path / ("a" * 300)) == "cannot be opened: File name too long"
