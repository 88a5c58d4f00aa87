"""Recognises a full or read-only disk in whatever words a library tells of it."""

import errno
import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# h5py, TensorFlow, OpenVINO and others raise errors of their own, with the system's words inside.
_SIGNS = {
    "full": ("No space left on device", "errno = 28", "Errno 28", "Disk quota exceeded"),
    "read-only": ("Read-only file system", "errno = 30", "Errno 30"),
}
_ADVICE = {
    "full": "free some room, or name another folder",
    "read-only": "make it writable, or name another folder",
}
# Where such errors name a file: h5py, Python, TensorFlow.
_NAMED = re.compile(r"(?:name = |: )'([^']+)'|(/[^\s:;,']+)[:;] (?:No space|Read-only)")
_ENOUGH = 1_000_000  # Bytes; a disk with less is called full.


class NoRoomError(OSError):
    """The system's error for a full disk; `needed` says in words how much would be needed."""

    def __init__(self, folder: Path, size: int, free: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        self.needed = f"{in_words(size)} are needed, {in_words(free)} are free"


def in_words(size: float) -> str:
    """Return a number of bytes as it is said."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def check_room(file: Path, needed: int) -> None:
    """Raise the system's error for a full disk before HDF5 meets one.

    HDF5 (1.14.6) would end the process with a segmentation fault, at the latest when Python ends.

    Args:
        file: What is to be written, or written anew.
        needed: Bytes that it takes.

    Raises:
        NoRoomError: If there is not so much room.
    """
    free = shutil.disk_usage(file.parent).free + (file.stat().st_size if file.exists() else 0)
    if free < needed + _ENOUGH:
        raise NoRoomError(file.parent, needed + _ENOUGH, free)


def told_of_disk(error: BaseException) -> str | None:
    """Return one line for the user if a disk is to blame for an error, or for what caused it."""
    for one in _chain(error):
        state = _state_in(one)
        if state:
            needed = f" ({one.needed})" if isinstance(one, NoRoomError) else ""
            return f"The disk of {_place_in(one)} is {state}{needed}: {_ADVICE[state]}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _state_in(error: BaseException) -> str | None:
    number = getattr(error, "errno", None)
    if number in _FULL or number == errno.EROFS:
        return "read-only" if number == errno.EROFS else "full"
    if not isinstance(error, Exception):
        return None
    told = str(error)
    return next((name for name, signs in _SIGNS.items() if any(map(told.count, signs))), None)


def _place_in(error: BaseException) -> str:
    """Return the file or folder that an error names; else those whose disks have no room."""
    named = getattr(error, "filename", None)
    if not named and (found := _NAMED.search(str(error))):
        named = found[1] or found[2]
    if named:
        return os.fsdecode(named)
    given = [Path(word.rpartition("=")[2]) for word in sys.argv[1:] if word]
    folders = [Path(tempfile.gettempdir()), Path.cwd(), *filter(os.path.exists, given)]
    without = [str(folder) for folder in folders if shutil.disk_usage(folder).free < _ENOUGH]
    return " or ".join(without) or "one of the folders that were named"


def hush_h5py() -> None:
    """Leave out what h5py tells at length, besides its error, when a full disk closes its files."""
    sys.unraisablehook = functools.partial(_say_unraisable, sys.unraisablehook)
    sys.excepthook = functools.partial(_say_uncaught, sys.excepthook)


def _say_unraisable(say: Callable[[Any], Any], told: Any) -> None:
    if "h5py" not in f"{told.object} {told.err_msg}":
        say(told)


def _say_uncaught(say: Callable[..., Any], kind: Any, error: Any, trace: Any) -> None:
    # A command's own errors of this kind are caught by `command.run`.
    if error is None or not told_of_disk(error):
        say(kind, error, trace)
