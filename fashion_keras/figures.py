"""Draws every picture: learning curves, confusion matrices, contact sheets of photos."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from fashion_keras.config import Config
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SPLITS
from fashion_keras.fine_tuning import STAGE

_SIDE, _GAP, _LINE, _TITLE = 180, 8, 12, 34  # Pixels: photo, between, line of words, heading.
_LETTERS, _LINES = 34, 4  # What fits under a photo.


def draw_learning_curves(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw loss and accuracy over epochs, for training and validation, as PNG.

    Args:
        rows: One row an epoch with its stage (see `ensemble.Ensemble`). Heads and fine-tuning are
            drawn beside each other; the epoch of each head that was kept, that with the lowest
            validation loss, is marked; of fine-tuning the last one is.
        file: Where to save the picture.
    """
    tuned = [row for row in rows if row["stage"] == STAGE]
    parts = [[row for row in rows if row["stage"] != STAGE], tuned]
    parts = [part for part in parts if part]
    figure = Figure(figsize=(9, 3.6 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False)
    for line, part in zip(grid, parts, strict=True):
        for axes, metric in zip(line, ("loss", "accuracy"), strict=True):
            _draw_stages(axes, part, metric)
    figure.savefig(file, dpi=110)


def _draw_stages(axes: Any, rows: list[dict[str, Any]], metric: str) -> None:
    for stage in sorted({row["stage"] for row in rows}):
        chosen = [row for row in rows if row["stage"] == stage]
        tuning = stage == STAGE
        kept = chosen[-1] if tuning else min(chosen, key=lambda row: row["val_loss"])
        epochs = [row["epoch"] for row in chosen]
        axes.plot(epochs, [row[metric] for row in chosen], "C0.-", linewidth=1)
        axes.plot(epochs, [row[f"val_{metric}"] for row in chosen], "C1.-", linewidth=1)
        axes.plot(kept["epoch"], kept[f"val_{metric}"], "ko", zorder=3)
    axes.set(
        xlabel="pass of fine-tuning" if rows[0]["stage"] == STAGE else "epoch of each head",
        ylabel=metric,
    )
    axes.grid(alpha=0.3)
    axes.legend(axes.get_lines()[:3], ["training", "validation", "kept"])


def draw_confusion(table: np.ndarray, labels: Sequence[str], title: str, file: Path) -> None:
    """Draw a confusion matrix as PNG: counts as text, shares of each true class as colour.

    Args:
        table: Photos by true class (rows) and predicted class (columns).
        labels: Name of each class.
        title: Text above the picture.
        file: Where to save it.
    """
    side = min(3 + 0.5 * len(labels), 40)  # Inches; Matplotlib draws no more than 65,536 pixels.
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    # A label is no formula, whatever dollar signs it has.
    axes.set_xticks(range(len(labels)), labels, parse_math=False, **turned)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    figure.savefig(file, dpi=110)


class Tile(NamedTuple):
    """A photo and the words under it.

    Attributes:
        pixels: `(height, width, 3)` uint8, of any size.
        words: Cut in the middle if they do not fit.
    """

    pixels: np.ndarray
    words: str


def tile_of(file: Path, words: str) -> Tile:
    """Return a photo's file as a tile.

    Raises:
        photo.PhotoError: If it cannot be read.
    """
    image = Image.fromarray(read_photo(file).pixels)
    image.thumbnail((_SIDE, _SIDE))
    return Tile(np.asarray(image), words)


def draw_sheet(rows: Sequence[Sequence[Tile]], title: str, file: Path) -> None:
    """Draw rows of photos as PNG.

    Args:
        rows: At least one tile; rows need not be equally long.
        title: Text above them.
        file: Where to save the picture.
    """
    lines = max(_fitted(tile.words).count("\n") + 1 for tiles in rows for tile in tiles)
    wide, high = _SIDE + _GAP, _SIDE + _GAP + lines * _LINE
    width = max(max(map(len, rows)) * wide + _GAP, 4 * wide)
    canvas = np.full((_TITLE + len(rows) * high + _GAP, width, 3), 255, "uint8")
    figure = Figure(figsize=(canvas.shape[1] / 100, canvas.shape[0] / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left, top = _GAP + column * wide, _TITLE + row * high
            square = ImageOps.pad(Image.fromarray(tile.pixels), (_SIDE, _SIDE), color="#eeeeee")
            canvas[top : top + _SIDE, left : left + _SIDE] = np.asarray(square)
            # A name is no formula, whatever dollar signs it has.
            place = (left + _SIDE / 2, top + _SIDE + 3)
            axes.text(
                *place, _fitted(tile.words), ha="center", va="top", size=6.5, parse_math=False
            )
    axes.text(_GAP, _TITLE / 2, title, va="center", size=10, parse_math=False)
    axes.imshow(canvas, interpolation="none")
    figure.savefig(file, dpi=100)


def _fitted(words: str) -> str:
    lines = [line for part in words.split("\n") for line in textwrap.wrap(part, _LETTERS)]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], "…" + lines[-1][1 - _LETTERS :]]
    return "\n".join(lines)


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
    from fashion_keras.data.batches import load_split
    from fashion_keras.model import build_augmentation

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
