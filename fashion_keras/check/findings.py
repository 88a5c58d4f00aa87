"""The findings of a check: what can be wrong, how harmful it is, and the verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_SHOWN = 5  # Items of a finding that are printed; all are in the JSON file.

# Each kind of finding with its text and what to do, the most harmful first.
TO_FIX = {
    "layout": (
        "training refuses these photos",
        "Put each class's photos into a folder of its own: either all next to each other, or in "
        "the folders train and validation (and one for the final test).",
    ),
    "empty class": (
        "class folders without a readable photo; training refuses them",
        "Add photos to them, or remove them.",
    ),
    "missing class": (
        "classes that are not in every split",
        "Add photos of them. A class that is not in train cannot be learnt, one that is not in the "
        "others cannot be measured.",
    ),
    "leak": (
        "photos that are in more than one split: {count}. The model is tested on photos that it "
        "was trained on, and the score is too good",
        "Keep each in one split (duplicates.png shows them).",
    ),
    "contradiction": (
        "photos that are in more than one class: {count}",
        "Keep each in the class it belongs to (duplicates.png shows them).",
    ),
    "too small to learn": (
        "classes with fewer than {least} training photos",
        "Add photos, or merge each with a similar class.",
    ),
    "priors": (
        "classes are not equally frequent in all splits, beyond chance (chi-square {statistic:.0f},"
        " p = {p_value:.4f} by permutation)",
        "Draw the splits again from all photos, or expect another score than that of validation.",
    ),
    "too small to measure": (
        "classes with too few photos in {split} for their score to mean much",
        "Add photos to that split; ten make the interval 0.4 wide, thirty 0.2.",
    ),
    "unreadable": (
        "files that cannot be read and will not be used: {count}",
        "Repair, replace or remove them.",
    ),
    "unused": (
        "photos outside the class folders, which will not be used: {count}",
        "Move them into the folder of their class, or away.",
    ),
}
GOOD_TO_KNOW = {
    "label errors": (  # Most suspects are merely hard; no data set is ever without any.
        "photos whose label is probably wrong, the likeliest first: {count}",
        "Look at them (label_errors.png shows the likeliest) and move only what is wrong. Most may "
        "be merely hard, fewer with a larger `--image-size`; those must stay.",
    ),
    "labels unseen": (
        "`--features` was given, but labels were not examined",
        "Fix the cause, and check again.",
    ),
    "imbalance": (
        "the largest class has {ratio:.0f} times the photos of the smallest",
        "Look at the score of each class, not only at accuracy, which hides the small ones.",
    ),
    "duplicates": (
        "photos that are in the same split more than once: {count}",
        "They count more than others; one of each is enough.",
    ),
    "outliers": (
        "photos that are unlike all others: {count}",
        "Check whether they belong here (outliers.png shows the farthest).",
    ),
    "flat": (
        "photos of a single colour, on which nothing can be seen: {count}",
        "Remove them.",
    ),
    "narrow": (
        "photos with one side {ratio:g} times the other or more: {count}",
        "They are squeezed into a square; crop them to the garment if that matters.",
    ),
    "enlarged": (
        "photos smaller than the {side} pixels of training: {count}. `--image-size {proposed}` is "
        "enough for nine of ten photos",
        "Enlarging adds nothing and takes time: give that size to search and final.",
    ),
    "turned": (
        "photos that EXIF turns: {count}",
        "They are used upright here; software that ignores EXIF shows them as they are stored.",
    ),
}
KINDS = TO_FIX | GOOD_TO_KNOW


class Suspect(NamedTuple):
    """A photo that has to be looked at."""

    name: str  # As in `CheckedPhoto`.
    label: str
    path: Path
    reasons: tuple[str, ...]  # In words, the most harmful first.
    likelier: str = ""  # The class it looks like, if it is another one.
    same: tuple[str, ...] = ()  # Names of the photos that show the same.


class Finding:
    """One kind of fault in a data set.

    Args:
        kind: One of `KINDS`.
        items: The files or classes that have it, in words; there may be none.
        suspects: The photos that have it, where each of them can be decided on.
        values: For the kind's text.
    """

    def __init__(
        self, kind: str, items: Sequence[str], suspects: Sequence[Suspect] = (), **values: object
    ) -> None:
        text, self.advice = KINDS[kind]
        self.harm, self.kind, self.to_fix = list(KINDS).index(kind) + 1, kind, kind in TO_FIX
        self.text = text.format(count=len(items), **values)
        self.items, self.suspects = list(items), list(suspects)

    def lines(self, mark: str) -> list[str]:
        """Return the lines to print, with a mark in front."""
        items = [f"     {item}" for item in self.items[:_SHOWN]]
        if (left := len(self.items) - _SHOWN) > 0:
            items.append(f"     and {left} more in check.json")
        return [mark + self.text, *items, f"   {self.advice}"]


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that have items, the most harmful first."""
    return sorted((one for one in findings if one.items), key=lambda finding: finding.harm)


def verdict(findings: Sequence[Finding]) -> str:
    """Return findings as text: what is good to know, then `ready` or what to fix."""
    known = [finding for finding in ordered(findings) if not finding.to_fix]
    wrong = [finding for finding in ordered(findings) if finding.to_fix]
    lines = ["good to know:"] if known else []
    for finding in known:
        lines += finding.lines("- ")
    many = "1 thing" if len(wrong) == 1 else f"{len(wrong)} things"
    lines.append(f"verdict: {many} to fix, the most harmful first" if wrong else "verdict: ready")
    for number, finding in enumerate(wrong, start=1):
        lines += finding.lines(f"{number}. ")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> dict:
    """Return verdict and findings as plain values."""
    found = ordered(findings)
    return {
        "verdict": "fix" if any(finding.to_fix for finding in found) else "ready",
        "findings": [
            {name: value for name, value in vars(one).items() if name != "suspects"}
            for one in found
        ],
    }
