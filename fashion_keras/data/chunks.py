"""Arrays of features that stay on disk, in chunks, until rows of them are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Chunks:
    """Rows of several `.npy` files, read as one array when they are asked for.

    All files but the last one hold equally many rows.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        first, last = (np.load(file, mmap_mode="r") for file in (files[0], files[-1]))
        self._rows = len(first)
        count = self._rows * (len(files) - 1) + len(last)
        self.shape: tuple[int, ...] = (count, *first.shape[1:])
        self.dtype: np.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows of a number, a slice, an array of numbers or a mask."""
        numbers = np.arange(len(self))[rows]
        found = np.empty((*numbers.shape, *self.shape[1:]), self.dtype)
        owners = numbers // self._rows
        for owner in np.unique(owners):
            mine = owners == owner
            # A map that stays open would count what was read through it as memory of this process.
            chunk = np.load(self._files[owner], mmap_mode="r")
            found[mine] = chunk[numbers[mine] % self._rows]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple:
        return np.asarray, (self[:],)  # Another computer may not have the files.


Features = np.ndarray | Chunks
