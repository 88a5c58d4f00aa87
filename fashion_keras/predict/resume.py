"""Keeps the rows of an unfinished run, a line each, so that `--resume` continues after a kill."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fashion_keras.artifacts import only_one, whole_file
from fashion_keras.config import InputError
from fashion_keras.predict.rows import write_rows


def _unfinished(file: Path) -> Path:
    return file.with_name(f".{file.name}.unfinished")


def check_target(file: Path, resume: bool) -> None:
    """Raise the error for a file that rows cannot be written to.

    Raises:
        InputError: If it is a folder or a device, its folder does not exist, or an earlier run
            left rows and `resume` is not set.
    """
    if file.exists() and not file.is_file():
        raise InputError(f"Expected the name of a file for the rows. Received: {file}")
    if not file.parent.is_dir():
        raise InputError(f"No folder {file.parent} for {file.name}: create it first.")
    if not resume and _unfinished(file).exists():
        raise InputError(
            f"An earlier run left {_unfinished(file)}. Continue it with `--resume`, or delete it."
        )


class KeptRows:
    """Rows of a run, in a file whose first line holds the run's settings; see `kept_rows`.

    Attributes:
        done: Names of the photos that have a row.
    """

    def __init__(self, lines: BinaryIO, settings: dict) -> None:
        self._lines = lines
        # Names, not rows: a million photos must fit into memory.
        self.done: set[str] = set()
        whole = 0
        lines.seek(0)
        for line in lines:
            if not line.endswith(b"\n"):  # Torn by a kill.
                break
            if whole:
                self.done.add(json.loads(line)["file"])
            else:
                _check_settings(json.loads(line), settings)
            whole += len(line)
        lines.truncate(whole)
        if not whole:
            self._write(settings)

    def _write(self, values: dict) -> None:
        self._lines.write(json.dumps(values).encode() + b"\n")
        self._lines.flush()

    def add(self, row: dict) -> None:
        """Keep one row; after this a kill does not lose it."""
        self._write(row)
        self.done.add(row["file"])

    def finish(self, file: Path, kind: str, top: int) -> tuple[int, int]:
        """Write the file, whole or not at all, and keep the rows no longer; see `write_rows`."""
        width = max(map(len, self.done), default=0)
        self._lines.seek(0)
        next(self._lines)  # The settings.
        with (
            whole_file(file) as whole,
            whole.open("w", newline="", encoding="utf-8", errors="surrogateescape") as target,
        ):
            counts = write_rows(map(json.loads, self._lines), kind, top, target, width)
        self.done.clear()
        return counts


def _check_settings(before: dict, now: dict) -> None:
    if other := [name for name in now if before.get(name) != now[name]]:
        changes = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in other)
        raise InputError(f"The unfinished run cannot be continued with other options: {changes}.")


@contextlib.contextmanager
def kept_rows(file: Path, settings: dict) -> Iterator[KeptRows]:
    """Keep the rows of a run in `.<name>.unfinished` next to the file that they become.

    Args:
        file: What the rows become in the end.
        settings: What decides the rows.

    Raises:
        InputError: If an earlier run had other settings, or another process keeps the same rows.
    """
    lock = file.with_name(f".{file.name}.lock")
    with only_one(lock, f"rows, {file}"):
        with _unfinished(file).open("ab+") as lines:
            kept = KeptRows(lines, settings)
            try:
                yield kept
            finally:
                lines.close()
                if not kept.done:
                    _unfinished(file).unlink()
    lock.unlink(missing_ok=True)
