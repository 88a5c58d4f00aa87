"""Files that take their places when they are whole, never before; and what a file holds."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

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
        if fcntl:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another process is at the same {what}. Wait for its end, or end it. ({lock})"
                ) from None
        yield


@contextlib.contextmanager
def all_together(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write a run's files to; they take their places when all are written.

    Until then the files of an earlier run stay as they are, and if anything fails they stay.

    Args:
        folder: Where the files belong in the end.
        files: Their names. Those that were not written are removed from `folder`: they would be
            of an earlier run. The last one to be placed is the sign that all are there.
    """
    work = folder / ".unfinished"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        for name in files:
            if (work / name).exists():
                os.replace(work / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
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
    unfinished = file.with_name(f".{os.getpid()}.tmp.{file.name}")
    try:
        yield unfinished
        with unfinished.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
