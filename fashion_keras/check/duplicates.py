"""Finds photos that are in a data set more than once: copied, re-encoded, turned or mirrored."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fashion_keras.check.findings import KINDS, Finding, Suspect
from fashion_keras.check.photos import CheckedPhoto
from fashion_keras.data.split import TURNS, group_duplicates
from fashion_keras.figures import draw_sheet, tile_of

_ROWS, _COLUMNS = 40, 6  # Of the picture of duplicates, at most.

_REASONS = {
    "leak": "in more than one split",
    "contradiction": "in more than one class",
    "duplicates": "more than once in the same split",
}

Group = Sequence[CheckedPhoto]


def find_duplicates(photos: Sequence[CheckedPhoto]) -> list[Group]:
    """Return groups of two readable photos or more that are the same file or show the same."""
    readable = [photo for photo in photos if photo.hash]
    hashes = [photo.hash for photo in readable if photo.hash]
    groups = group_duplicates(hashes, [photo.sha256 for photo in readable])
    return [[readable[number] for number in group] for group in groups if len(group) > 1]


def duplicate_findings(groups: Sequence[Group]) -> list[Finding]:
    """Return the photos that are in more than one split, in more than one class, or just twice."""
    found = []
    for kind, reason in _REASONS.items():
        having = [group for group in groups if kind in _kinds(group)]
        suspects = [one for group in having for one in _suspects(group, reason)]
        found.append(Finding(kind, [_describe(group) for group in having], suspects))
    return found


def _suspects(group: Group, reason: str) -> Iterator[Suspect]:
    for photo in group:
        others = [one for one in group if one is not photo]
        likelier = next((one.label for one in others if one.label != photo.label), "")
        yield photo.suspect(reason, likelier, [one.name for one in others])


def _kinds(group: Group) -> list[str]:
    """Return the kinds of findings that a group belongs to, the most harmful first."""
    kinds = ["leak"] if len({photo.split for photo in group}) > 1 else []
    kinds += ["contradiction"] if len({photo.label for photo in group}) > 1 else []
    return kinds or ["duplicates"]


def _describe(group: Group) -> str:
    first, *others = group
    return f"{first.name} = " + ", ".join(f"{one.name} ({_relation(first, one)})" for one in others)


def _relation(one: CheckedPhoto, other: CheckedPhoto) -> str:
    if one.sha256 == other.sha256 or not (one.hash and other.hash):
        return "the same file"
    before, after = one.hash.thumbnails.astype("int16"), other.hash.thumbnails[0]
    turn = TURNS[np.abs(before - after).mean(axis=1).argmin()]
    if turn is None:
        return "nearly the same"
    return f"nearly the same after {turn.name.lower().replace('_', ' ')}"


def draw_duplicates(groups: Sequence[Group], file: Path) -> None:
    """Draw each group as a row of photos in a PNG file, those across splits and classes first."""
    worst = sorted(groups, key=lambda group: list(KINDS).index(_kinds(group)[0]))
    rows = [[tile_of(photo.path, photo.name) for photo in one[:_COLUMNS]] for one in worst[:_ROWS]]
    draw_sheet(rows, f"the same photo more than once: {len(rows)} of {len(groups)}", file)
