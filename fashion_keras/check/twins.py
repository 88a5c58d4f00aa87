"""Finds photos that are in a data set more than once: copied, re-encoded, turned or mirrored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fashion_keras.check.findings import Finding
from fashion_keras.check.photo_facts import PhotoFacts
from fashion_keras.data.split import TURNS, group_duplicates
from fashion_keras.figures import draw_sheet, tile_of

_ROWS, _COLUMNS = 40, 6  # What the picture of duplicates shows at the most.


def find_twins(facts: Sequence[PhotoFacts]) -> list[list[PhotoFacts]]:
    """Put photos together that show the same, in any of eight turns, or are the same file.

    Args:
        facts: Photos; unreadable ones are passed over.

    Returns:
        Groups of two photos or more, in the order of `facts`.
    """
    readable = [one for one in facts if not one.reason]
    looks = [one.looks for one in readable if one.looks]
    groups = group_duplicates(looks, [one.sha256 for one in readable])
    return [[readable[number] for number in group] for group in groups if len(group) > 1]


def twin_findings(groups: Sequence[Sequence[PhotoFacts]]) -> list[Finding]:
    """Say which photos are in more than one split, in more than one class, or just twice."""
    leaks = [group for group in groups if _leaks(group)]
    contradictions = [group for group in groups if _contradicts(group)]
    others = [group for group in groups if not _leaks(group) and not _contradicts(group)]
    findings = [
        Finding(
            "leak",
            f"photos that are in more than one split: {len(leaks)}. The model is asked for what "
            "it was shown, and the score is too good",
            "Keep each in one split (duplicates.png shows them).",
            [_words(group) for group in leaks],
        ),
        Finding(
            "contradiction",
            f"photos that are in more than one class: {len(contradictions)}",
            "Keep each in the class it belongs to (duplicates.png shows them).",
            [_words(group) for group in contradictions],
        ),
        Finding(
            "duplicates",
            f"photos that are in the same split more than once: {len(others)}",
            "They count more than others; one of each is enough.",
            [_words(group) for group in others],
        ),
    ]
    return [finding for finding in findings if finding.items]


def _leaks(group: Sequence[PhotoFacts]) -> bool:
    return len({one.split for one in group}) > 1


def _contradicts(group: Sequence[PhotoFacts]) -> bool:
    return len({one.label for one in group}) > 1


def _words(group: Sequence[PhotoFacts]) -> str:
    first, *others = group
    return f"{first.name} = " + ", ".join(f"{one.name} ({relation(first, one)})" for one in others)


def relation(one: PhotoFacts, other: PhotoFacts) -> str:
    """Say in what way the second photo is a copy of the first."""
    if one.sha256 == other.sha256:
        return "the same file"
    if one.looks is None or other.looks is None:
        raise ValueError("Expected photos that can be read.")
    before, after = one.looks.thumbnails.astype("int16"), other.looks.thumbnails[0]
    nearest = list(TURNS)[np.abs(before - after).mean(axis=1).argmin()]
    return f"nearly the same, {nearest}" if nearest else "nearly the same"


def draw_twins(groups: Sequence[Sequence[PhotoFacts]], file: Path) -> None:
    """Draw each group as a row of photos, those across splits and classes first.

    Args:
        groups: At least one.
        file: Where to save the picture, a PNG.
    """
    worst = sorted(groups, key=lambda group: (not _leaks(group), not _contradicts(group)))
    rows = [[tile_of(one.path, one.name) for one in group[:_COLUMNS]] for group in worst[:_ROWS]]
    title = f"the same photo more than once: {len(rows)} of {len(groups)}"
    draw_sheet(rows, title, file)
