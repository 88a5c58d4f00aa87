"""Draws photos in rows, each with words under it, as one picture."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from fashion_keras.data.photo import read_photo

_SIDE, _GAP, _LINE, _TITLE = 180, 8, 12, 34  # Pixels: photo, between, line of words, heading.
_LETTERS, _LINES = 34, 4  # What fits under a photo.


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
