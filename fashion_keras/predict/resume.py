"""Keeps the rows of an unfinished run, a line each, so that `--resume` continues after a kill."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from fashion_keras.artifacts import only_one, whole_file
from fashion_keras.config import InputError
from fashion_keras.predict.rows import write_rows


def _unfinished(file: Path) -> Path:
    return file.with_name(f".{file.name}.unfinished")


def check_target(file: Path, resume: bool) -> None:
    """Raise the error for a file that rows cannot be written to.

    Raises:
        InputError: If it is a folder, its folder does not exist, or an earlier run left rows and
            `resume` is not set.
    """
    if file.is_dir():
        raise InputError(f"Expected the name of a file for the rows. Received: the folder {file}")
    if not file.parent.is_dir():
        raise InputError(f"No folder {file.parent} for {file.name}: create it first.")
    if not resume and _unfinished(file).exists():
        raise InputError(
            f"An earlier run left {_unfinished(file)}. Continue it with `--resume`, or delete it."
        )


class KeptRows:
    """Rows of a run, kept in `.<name>.unfinished` next to the file that they become.

    Args:
        file: What the rows become in the end.
        settings: What decides the rows; an earlier run is continued only with the same.

    Attributes:
        done: Names of the photos that have a row.

    Raises:
        InputError: If an earlier run had other settings.
    """

    def __init__(self, file: Path, settings: dict) -> None:
        self._target = file
        self._path = _unfinished(file)
        # Names, not rows: a million photos must fit into memory.
        self.done: set[str] = set()
        begun = self._path.exists() and self._read(settings)
        self._lines = self._path.open("a", encoding="utf-8")
        if not begun:
            self._write(settings)

    def _read(self, settings: dict) -> bool:
        """Read what an earlier run left and cut a torn last line; return whether it left any."""
        whole = 0
        with self._path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if whole:
                    self.done.add(json.loads(line)["file"])
                else:
                    _check_settings(json.loads(line), settings)
                whole += len(line)
            file.truncate(whole)
        return whole > 0

    def _write(self, values: dict) -> None:
        self._lines.write(json.dumps(values) + "\n")
        self._lines.flush()

    def add(self, row: dict) -> None:
        """Keep one row; after this a kill does not lose it."""
        self._write(row)
        self.done.add(row["file"])

    def finish(self, kind: str, top: int) -> tuple[int, int]:
        """Write the file, whole or not at all, and remove what was kept; see `write_rows`."""
        width = max(map(len, self.done), default=0)
        with (
            whole_file(self._target) as whole,
            whole.open("w", newline="", encoding="utf-8", errors="surrogateescape") as target,
            self._path.open(encoding="utf-8") as lines,
        ):
            next(lines)  # The settings.
            counts = write_rows(map(json.loads, lines), kind, top, target, width)
        self._lines.close()
        self._path.unlink()
        return counts

    def close(self) -> None:
        """Leave the rows for another run, if there are any."""
        self._lines.close()
        if not self.done:
            self._path.unlink(missing_ok=True)


def _check_settings(before: dict, now: dict) -> None:
    if other := [name for name in now if before.get(name) != now[name]]:
        changes = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in other)
        raise InputError(f"The unfinished run cannot be continued with other options: {changes}.")


@contextlib.contextmanager
def kept_rows(file: Path, settings: dict) -> Iterator[KeptRows]:
    """Keep the rows of a run; raise `InputError` if another process keeps the same."""
    lock = file.with_name(f".{file.name}.lock")
    with only_one(lock, f"rows, {file}"):
        kept = KeptRows(file, settings)
        try:
            yield kept
        finally:
            kept.close()
    lock.unlink(missing_ok=True)
