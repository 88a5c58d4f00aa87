"""Artifacts: what is slow to make is made once, kept under a fingerprint, and never half-written.

An artifact is a pure function of what its fingerprint is taken of. It takes its name when it is
whole, by a rename, and is not changed afterwards; so it is valid if it exists. Locks save work
only: two processes that make the same artifact write the same.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fashion_keras.config import InputError

# h5py, TensorFlow and others raise errors of their own, with the system's words in them or others.
_FULL = "No space left on device|[Ee]rrno = 28|Disk quota exceeded"
_DISK_ERRORS = {
    "full": (
        errno.ENOSPC,
        rf"{_FULL}|\d requested and \d+ written|Not enough free space to write|"
        "basic_ios::clear: iostream error",  # OpenVINO's.
    ),
    "read-only": (errno.EROFS, r"Read-only file system|[Ee]rrno = 30"),
    "not accessible": (errno.EACCES, "Permission denied"),
}
_ADVICE = {"full": "Free some space", "read-only": "Make it writable"}
_WHERE = "(`--results`, `--cache` or `--out`; the variable TMPDIR for temporary files)"


def fingerprint(**facts: Any) -> str:
    """Return a key of 20 hexadecimal digits for JSON values; equal values give equal keys."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """Return a file or folder, made if it is missing; other processes that need it wait.

    Args:
        place: Where it belongs; its folder is made if it is missing.
        make: Makes it at the path that it is given.
    """
    if not place.exists():
        lock = place.with_name(f".{place.name}.lock")
        with one_at_a_time(lock, str(place)):
            if not place.exists():  # Otherwise another process has made it.
                with whole_file(place) as unfinished:
                    make(unfinished)
        lock.unlink(missing_ok=True)
    return place


@contextlib.contextmanager
def whole_file(place: Path) -> Iterator[Path]:
    """Yield a path in the folder of `place`; what is written there becomes `place` at the end.

    Until then an earlier `place` stays as it is; it stays if anything fails, and nothing else is
    left. The folder is made if it is missing. What is written may be a file, or, where `place`
    does not exist, a folder.

    Args:
        place: Where it belongs. The other path ends alike: some writers look at the suffix.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    # Processes of two containers may have the same name and number.
    owner = f"{os.getpid()}-{secrets.token_hex(2)}@{platform.node()}"
    unfinished = place.with_name(f".{owner}.tmp.{place.name}")
    try:
        yield unfinished
        _flush(unfinished)
        with contextlib.suppress(OSError) if place.is_dir() else contextlib.nullcontext():
            os.replace(unfinished, place)  # A folder that exists by now is the same artifact.
    finally:
        _remove(unfinished)


def _flush(file: Path) -> None:
    """Write a file to disk, so that a power cut cannot leave its name without its content."""
    if file.is_file():
        with file.open("rb+") as content:
            os.fsync(content.fileno())


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _remove_leftovers(place: Path) -> None:
    """Remove what processes of this computer left that were killed while they wrote `place`."""
    if os.name != "posix":  # Elsewhere `os.kill` ends a process.
        return
    for left in place.parent.glob(f".*@{glob.escape(f'{platform.node()}.tmp.{place.name}')}"):
        try:
            os.kill(int(left.name[1:].partition("-")[0]), 0)
        except ProcessLookupError:
            _remove(left)
        except PermissionError:  # It runs, and belongs to another user.
            continue


@contextlib.contextmanager
def one_at_a_time(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock that no other process can hold meanwhile; wait for it, and say so.

    The file `lock` is made if it is missing; the message names `what` the other process makes.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        print(f"another process is making {what}; waiting for it", flush=True)
        held = FileLock(lock).acquire()
    with held:
        yield


@contextlib.contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock that no other process can hold meanwhile; its file stays.

    Raises:
        InputError: If another process holds it, which writes `what`.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"Another process is writing the same {what}. Wait until it ends, or end it. ({lock})"
        ) from error


def _only_results(folder: Path) -> contextlib.AbstractContextManager[None]:
    folder = folder.resolve()
    return only_one(folder.with_name(f".{folder.name}.lock"), f"results in {folder}")


def check_free(folder: Path) -> None:
    """Raise the error for a folder of results that is read-only, or that another process writes.

    See `all_together`.
    """
    folder = folder.resolve()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise InputError(f"Cannot write to {place}. Choose another folder with `--results`.")
    if folder.exists():
        with _only_results(folder):
            pass


@contextlib.contextmanager
def _without_new(folder: Path, new: Sequence[Path]) -> Iterator[None]:
    """Remove folders that were made for `folder` if an error ends the block and they are empty."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # Windows removes no file that is open.
            if new[1:]:
                folder.with_name(f".{folder.name}.lock").unlink()
            for place in new:
                place.rmdir()
        raise


@contextlib.contextmanager
def all_together(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write a run's files to; they take their places when all are written.

    Until then the files of an earlier run stay as they are, and if anything fails they stay.

    Args:
        folder: Where the files belong in the end.
        files: Their names. Those that were not written are removed from `folder`: they would be
            of an earlier run. The last one to be placed is the sign that all are in place.

    Raises:
        InputError: If another process writes results to this folder.
    """
    folder = folder.resolve()
    work, new = folder / ".unfinished", [p for p in (folder, *folder.parents) if not p.exists()]
    with _only_results(folder), _without_new(folder, new):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            (folder / files[-1]).unlink(missing_ok=True)
            for name in files:
                if (work / name).exists():
                    _flush(work / name)
                    os.replace(work / name, folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def check_disk(folder: Path, needed: int) -> None:
    """Raise an `InputError` if so many bytes for fine-tuning do not fit on the disk of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"Fine-tuning keeps {in_words(needed)} in {folder}, where {in_words(free)} are free. "
            "Choose another `--cache` or fewer copies."
        )
    if needed:
        print(f"fine-tuning keeps {in_words(needed)} in {folder}", flush=True)


def in_words(size: float) -> str:
    """Return a number of bytes for people: `3.2 MB`, `1.5 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def disk_problem(error: BaseException | None) -> str | None:
    """Return a line for the user if a disk, full or not to be written to, caused an error.

    A lack of permissions that an `InputError` reports, as of a port, is left to its own message.
    """
    seen: set[int] = set()
    found, reported = None, isinstance(error, InputError)
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for state, (number, words) in _DISK_ERRORS.items():
            if reported and number == errno.EACCES:
                continue
            if getattr(error, "errno", None) == number or re.search(words, str(error)):
                advice = _ADVICE.get(state, "Change the permissions")
                # The first cause: what was raised from it may blame a file that is read.
                found = (
                    f"The disk is {state}: {error}. {advice}, or choose another folder {_WHERE}."
                )
        error = error.__cause__ or error.__context__
    return found
