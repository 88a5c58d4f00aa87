"""Finds photos that are in a data set more than once: copied, re-encoded, turned or mirrored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fashion_keras.check.findings import Finding
from fashion_keras.check.photos import CheckedPhoto
from fashion_keras.data.split import TURNS, group_duplicates
from fashion_keras.figures import draw_sheet, tile_of

_ROWS, _COLUMNS = 40, 6  # Of the picture of duplicates, at most.

Group = Sequence[CheckedPhoto]


def find_duplicates(photos: Sequence[CheckedPhoto]) -> list[Group]:
    """Return groups of two readable photos or more that are the same file or show the same."""
    readable = [photo for photo in photos if photo.hash]
    hashes = [photo.hash for photo in readable if photo.hash]
    groups = group_duplicates(hashes, [photo.sha256 for photo in readable])
    return [[readable[number] for number in group] for group in groups if len(group) > 1]


def duplicate_findings(groups: Sequence[Group]) -> list[Finding]:
    """Return the photos that are in more than one split, in more than one class, or just twice."""
    others = [group for group in groups if not _leaks(group) and not _contradicts(group)]
    return [
        Finding("leak", [_describe(group) for group in groups if _leaks(group)]),
        Finding("contradiction", [_describe(group) for group in groups if _contradicts(group)]),
        Finding("duplicates", [_describe(group) for group in others]),
    ]


def _leaks(group: Group) -> bool:
    return len({photo.split for photo in group}) > 1


def _contradicts(group: Group) -> bool:
    return len({photo.label for photo in group}) > 1


def _describe(group: Group) -> str:
    first, *others = group
    return f"{first.name} = " + ", ".join(f"{one.name} ({_relation(first, one)})" for one in others)


def _relation(one: CheckedPhoto, other: CheckedPhoto) -> str:
    if one.sha256 == other.sha256 or not (one.hash and other.hash):
        return "the same file"
    before, after = one.hash.thumbnails.astype("int16"), other.hash.thumbnails[0]
    nearest = list(TURNS)[np.abs(before - after).mean(axis=1).argmin()]
    return f"nearly the same, {nearest}" if nearest else "nearly the same"


def draw_duplicates(groups: Sequence[Group], file: Path) -> None:
    """Draw each group as a row of photos in a PNG file, those across splits and classes first."""
    worst = sorted(groups, key=lambda group: (not _leaks(group), not _contradicts(group)))
    rows = [[tile_of(photo.path, photo.name) for photo in one[:_COLUMNS]] for one in worst[:_ROWS]]
    draw_sheet(rows, f"the same photo more than once: {len(rows)} of {len(groups)}", file)
