"""Expands files, folders, patterns, addresses and lists to the names of photos; reads a photo."""

import codecs
import contextlib
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from fashion_keras.data.files import find_files
from fashion_keras.data.photo import PhotoError, is_flat, read_photo
from fashion_keras.predict.web import fetch_photo, is_address


def accept_any_name() -> None:
    """Let standard input and output carry names of files that are not UTF-8.

    Where the output is not UTF-8 either, what it cannot hold is escaped (see `cli.run`).
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() in ("utf-8", "utf8"):
            stream.reconfigure(errors="surrogateescape")


def expand(inputs: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """Return the name of each photo, each once, in the order given.

    Args:
        inputs: Files, folders (all files in them and below, without hidden ones), patterns such
            as `photos/**/*.jpg`, addresses, or `-` for the lines of `listed`, which may be any of
            these.
        listed: Lines of a list, with or without line ends and quotes.

    Returns:
        Paths and addresses. What does not exist, a pattern that no file matches and a folder
        without files stay as they are, so that reading them gives the reason.
    """
    lines = [line for one in listed if (line := _unquoted(one))]
    named = [name for one in inputs for name in (lines if one == "-" else [one])]
    return list(dict.fromkeys(name for one in named for name in _expanded(one)))


def read_list(stream: TextIO) -> list[str]:
    """Return the lines of a list of names in UTF-8, or in UTF-16 with its mark, as Windows writes.

    Bytes that are not UTF-8 are kept, as in names of files.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return list(stream)
    content = stream.buffer.read()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").splitlines()
    return content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape").split("\n")


def _unquoted(line: str) -> str:
    line = line.rstrip("\r\n")
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "\"'"
    return line[1:-1] if quoted and not os.path.lexists(line) else line


def _local(name: str) -> str:
    """Return a path as it is on this computer: of `~`, `file://`, and of other encodings."""
    if name.lower().startswith("file:"):
        return url2pathname(urlsplit(name).path)
    if name.startswith("~") and not os.path.lexists(name):
        return os.path.expanduser(name)  # noqa: PTH111 -- `Path` raises for an unknown user.
    if "\0" not in name and not os.path.lexists(name) and not name.isascii():
        with contextlib.suppress(UnicodeError):  # A list in the encoding of Windows.
            other = os.fsencode(name).decode("cp1252")
            return other if os.path.lexists(other) else name
    return name


def _expanded(given: str) -> Iterator[str]:
    given = given if is_address(given) else _local(given)
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
        return seen(read_photo(fetch_photo(name)).pixels)
    if _is_folder(name) and os.access(name, os.R_OK):
        raise PhotoError("a folder without files")
    if _is_pattern(name):
        raise PhotoError("no file matches this pattern")
    return seen(read_photo(Path(name)).pixels)


def seen(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of a photo on which something can be seen.

    Raises:
        PhotoError: If it is of a single colour.
    """
    if is_flat(pixels):
        raise PhotoError("of a single colour: nothing can be seen")
    return pixels
