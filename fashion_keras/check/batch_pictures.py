"""Draws a batch of photos as the model is shown them: as they are, and after augmentation."""

from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.check.contact_sheet import Tile, draw_sheet
from fashion_keras.config import Config
from fashion_keras.data.batches import load_split
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SPLITS
from fashion_keras.model import build_augmentation


def draw_batch(
    prepared: Prepared, config: Config, file: Path, photos: int = 12, draws: int = 5
) -> None:
    """Draw training photos with their labels and, beside each, augmented copies of it.

    The pixels come out of the same reader and the same layers that training uses.

    Args:
        prepared: The data set.
        config: `image_size`, `rotation`, `zoom` and `seed` are used.
        file: Where to save the picture, a PNG.
        photos: How many photos, drawn at random.
        draws: Views of each.
    """
    batches = load_split(prepared, SPLITS[0], config.image_size, photos, config.seed)
    pixels, numbers = next(iter(batches))
    augmented_copies = [
        _shown(build_augmentation(config, config.seed + 1000 * view)(pixels, training=True))
        for view in range(1, draws + 1)
    ]
    plain = _shown(pixels)
    rows = [
        [Tile(plain[row], prepared.labels[int(number)])]
        + [Tile(view[row], f"view {place}") for place, view in enumerate(augmented_copies, start=1)]
        for row, number in enumerate(np.asarray(numbers))
    ]
    title = f"training photos at {config.image_size} px, and augmented copies of each"
    draw_sheet(rows, title, file)


def _shown(pixels: Any) -> np.ndarray:
    return np.asarray(pixels).round().clip(0, 255).astype("uint8")
