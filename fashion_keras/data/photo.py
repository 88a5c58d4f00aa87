"""Reads one photo, from a file, bytes, image or array, as upright RGB pixels."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fashion_keras.config import InputError

# Pillow opens MPO, the JPEGs of some cameras and phones, by the name JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MOST_PIXELS = 80_000_000  # A claim of more is a decompression bomb or a scan, not a seller's photo.
_MOST_BYTES = 200_000_000
SMALLEST_SIDE = 8  # Nothing can be seen in less.
LARGEST_SIDE = 1024  # Larger photos are reduced with anti-aliasing before anything else is done.
_ORIENTATION = 0x0112  # EXIF tag; 1 means upright.
_PNG_END = b"IEND\xaeB`\x82"


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
    source: Path | bytes | Image.Image | np.ndarray, most_pixels: int = MOST_PIXELS
) -> Photo:
    """Decode one photo.

    JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read, whatever the file is called. The EXIF
    orientation is applied, transparency becomes white, 16-bit greys are scaled, of an animation
    the first frame is taken, and sides over `LARGEST_SIDE` pixels are reduced.

    Args:
        source: Path of a file, the file's bytes, an image of Pillow (it is not changed), or an
            array `(height, width)`, `(height, width, 1)`, `(height, width, 3)` or
            `(height, width, 4)` (with opacity) of numbers from 0 to 255; fractions are rounded.
        most_pixels: Files that claim more are refused.

    Raises:
        PhotoError: If the bytes are no photo, are damaged, have a side under `SMALLEST_SIDE`, or
            claim more than `most_pixels`; if an array has another shape or other values.
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
    except Image.UnidentifiedImageError as error:
        raise PhotoError(f"not a photo in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise PhotoError(f"damaged: {error}") from error


def _decode(content: bytes, most_pixels: int) -> Photo:
    if not content:
        raise PhotoError("empty file")
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
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


def _content_of(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) > _MOST_BYTES:
            raise PhotoError(f"too large: {size} bytes, at most {_MOST_BYTES} are read")
        return file.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            raise PhotoError("a link to a file that does not exist") from error
        raise PhotoError(f"cannot be opened: {error.strerror or error}") from error


def _check_size(image: Image.Image, most_pixels: int) -> None:
    """Refuse photos that would show nothing or take too much memory."""
    width, height = image.size
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
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values, which turns most photos white.
        deep = (np.asarray(image).astype("int32") + 128) // 257
        image = Image.fromarray(deep.clip(0, 255).astype("uint8"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    image = image.convert("RGB")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), reducing_gap=2.0)
    return np.asarray(image)


def _image_of(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise PhotoError(
            "expected an array (height, width, 3) of pixels from 0 to 255. Received: the shape "
            f"{array.shape}"
        )
    if array.dtype.kind not in "uif" or not (array.min() >= 0 and array.max() <= 255):
        raise PhotoError("expected an array of numbers from 0 to 255. Received: others")
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise PhotoError(
            "expected an array of numbers from 0 to 255. Received: fractions of 1, as if divided "
            "by 255"
        )
    return Image.fromarray(array.round().astype("uint8"))
