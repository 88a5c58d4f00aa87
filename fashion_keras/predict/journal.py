"""Rows of an unfinished run, kept line by line, so that the same command goes on after a kill."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from fashion_keras.config import InputError
from fashion_keras.files import only_one, whole_file
from fashion_keras.predict.rows import write_rows


def check_target(file: Path, resume: bool) -> None:
    """Raise the error for a file that the rows of a run cannot become.

    Raises:
        InputError: If its folder does not exist, it is a folder itself, another process is making
            it, or an earlier run left rows and `resume` is not set.
    """
    if file.is_dir():
        raise InputError(f"Expected the name of a file for the rows. Received: the folder {file}")
    if not file.parent.is_dir():
        raise InputError(f"No folder {file.parent} for {file.name}: make it first.")
    if _journal_of(file).exists():
        with _only_rows(file):
            pass
    if not resume and _journal_of(file).exists():
        raise InputError(
            f"An earlier run left {_journal_of(file)}. Go on with it by `--resume`, or delete it."
        )


def _only_rows(file: Path) -> contextlib.AbstractContextManager[None]:
    return only_one(_journal_of(file), f"rows, {file}")


def _journal_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.unfinished")


class Journal:
    """Keeps the rows of a run beside the file they will become.

    Args:
        file: What the rows become in the end; until then they stand in `.<name>.unfinished`.
        settings: What decides the rows; a run goes on only with the same.
        resume: Go on with what an earlier run left.

    Raises:
        InputError: See `check_target`; or if the rows that an earlier run left were made with other
            settings, or are damaged.
    """

    def __init__(self, file: Path, settings: dict, resume: bool) -> None:
        check_target(file, resume)
        self._file = file
        self._path = _journal_of(file)
        # Names, not rows: a million photos must fit into memory. True: it could be read.
        self.done: dict[str, bool] = {}
        with contextlib.ExitStack() as held:
            held.enter_context(_only_rows(file))
            if not self._path.exists():  # It was opened, then another process removed it.
                raise InputError(f"Another process has just finished {file}.")
            self._begin(settings)
            self._held = held.pop_all()

    def _begin(self, settings: dict) -> None:
        goes_on = self._cut_torn_line() > 0
        if goes_on:
            _check_settings(self._read(), settings)
        self._target = self._path.open("a", encoding="utf-8")
        if not goes_on:
            self._add(settings)

    def _cut_torn_line(self) -> int:
        """Cut off what was not written whole; return how many bytes are left."""
        with self._path.open("r+b") as file:
            # A kill leaves half a line; a power cut may leave zeros, also before whole lines.
            whole = sum(map(len, itertools.takewhile(_is_whole, file)))
            file.truncate(whole)
        return whole

    def _read(self) -> dict:
        """Note the photos that were done before; return the settings they were done with."""
        try:
            with self._path.open(encoding="utf-8") as lines:
                settings = json.loads(next(lines))
                self.done = {row["file"]: not row["reason"] for row in map(json.loads, lines)}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{self._path} is damaged: delete it and start anew.") from error
        return settings

    def add(self, row: dict) -> None:
        """Keep one row; after this a kill does not lose it."""
        self._add(row)
        self.done[row["file"]] = not row["reason"]

    def _add(self, line: dict) -> None:
        self._target.write(json.dumps(line) + "\n")
        self._target.flush()

    def finish(self, kind: str, top: int) -> None:
        """Write the file, whole or not at all, and remove the journal."""
        self._target.close()
        with whole_file(self._file) as unfinished:
            with unfinished.open(
                "w", newline="", encoding="utf-8", errors="surrogateescape"
            ) as target:
                width = max((len(name) for name in self.done), default=0)
                write_rows(self._rows(), kind, top, target, width)
        if os.name == "nt":  # Windows removes no file that is open.
            self._held.close()
        self._path.unlink()
        self._held.close()

    def _rows(self) -> Iterator[dict]:
        with self._path.open(encoding="utf-8") as lines:
            next(lines)
            yield from map(json.loads, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._target.close()  # What it holds stays.
        self._held.close()


def _is_whole(line: bytes) -> bool:
    return line.endswith(b"\n") and b"\0" not in line


def _check_settings(before: dict, now: dict) -> None:
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        told = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in other)
        raise InputError(
            f"The unfinished run that `--resume` would go on with had other settings: {told}."
        )
