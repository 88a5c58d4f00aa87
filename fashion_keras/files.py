"""Files that take their places when they are whole, never before; and what a file holds."""

import contextlib
import glob
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fashion_keras.config import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two runs at a time would disturb each other.
    fcntl = None


@contextlib.contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock that no other process can hold meanwhile; it ends with the process, too.

    Args:
        lock: File to lock; it is made if it is missing, and stays.
        what: What only one process may do at a time, for the message.

    Raises:
        InputError: If another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as held:
        if not _locked(held):
            raise InputError(
                f"Another process is at the same {what}. Wait for its end, or end it. ({lock})"
            )
        yield


@contextlib.contextmanager
def one_at_a_time(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock that no other process can hold meanwhile; wait for it, and say so, if one does.

    Args:
        lock: File to lock; it is made if it is missing, and stays.
        what: What the other process makes, for the message.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as held:
        wait_for(held, what)
        yield


def made_once(folder: Path, make: Callable[[], object]) -> Path:
    """Return a folder, made if it is missing; other processes that need it wait meanwhile."""
    if not folder.exists():
        with one_at_a_time(folder.with_name(f".{folder.name}.lock"), str(folder)):
            if not folder.exists():  # Else another process has made it.
                make()
    return folder


def check_free(folder: Path) -> None:
    """Raise the error for a folder of results that another process is at; see `all_together`."""
    with _only_results(folder):
        pass


def _only_results(folder: Path) -> contextlib.AbstractContextManager[None]:
    folder = folder.resolve()
    return only_one(folder.with_name(f".{folder.name}.lock"), f"results in {folder}")


def wait_for(held: BinaryIO, what: str) -> None:
    """Lock an open file until it is closed; see `one_at_a_time`."""
    if not _locked(held):
        print(f"another process is making {what}; waiting for it", flush=True)
        fcntl.flock(held, fcntl.LOCK_EX)  # type: ignore[union-attr]


def _locked(held: BinaryIO) -> bool:
    """Lock an open file unless another process has locked it; return whether it is locked now."""
    if fcntl:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextlib.contextmanager
def all_together(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write a run's files to; they take their places when all are written.

    Until then the files of an earlier run stay as they are, and if anything fails they stay. While
    files take their places, the sign that all are there is missing.

    Args:
        folder: Where the files belong in the end.
        files: Their names. Those that were not written are removed from `folder`: they would be
            of an earlier run. The last one to be placed is the sign that all are there.

    Raises:
        InputError: If another process is at the results of this folder.
    """
    work = folder / ".unfinished"
    with _only_results(folder):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            for written in work.iterdir():
                bring_to_disk(written)
            (folder / files[-1]).unlink(missing_ok=True)
            bring_to_disk(folder)
            for name in files:
                if (work / name).exists():
                    os.replace(work / name, folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
            bring_to_disk(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Yield another name in the folder of `file`; what is written there becomes `file` at the end.

    Until then an earlier `file` stays as it is, and if anything fails it stays; nothing else is
    left. The folder is made if it is missing.

    Args:
        file: Where the file belongs. The other name ends alike: some writers look at the suffix.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(file)
    # Processes of two containers may have the same name and number.
    who = f"{platform.node()}-{os.getpid()}.{secrets.token_hex(2)}"
    unfinished = file.with_name(f".{who}.tmp.{file.name}")
    try:
        yield unfinished
        bring_to_disk(unfinished)
        os.replace(unfinished, file)
        bring_to_disk(file.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_leftovers(file: Path) -> None:
    """Remove what processes of this computer left that were killed while they wrote `file`."""
    for left in file.parent.glob(f".{glob.escape(platform.node())}-*.tmp.{glob.escape(file.name)}"):
        number = left.name.removeprefix(f".{platform.node()}-").partition(".")[0]
        if os.name == "posix" and number.isdecimal() and not _lives(int(number)):
            left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It is somebody else's.
        return True
    return True


def bring_to_disk(place: Path) -> None:
    """Let a file, or the names in a folder, outlive a power cut."""
    if place.is_dir():
        if os.name != "posix":  # Windows cannot do so for folders.
            return
        number = os.open(place, os.O_RDONLY)
    else:
        number = os.open(place, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
