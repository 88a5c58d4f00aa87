"""What the user names (files, folders, patterns, addresses, a list) becomes photos, one by one."""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.predict.web import fetch_photo

_PATTERN = frozenset("*?[")


def take_any_name() -> None:
    """Let names of files that are not UTF-8, as other systems leave them, be read and printed."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def expand(inputs: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """Return the name of each photo meant, each once, in the order given.

    Args:
        inputs: Files, folders (all files in them and below, hidden ones left out), patterns such
            as `photos/**/*.jpg`, addresses, or `-` for the lines of `listed`, which are the same
            once more.
        listed: Lines of a list, with or without line ends.

    Returns:
        Paths and addresses. What does not exist, a pattern that nothing fits and a folder without
        files stay as they are, so that reading them gives the reason.
    """
    names: dict[str, None] = {}
    for given in inputs:
        if given == "-":
            lines = (line.rstrip("\r\n") for line in listed)
            names.update((name, None) for line in lines if line for name in _expanded(line))
        else:
            names.update((name, None) for name in _expanded(given))
    return list(names)


def _expanded(given: str) -> Iterator[str]:
    if is_address(given):
        yield given
    elif _is_folder(given):
        yield from [str(file) for file in find_files(Path(given))] or [given]
    elif _is_pattern(given):
        # `Path.glob` takes no pattern with a folder in front of it, as users write them.
        for name in sorted(glob.glob(given, recursive=True)) or [given]:  # noqa: PTH207
            yield from _expanded(name) if name != given else [given]
    else:
        yield given


def _is_folder(name: str) -> bool:
    # `Path.is_dir` raises for a name that is too long or in a folder without permission, and takes
    # an empty name for the current folder.
    return os.path.isdir(name)  # noqa: PTH112


def _is_pattern(name: str) -> bool:
    return bool(_PATTERN & set(name)) and "\0" not in name and not os.path.lexists(name)


def find_files(folder: Path) -> list[Path]:
    """Return all files in a folder and below, hidden ones left out, in the order of their names.

    Folders that cannot be looked into stand among them, so that reading them gives the reason.
    """
    closed: list[Path] = []
    walk = os.walk(folder, onerror=lambda error: closed.append(Path(error.filename)))
    found = [Path(parent, name) for parent, _, names in walk for name in names]
    return sorted(
        file
        for file in found + closed
        if not any(part[0] == "." for part in file.relative_to(folder).parts)
    )


def _why_without_files(folder: str) -> str:
    try:
        os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return "a folder without files"


def is_address(name: str) -> bool:
    """Return whether a name is the address of a photo on the web, not a path."""
    return name.lower().startswith(("http://", "https://"))


def read_named(name: str, allow_private: bool = False) -> np.ndarray:
    """Return the pixels of a photo given by its path or address.

    Args:
        name: One that `expand` returned.
        allow_private: Fetch also from addresses of the local network.

    Raises:
        PhotoError: If it cannot be read or fetched.
    """
    if is_address(name):
        return read_photo(fetch_photo(name, allow_private)).pixels
    if _is_folder(name):
        raise PhotoError(_why_without_files(name))
    if _is_pattern(name):
        raise PhotoError("no file fits this pattern")
    return read_photo(Path(name)).pixels
