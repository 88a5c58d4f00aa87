"""Decisions on single photos of a data set, in a CSV file: keep, move to another class, or drop."""

import csv
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fashion_keras.artifacts import whole_file
from fashion_keras.config import InputError
from fashion_keras.data.files import shown
from fashion_keras.data.layout import OTHER
from fashion_keras.data.listed import open_table

COLUMNS = ("file", "action", "label")
ACTIONS = ("keep", "move", "drop")
_NAMED = 3  # Entries without a photo, in the line that counts them.
Photo = TypeVar("Photo", bound=Any)


class Decision(NamedTuple):
    """What to do with a photo: one of `ACTIONS`; `move` has the class it belongs to."""

    action: str
    label: str = ""


def read_review(file: Path, labels: Iterable[str]) -> dict[str, Decision]:
    """Read the decision on each file, by its path below the folder of the data set.

    Args:
        file: CSV with the columns file, action and label, as the review and spreadsheets write it.
        labels: Classes of the data set; `other`, for photos of none of them, is one more.

    Raises:
        InputError: If there is no such file, a column is missing, or a line cannot be used.
    """
    if not file.is_file():
        raise InputError(
            f"No review at {file}; `python -m fashion_keras.check PHOTOS --review` writes one."
        )
    rows, known = open_table(file), {label.casefold(): label for label in [*labels, OTHER]}
    columns = rows.fieldnames or []
    if missing := [name for name in COLUMNS if name not in columns]:
        raise InputError(
            f"{file}, line 1: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} is "
            f"missing. Received: {', '.join(columns)[:200]}"
        )
    decisions: dict[str, Decision] = {}
    for row in rows:
        try:
            name, decision = _read(row, known)
            if name in decisions:
                raise InputError(f"an earlier line has the same file, {name}: remove one.")
        except InputError as error:
            raise InputError(f"{file}, line {rows.line_num}: {error}") from error
        decisions[name] = decision
    return decisions


def _read(row: Mapping[str, str], labels: Mapping[str, str]) -> tuple[str, Decision]:
    name, action, label = (row[column] for column in COLUMNS)
    action, label = action.strip().lower(), normal(label.strip())
    if not name:
        raise InputError("expected the path of a photo. Received: nothing")
    if action not in ACTIONS:
        raise InputError(f"`action` must be one of {', '.join(ACTIONS)}. Received: {action}")
    if action != "move" and label:
        raise InputError(f"only `move` takes a label. Received: {action}, {label}")
    if action == "move" and label.casefold() not in labels:
        known = ", ".join(labels.values())
        raise InputError(f"`label` must be one of {known}. Received: {label or 'nothing'}")
    return normal(name), Decision(action, labels.get(label.casefold(), ""))


def write_review(file: Path, decisions: Mapping[str, Decision]) -> None:
    """Write decisions by file name; the file is replaced as a whole, and Excel reads it, too."""
    with whole_file(file) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8-sig") as table:
            rows = ([name, *decision] for name, decision in decisions.items())
            csv.writer(table).writerows([COLUMNS, *rows])


def apply_review(
    photos: Sequence[Photo], file: Path, labels: Iterable[str], split: str = ""
) -> tuple[list[Photo], str]:
    """Return the photos without those to drop, the moved ones with their new label.

    Names decide: a photo whose content has changed is treated as before.

    Args:
        photos: Named tuples with the fields `name` and `label`.
        file: See `read_review`, as for `labels`.
        labels: See there.
        split: Name of the folder that the photos' names are relative to, if that is one of the
            splits in the data set's folder: entries of other splits are left out then. Without
            entries of this split all are taken: it may be a data set of its own.

    Returns:
        These photos, and a sentence that says what was done.
    """
    decisions, start = read_review(file, labels), f"{split}/" if split else ""
    ours = {name: one for name, one in decisions.items() if name.startswith(start)}
    decisions, start = (ours, start) if ours else (decisions, "")
    kept, dropped, moved = [], 0, 0
    for photo in photos:
        action, label = decisions.pop(start + normal(shown(photo.name)), Decision("keep"))
        if action == "drop":
            dropped += 1
            continue
        moved += action == "move" and label != photo.label
        kept.append(photo._replace(label=label or photo.label))
    count = "1 photo" if dropped == 1 else f"{dropped} photos"
    note = f"review {file.name}: {count} dropped, {moved} moved"
    if decisions:
        first = ", ".join([*decisions][:_NAMED]) + (", ..." if len(decisions) > _NAMED else "")
        note += f"; {len(decisions)} of its photos are not there ({first})"
    return kept, note


def normal(name: str) -> str:
    """Return a name in the form of Unicode that does not depend on the system."""
    return unicodedata.normalize("NFC", name)
