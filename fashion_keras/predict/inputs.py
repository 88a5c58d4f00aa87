"""Expands files, folders, patterns, addresses and lists to the names of photos; reads a photo."""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fashion_keras.data.files import find_files
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.predict.web import fetch_photo, is_address


def accept_any_name() -> None:
    """Let standard input and output carry names of files that are not UTF-8."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def expand(inputs: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """Return the name of each photo, each once, in the order given.

    Args:
        inputs: Files, folders (all files in them and below, without hidden ones), patterns such
            as `photos/**/*.jpg`, addresses, or `-` for the lines of `listed`, which may be any of
            these.
        listed: Lines of a list, with or without line ends.

    Returns:
        Paths and addresses. What does not exist, a pattern that no file matches and a folder
        without files stay as they are, so that reading them gives the reason.
    """
    lines = [line for one in listed if (line := one.rstrip("\r\n"))]
    named = [name for one in inputs for name in (lines if one == "-" else [one])]
    return list(dict.fromkeys(name for one in named for name in _expanded(one)))


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
    return glob.has_magic(name) and "\0" not in name and not os.path.lexists(name)


def read_named(name: str) -> np.ndarray:
    """Return the pixels of a photo given by its path or address.

    Args:
        name: One that `expand` returned.

    Raises:
        PhotoError: If it cannot be read or fetched.
    """
    if is_address(name):
        return read_photo(fetch_photo(name)).pixels
    if _is_folder(name) and os.access(name, os.R_OK):
        raise PhotoError("a folder without files")
    if _is_pattern(name):
        raise PhotoError("no file matches this pattern")
    return read_photo(Path(name)).pixels
