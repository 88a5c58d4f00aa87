"""Photos whose labels are in a table, or in their names, and not in the names of folders."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fashion_keras.config import InputError
from fashion_keras.data.files import find_files
from fashion_keras.data.layout import PHOTO, SPLITS, split_of

_LABELS = ("label", "class", "category", "labels", "class_name", "target", "y")
_SPLITS = ("split", "set", "subset", "fold")
_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")


class Named(NamedTuple):
    """A photo with its label; the split is empty where none is known."""

    path: Path
    split: str
    label: str


def read_table(file: Path, label_column: str = "") -> list[Named]:
    """Read photos and labels from a CSV file with a header, as spreadsheets write it.

    Files are named relative to the table's folder, or to one in it, with or without ending. A
    column `split` is used if all its values are names of splits.

    Args:
        file: The table; separated by comma, semicolon or tab, in UTF-8.
        label_column: Name of the column of labels (default: one of the usual names).

    Raises:
        InputError: If there is no such column, no column of files, or a file does not exist.
    """
    rows = _rows(file)
    columns = list(rows[0])
    label = _label_column(columns, label_column, file)
    paths = _paths(rows, [name for name in columns if name != label], file)
    if empty := [path.name for path, row in zip(paths, rows, strict=True) if not row[label]]:
        raise InputError(f"{file}: {len(empty)} files have no {label}. First: {empty[0]}")
    splits = _splits(rows, columns)
    labels = [row[label].strip() for row in rows]
    return [Named(*one) for one in zip(paths, splits, labels, strict=True)]


def match_names(folder: Path, pattern: str) -> list[Named]:
    r"""Return the photos below a folder whose path matches a pattern, with the label in it.

    Args:
        folder: Searched with all folders in it.
        pattern: A regular expression; its first group is the label, as in the fast.ai course:
            `([^/]+)_\d+.jpg$`. It is searched in the path below the folder.

    Raises:
        InputError: If it is no regular expression with a group, or no photo matches.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"`--label-pattern {pattern}` is no regular expression: {error}"
        ) from error
    if not expression.groups:
        raise InputError(
            f"Expected a regular expression with a group in brackets. Received: {pattern}"
        )
    photos = [file for file in find_files(folder) if PHOTO.search(file.name)]
    found = [(file, expression.search(file.relative_to(folder).as_posix())) for file in photos]
    named = [Named(file, "", match[1]) for file, match in found if match and match[1]]
    if not named:
        first = photos[0].relative_to(folder).as_posix() if photos else "no photo"
        raise InputError(f"No photo in {folder} matches `{pattern}`. First: {first}")
    return named


def open_table(file: Path) -> "csv.DictReader[str]":
    """Return the rows of a CSV file, separated by comma, semicolon or tab, in UTF-8 or cp1252."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = file.read_text(encoding="cp1252", errors="replace")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")


def _rows(file: Path) -> list[dict[str, str]]:
    if not (rows := list(open_table(file))):
        raise InputError(f"{file} holds no rows below its header.")
    return rows


def _label_column(columns: Sequence[str], wanted: str, file: Path) -> str:
    usual = [name for name in columns if name.strip().lower() in _LABELS]
    if wanted in columns or usual and not wanted:
        return wanted or usual[0]
    shown = ", ".join(columns)
    raise InputError(
        f"{file} has the columns {shown}: name that of the labels with `--label-column`."
        + (f" Received: {wanted}" if wanted else "")
    )


def _paths(rows: Sequence[dict], columns: Sequence[str], file: Path) -> list[Path]:
    """Return the file of each row: of the first column whose first value is one."""
    folders = [file.parent, *(path for path in sorted(file.parent.iterdir()) if path.is_dir())]
    for column in columns:
        for folder in folders:
            for ending in _ENDINGS:
                if rows[0][column] and (folder / (rows[0][column] + ending)).is_file():
                    paths = [folder / (row[column] + ending) for row in rows]
                    if missing := [path for path in paths if not path.is_file()]:
                        count, first = len(missing), missing[0]
                        raise InputError(f"{file}: {count} files do not exist. First: {first}")
                    return paths
    raise InputError(
        f"{file}: no column names files in {file.parent} or a folder in it. "
        f"First row: {', '.join(rows[0].values())}"
    )


def _splits(rows: Sequence[dict], columns: Sequence[str]) -> list[str]:
    for column in columns:
        values = [split_of(row[column]) for row in rows]
        if column.strip().lower() in _SPLITS and all(values) and SPLITS[0] in values:
            return values
    return [""] * len(rows)
