"""Arrays whose rows lie in one file or, made by several processes, in several; read as one."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Shard(NamedTuple):
    """One of several equal shares of the photos, such as the second of eight."""

    number: int
    of: int

    def rows(self, count: int, batch_size: int) -> tuple[int, int]:
        """Return the first row of this share of `count` rows, and the one after its last.

        Shares begin at whole batches: batches of other photos would give other numbers.
        """
        batches = -(-count // batch_size)
        first, end = ((number * batches) // self.of for number in (self.number - 1, self.number))
        return min(first * batch_size, count), min(end * batch_size, count)


class Piece(NamedTuple):
    """Rows `start` up to `stop` of an array, and the file that holds them or will hold them."""

    file: Path
    start: int
    stop: int


class Joined:
    """Rows that lie in several files, read as one array; nothing is copied together.

    A file is opened anew each time: what was read through a memory map counts as this process's
    memory until the map is closed.

    Args:
        pieces: In order, without gaps from row 0 on; where they overlap, they agree.

    Attributes:
        shape: As of an array.
        dtype: As of an array.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._stops = [piece.stop for piece in pieces]
        first = np.load(pieces[0].file, mmap_mode="r")
        self.shape: tuple[int, ...] = (pieces[-1].stop, *first.shape[1:])
        self.dtype: np.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows of a number, a slice, an array of numbers or a mask."""
        numbers = np.asarray(rows) if _are_numbers(rows) else np.arange(len(self))[rows]
        found = np.empty((*numbers.shape, *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._stops, numbers, side="right")
        for owner in np.unique(owners):
            piece, mine = self._pieces[owner], owners == owner
            found[mine] = np.load(piece.file, mmap_mode="r")[numbers[mine] - piece.start]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


Features = np.ndarray | Joined


def _are_numbers(rows: Any) -> bool:
    # Without this an array of all row numbers would be made for each block of a training pass.
    return isinstance(rows, np.ndarray) and rows.dtype.kind == "i" and bool((rows >= 0).all())


def opened(pieces: Sequence[Piece]) -> Features:
    """Return the rows of pieces, which are all there, as one array, mapped from disk."""
    return Joined(pieces) if len(pieces) > 1 else np.load(pieces[0].file, mmap_mode="r")


def piece_of(file: Path, start: int, stop: int, count: int) -> Piece:
    """Return a piece of the array of `count` rows that is called `file` where it is in one."""
    part = f".{start}-{stop}" if (start, stop) != (0, count) else ""
    return Piece(file.with_name(f"{file.stem}{part}.npy"), start, stop)


def lay_out(file: Path, count: int, start: int, stop: int) -> list[Piece]:
    """Return pieces that hold rows `start` up to `stop`, in order; some may not be there yet.

    Those that are there are taken, however they were shared out. Of what is missing, pieces that
    another process has begun are taken as they are, so that it can be waited for or gone on with.

    Args:
        file: What the array is called where it is in one.
        count: Its rows.
        start: The first row that is wanted.
        stop: The row after the last one.
    """
    there, begun = _found(file, count)
    pieces = []
    while start < stop:
        pieces.append(piece_of(file, *_next(there, begun, start, stop), count))
        start = pieces[-1].stop
    return pieces


def _next(
    there: set[tuple[int, int]], begun: set[tuple[int, int]], start: int, stop: int
) -> tuple[int, int]:
    """Return first row and end of the piece that holds row `start`."""
    holding = [one for one in there if one[0] <= start < one[1]]
    if holding:
        return max(holding, key=lambda one: one[1])
    end = min([stop, *(first for first, _ in there if first > start)])
    going = [one for one in begun if one[0] == start and one[1] <= end]
    if going:
        return max(going)
    return start, min([end, *(first for first, _ in begun if first > start)])


def _found(file: Path, count: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Return first row and end of all pieces that are there, and of those that are unfinished."""
    form = re.compile(rf"{re.escape(file.stem)}(?:\.(\d+)-(\d+))?\.npy(\.part)?")
    there, begun = set(), set()
    for path in file.parent.glob(f"{file.stem}.*"):
        if found := form.fullmatch(path.name):
            rows = (int(found[1]), int(found[2])) if found[1] else (0, count)
            (begun if found[3] else there).add(rows)
    return there, begun
