"""An array file that grows batch by batch, and goes on where it was stopped."""

import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fashion_keras.files import bring_to_disk, wait_for


class GrowingArray:
    """Rows that are appended to a file, which gets its name when all are there.

    Beside the file lies one with a line for each batch: rows and checksum. So a later run knows
    which batches are whole, also after a power cut, which may lose the end of a file or fill it
    with zeros. While it is open no other process can open it.

    Args:
        file: The array file in the end (`.npy`).
        count: Rows that it will hold.
    """

    def __init__(self, file: Path, count: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._count = count
        self._lines = _locked(file.with_name(f"{file.name}.batches"), file)
        self._rows = _opened(file.with_name(f"{file.name}.part"))
        self.ends = self._whole_batches()

    @property
    def ready(self) -> bool:
        """Whether another process has finished the file while this one waited for it."""
        return self._file.exists()

    def keep(self, rows: int) -> None:
        """Forget all batches after so many rows; one of `ends`, or 0."""
        self.ends = [end for end in self.ends if end <= rows]
        self._lines.seek(0)
        lines = [self._lines.readline() for _ in self.ends]
        self._lines.truncate(sum(map(len, lines)))
        self._lines.seek(0, os.SEEK_END)
        self._rows.seek(0)
        size = self._header_size() + rows * self._row_size if rows else 0
        self._rows.truncate(size)
        self._rows.seek(size)

    def append(self, rows: np.ndarray) -> None:
        """Append a batch, `(rows, ...)`, always of the same type and shape but for the rows."""
        content = np.ascontiguousarray(rows).tobytes()
        if not self.ends:
            header = {
                "descr": rows.dtype.str,
                "fortran_order": False,
                "shape": (self._count, *rows.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(self._rows, header)
        self._rows.write(content)
        self._rows.flush()
        end = (self.ends[-1] if self.ends else 0) + len(rows)
        self._lines.write(b"%d %08x\n" % (end, zlib.crc32(content)))
        self._lines.flush()
        self.ends.append(end)

    def finish(self) -> None:
        """Give the file its name."""
        os.fsync(self._rows.fileno())
        self._rows.close()
        os.replace(self._rows.name, self._file)
        bring_to_disk(self._file.parent)  # Before it could lose the name, but not the lines.
        Path(self._lines.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes open it; whole batches stay."""
        self._rows.close()
        if not self.ends:
            for unused in (self._rows, self._lines):
                Path(unused.name).unlink(missing_ok=True)
        self._lines.close()

    def _whole_batches(self) -> list[int]:
        """Return the number of rows after each batch that is there as its line says."""
        ends: list[int] = []
        try:
            self._rows.seek(self._header_size())
            for line in self._lines:
                end, checksum = line.split()
                size = (int(end) - (ends[-1] if ends else 0)) * self._row_size
                content = self._rows.read(size)
                if not line.endswith(b"\n") or zlib.crc32(content) != int(checksum, 16):
                    break
                ends.append(int(end))
        except Exception:  # A line is torn, or the header, on which NumPy raises nearly anything.
            return ends
        return ends

    def _header_size(self) -> int:
        """Read the header, and return its length."""
        self._rows.seek(0)
        np.lib.format.read_magic(self._rows)
        shape, _, kind = np.lib.format.read_array_header_1_0(self._rows)
        self._row_size = int(np.prod(shape[1:])) * kind.itemsize
        return self._rows.tell()


def begun_size(file: Path) -> int:
    """Return the bytes that are there of an array file that was begun."""
    part = file.with_name(f"{file.name}.part")
    return part.stat().st_size if part.exists() else 0


def _locked(lines: Path, file: Path) -> BinaryIO:
    """Open the file of lines once no other process has it open."""
    while True:
        opened = _opened(lines)
        wait_for(opened, str(file))
        # Who had it before may have removed it meanwhile: then this is a file without a name.
        if lines.exists() and os.path.samestat(os.fstat(opened.fileno()), lines.stat()):
            return opened
        opened.close()


def _opened(file: Path) -> BinaryIO:
    """Open a file to read and write, where it is or new."""
    file.touch()
    return file.open("r+b")
