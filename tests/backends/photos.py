"""Chooses and decodes the photos that all backends are shown."""

from pathlib import Path

import numpy as np
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.data.photo import LARGEST_SIDE, PhotoError, read_photo

PHOTOS = 32
SMALLEST_SIDE = 64


def write_photos(folder: Path, target: Path) -> list[tuple[int, int]]:
    """Decode `PHOTOS` photos, taken evenly from a folder, each into its own `.npy` file.

    Every second one is brought to another size, longest sides `SMALLEST_SIDE` to `LARGEST_SIDE`:
    the photos of a data set are often all of one size, which would prove little.

    Returns:
        Height and width of each.

    Raises:
        InputError: If there are too few photos in the folder, or one cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"No folder of photos {folder}; name one with --photos.")
    files = sorted(file for file in folder.rglob("[!.]*.*") if file.is_file())
    if len(files) < PHOTOS:
        raise InputError(f"Expected {PHOTOS} photos in {folder}. Received: {len(files)}.")
    sides = np.geomspace(SMALLEST_SIDE, LARGEST_SIDE, PHOTOS // 2).round().astype(int)
    sizes = []
    for number in range(PHOTOS):
        pixels = _decode(files[number * len(files) // PHOTOS])
        if number % 2:
            pixels = _resize(pixels, int(sides[number // 2]))
        np.save(target / f"{number:02}.npy", pixels)
        sizes.append(pixels.shape[:2])
    return sizes


def _decode(file: Path) -> np.ndarray:
    try:
        return read_photo(file).pixels
    except PhotoError as error:
        raise InputError(f"{file}: {error}. Name a folder that holds only photos.") from error


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """Bring the longest side to `side` pixels."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
