"""What a check finds: each finding in words, how harmful it is, and the verdict over all."""

from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 5  # Items of a finding that are printed; all are in the JSON file.

# Most harmful first; true for what has to be mended, false for what is only good to know.
KINDS = {
    "layout": True,  # Training refuses the folder.
    "empty class": True,
    "missing class": True,
    "leak": True,  # The score comes out too good, and nobody notices.
    "contradiction": True,
    "too small to learn": True,
    "priors": True,
    "too small to measure": True,
    "unreadable": True,
    "unused": True,
    "label errors": False,  # Most suspects are merely hard; no data set is ever without any.
    "labels unseen": False,
    "imbalance": False,
    "duplicates": False,
    "outliers": False,
    "narrow": False,
    "turned": False,
}


class Finding(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        kind: One of `KINDS`.
        text: What was found, in one sentence.
        advice: What to do about it.
        items: The files or classes it is about, each in words.
    """

    kind: str
    text: str
    advice: str
    items: list[str]


def harm(finding: Finding) -> int:
    """Return the rank of a finding's kind: 1 for the most harmful."""
    return list(KINDS).index(finding.kind) + 1


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings, the most harmful first."""
    return sorted(findings, key=lambda finding: (harm(finding), -len(finding.items)))


def to_mend(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that have to be mended, the most harmful first."""
    return [finding for finding in ordered(findings) if KINDS[finding.kind]]


def verdict(findings: Sequence[Finding]) -> str:
    """Return all findings for people: what is good to know, then `ready` or what to mend."""
    wrong = to_mend(findings)
    known = [finding for finding in ordered(findings) if not KINDS[finding.kind]]
    lines = ["good to know:"] if known else []
    lines += [line for finding in known for line in _lines("- ", finding)]
    if not wrong:
        return "\n".join([*lines, "verdict: ready"])
    many = "1 thing" if len(wrong) == 1 else f"{len(wrong)} things"
    lines.append(f"verdict: {many} to mend, the most harmful first")
    for number, finding in enumerate(wrong, start=1):
        lines += _lines(f"{number}. ", finding)
    return "\n".join(lines)


def _lines(mark: str, finding: Finding) -> list[str]:
    lines = [mark + finding.text]
    lines += [f"     {item}" for item in finding.items[:_SHOWN]]
    left = len(finding.items) - _SHOWN
    if left > 0:
        lines.append(f"     and {left} more in check.json")
    return [*lines, f"   {finding.advice}"]


def as_json(findings: Sequence[Finding]) -> dict:
    """Return verdict and findings as plain values."""
    return {
        "verdict": "mend" if to_mend(findings) else "ready",
        "findings": [
            {"harm": harm(finding), "to_mend": KINDS[finding.kind]} | finding._asdict()
            for finding in ordered(findings)
        ],
    }
