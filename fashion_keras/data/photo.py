"""Reads one photo, from a file, bytes, image or array, as upright RGB pixels."""

import importlib.util
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fashion_keras.config import InputError

# Pillow opens MPO, the JPEGs of some cameras and phones, by the name JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MOST_PIXELS = 80_000_000  # A claim of more is a decompression bomb or a scan, not a seller's photo.
_MOST_OF_JPEG = 2 * MOST_PIXELS  # A panorama of a phone: it is reduced while it is decoded.
_MOST_BYTES = 200_000_000
SMALLEST_SIDE = 8  # Nothing can be seen in less.
LARGEST_SIDE = 1024  # Larger photos are reduced with anti-aliasing before anything else is done.
_ORIENTATION = 0x0112  # EXIF tag; 1 means upright.
# Greys up to 4095 are of 12 bits, whatever the file says, and would be nearly black.
_LEAST_OF_16_BITS = 4096
_SAME_LEVELS = 2  # A photo whose pixels differ by no more is of a single colour.
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_PNG_END = b"IEND\xaeB`\x82"


# The size is checked here; Pillow's warning would name a line of its code.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class PhotoError(InputError):
    """A photo cannot be read; the message is the reason, without the photo's name."""


class Photo(NamedTuple):
    """Pixels of one photo, `(height, width, 3)` uint8, upright RGB, no side over `LARGEST_SIDE`.

    `clean` is true when the file itself holds these pixels in a form every reader agrees on
    (8-bit RGB JPEG or PNG, upright, not larger than needed).
    """

    pixels: np.ndarray
    clean: bool


def read_photo(
    source: Path | bytes | Image.Image | np.ndarray, most_pixels: int | None = None
) -> Photo:
    """Decode one photo.

    JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read, whatever the file is called; HEIC, too, where
    pillow-heif is installed (extra `heic`). The EXIF orientation is applied, transparency becomes
    white, 16-bit greys and fractions are scaled, of an animation the first frame is taken, and
    sides over `LARGEST_SIDE` pixels are reduced.

    Args:
        source: Path of a file, the file's bytes, an image of Pillow (it is not changed), or an
            array `(height, width)`, `(height, width, 1)`, `(height, width, 3)` or
            `(height, width, 4)` (with opacity) of numbers from 0 to 255, red first; fractions are
            rounded.
        most_pixels: Files that claim more are refused (default: `MOST_PIXELS`, JPEGs twice that).

    Raises:
        PhotoError: If the bytes are no photo, are damaged, have a side under `SMALLEST_SIDE`, or
            claim more than `most_pixels`; if an array has another shape, or the pixels have values
            of an unknown range.
    """
    try:
        if isinstance(source, np.ndarray):
            source = _image_of(source)
        if isinstance(source, Image.Image):
            _check_size(source, most_pixels)
            return Photo(_reduced(ImageOps.exif_transpose(source)), clean=False)
        return _decode(source if isinstance(source, bytes) else _content_of(source), most_pixels)
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        most = most_pixels or MOST_PIXELS
        raise PhotoError(f"too large: {error}; at most {most} are read") from error
    except Image.UnidentifiedImageError as error:
        raise PhotoError(f"not a photo in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise PhotoError(f"damaged: {error}") from error


def is_flat(pixels: np.ndarray) -> bool:
    """Return whether a photo, as `read_photo` returns it, is of a single colour."""
    return bool((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max() <= _SAME_LEVELS)


def _decode(content: bytes, most_pixels: int | None) -> Photo:
    if not content:
        raise PhotoError("empty file")
    formats = (*FORMATS, *_heif(content))
    with Image.open(io.BytesIO(content), formats=formats) as image:
        _check_size(image, most_pixels)
        clean = (
            image.mode == "RGB"
            and "transparency" not in image.info
            and image.getexif().get(_ORIENTATION, 1) == 1
            and max(image.size) <= LARGEST_SIDE
            and (image.format == "JPEG" or (image.format == "PNG" and _is_whole_png(content)))
        )
        image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # JPEG: decode at 1/2, 1/4 or 1/8.
        return Photo(_reduced(ImageOps.exif_transpose(image)), clean)


def _heif(content: bytes) -> list[str]:
    """Return Pillow's name of the format of HEIC, if it is that and can be read.

    Raises:
        PhotoError: If it is that and the package for it is missing.
    """
    size = int.from_bytes(content[:4])
    brands = {content[place : place + 4] for place in range(8, min(size, 64), 4)}
    if content[4:8] != b"ftyp" or not brands & _HEIF_BRANDS:
        return []
    if not importlib.util.find_spec("pillow_heif"):
        raise PhotoError('HEIC, as iPhones take them: pip install "fashion_keras[heic]"')
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return ["HEIF"]


def _content_of(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) > _MOST_BYTES:
            raise PhotoError(f"too large: {size} bytes, at most {_MOST_BYTES} are read")
        return file.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            raise PhotoError("a link to a file that does not exist") from error
        raise PhotoError(f"cannot be opened: {error.strerror or error}") from error


def _check_size(image: Image.Image, most_pixels: int | None) -> None:
    """Refuse photos that would show nothing or take too much memory."""
    width, height = image.size
    jpeg = image.format in ("JPEG", "MPO")
    most_pixels = most_pixels or (_MOST_OF_JPEG if jpeg else MOST_PIXELS)
    if width * height > most_pixels:
        raise PhotoError(f"too large: {width} x {height} pixels, at most {most_pixels} are read")
    if min(width, height) < SMALLEST_SIDE:
        needed = f"at least {SMALLEST_SIDE} x {SMALLEST_SIDE} are needed"
        raise PhotoError(f"too small: {width} x {height} pixels, {needed}")


def _is_whole_png(content: bytes) -> bool:
    """Return False for a PNG without its end or with wrong checksums: TensorFlow refuses it."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.verify()
    except Exception:  # Here, too, Pillow raises nearly anything.
        return False
    return content.endswith(_PNG_END)


def _reduced(image: Image.Image) -> np.ndarray:
    """Return an upright image as RGB pixels, reduced if it is large."""
    if image.mode[0] in "IF":
        image = _scaled(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    image = image.convert("RGB")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), reducing_gap=2.0)
    return np.asarray(image)


def _scaled(image: Image.Image) -> Image.Image:
    """Return greys of 16 or more bits, or fractions, with 8 bits: Pillow's conversion clips them.

    Raises:
        PhotoError: If the range of the values is not that of the format, or is not known.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 1:
        return Image.fromarray((255 * values).round().astype("uint8"))
    if image.mode != "F" and low >= 0 and _LEAST_OF_16_BITS <= high <= 65535:
        return Image.fromarray(((values.astype("int32") + 128) // 257).astype("uint8"))
    kind, expected = ("fractions", "0 to 1") if image.mode == "F" else ("greys", "0 to 65535")
    raise PhotoError(
        f"{kind} from {low:g} to {high:g}, where {expected} are expected: save it with 8 bits"
    )


def _image_of(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        hint = ""
        if array.ndim == 4:
            hint = " (a batch: give its photos one by one)"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " (channels first: give `numpy.moveaxis(array, 0, -1)`)"
        raise PhotoError(
            "expected an array (height, width, 3) of pixels from 0 to 255, red first. Received: "
            f"the shape {array.shape}{hint}"
        )
    if array.dtype.kind not in "uif" or not (array.min() >= 0 and array.max() <= 255):
        raise PhotoError("expected an array of numbers from 0 to 255. Received: others")
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise PhotoError(
            "expected an array of numbers from 0 to 255. Received: fractions of 1, as if divided "
            "by 255"
        )
    return Image.fromarray(array.round().astype("uint8"))
