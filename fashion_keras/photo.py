"""One photo file or byte string becomes upright RGB pixels, or a clear error."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fashion_keras.config import InputError

# Pillow opens MPO, the JPEGs of some cameras and phones, by the name JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MOST_PIXELS = 80_000_000  # A claim of more is a decompression bomb or a scan, not a seller's photo.
LARGEST_SIDE = 1024  # Larger photos are reduced with anti-aliasing before anything else is done.
_ORIENTATION = 0x0112  # EXIF tag; 1 means upright.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class PhotoError(InputError):
    """A photo cannot be read; the message is the reason, without the photo's name."""


class Photo(NamedTuple):
    """Pixels of one photo, `(height, width, 3)` uint8, upright RGB, no side over `LARGEST_SIDE`.

    `clean` is true when the file itself holds these pixels in a form every reader agrees on
    (8-bit RGB JPEG or PNG, upright, not larger than needed).
    """

    pixels: np.ndarray
    clean: bool


def read_photo(source: Path | bytes) -> Photo:
    """Decode one photo.

    JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read, whatever the file is called. The EXIF
    turn is applied, transparency goes onto white, 16-bit greys are scaled, of an animation the
    first frame is taken, and sides over `LARGEST_SIDE` pixels are reduced.

    Args:
        source: Path of a file, or the file's bytes.

    Returns:
        The photo's pixels, and whether the file can be used as it is.

    Raises:
        PhotoError: If the bytes are no photo, are damaged, or claim more than `MOST_PIXELS`.
    """
    try:
        content = _bytes_of(source)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image)
            clean = _is_clean(image) and _is_whole(image, content)
            image.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # JPEG: decode at 1/2, 1/4 or 1/8.
            upright = _to_rgb(ImageOps.exif_transpose(image))
            upright.thumbnail((LARGEST_SIDE, LARGEST_SIDE), reducing_gap=2.0)
            return Photo(np.asarray(upright), clean)
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"too large: more than {MOST_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise PhotoError(f"not a photo in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise PhotoError(f"damaged: {error}") from error


def _bytes_of(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = source.read_bytes()
        except OSError as error:
            raise PhotoError(f"cannot be opened: {error.strerror or error}") from error
    if not content:
        raise PhotoError("empty file")
    return content


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise PhotoError(
            f"too large: {image.width} x {image.height} pixels, at most {MOST_PIXELS} are read"
        )


def _is_clean(image: Image.Image) -> bool:
    return (
        image.format in ("JPEG", "PNG")
        and image.mode == "RGB"
        and "transparency" not in image.info
        and image.getexif().get(_ORIENTATION, 1) == 1
        and max(image.size) <= LARGEST_SIDE
    )


def _is_whole(image: Image.Image, content: bytes) -> bool:
    """Tell damage that Pillow passes over and TensorFlow does not: a PNG's end and checksums."""
    if image.format != "PNG":
        return True
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as again:
            again.verify()
    except Exception:  # Here, too, Pillow raises nearly anything.
        return False
    return content.endswith(_PNG_END)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Turn any mode into RGB: deep greys scaled to 8 bits, transparency laid on white."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values, which turns most photos white.
        deep = np.asarray(image).astype("float64") / 257
        image = Image.fromarray(deep.round().clip(0, 255).astype("uint8"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    return image.convert("RGB")
