"""Counts photos by class and split: empty, missing and tiny classes, imbalance, other priors."""

from collections.abc import Sequence

import numpy as np

from fashion_keras.check.findings import Finding
from fashion_keras.check.photo_facts import PhotoFacts
from fashion_keras.data.scan import SPLITS, Scan
from fashion_keras.metrics import wilson_interval

_LEAST_TO_LEARN = 20
# A class's recall is measured if its 95 % interval, at nine of ten right, is not wider than this;
# that takes ten photos.
_WIDEST_INTERVAL = 0.4
_IMBALANCE = 10.0  # Photos of the largest class for each photo of the smallest.
_PERMUTATIONS = 1999
# Splits drawn at random pass nearly always (99 of 100 times), and a difference that is sure but
# small, as in large data sets, is passed over: a class is named if this factor and so many standard
# errors lie between its shares.
_LEAST_P, _LEAST_FACTOR, _ERRORS = 0.01, 1.5, 2.5


def class_names(folders: Scan) -> list[str]:
    """Return the names of all classes that any split has, sorted."""
    return sorted({label for labels in folders.classes.values() for label in labels})


def split_names(facts: Sequence[PhotoFacts], folders: Scan) -> list[str]:
    """Return the splits in use, in order; one without name if none is decided."""
    found = {one.split for one in facts} | (set(folders.classes) - {""})
    return [split for split in SPLITS if split in found] or [""]


def count_photos(
    facts: Sequence[PhotoFacts], splits: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Count readable photos by class (rows) and split (columns), `(classes, splits)`."""
    table = np.zeros((len(labels), len(splits)), dtype=int)
    for one in facts:
        if not one.reason and one.split in splits:
            table[labels.index(one.label), splits.index(one.split)] += 1
    return table


def as_text(table: np.ndarray, splits: Sequence[str], labels: Sequence[str]) -> str:
    """Return counts, and shares of each split, as a table for people."""
    width = max(len(label) for label in [*labels, "class"]) + 2
    shares = table / np.maximum(table.sum(axis=0), 1)
    lines = ["class".ljust(width) + "".join(f"{split or 'photos':>20}" for split in splits)]
    for label, counts, parts in zip(labels, table, shares, strict=True):
        cells = (f"{count:>11} {part:>6.1%} " for count, part in zip(counts, parts, strict=True))
        lines.append(label.ljust(width) + " ".join(cells).rstrip())
    totals = "".join(f"{count:>11}{'':9}" for count in table.sum(axis=0))
    return "\n".join([*lines, "all".ljust(width) + totals.rstrip()])


def class_findings(folders: Scan, facts: Sequence[PhotoFacts], seed: int) -> list[Finding]:
    """Return what is wrong with classes and their sizes.

    Args:
        folders: The folders.
        facts: Their photos.
        seed: Of the permutations that tell whether priors differ.
    """
    labels, splits = class_names(folders), split_names(facts, folders)
    table = count_photos(facts, splits, labels)
    # Without a folder for training there is nothing to learn from, whatever the others hold.
    learnt = table[:, 0] if splits[0] in ("", SPLITS[0]) else np.zeros(len(labels), dtype=int)
    findings = [
        Finding(
            "empty class",
            "class folders without a photo that can be read; training refuses them",
            "Add photos to them, or remove them.",
            _empty(folders, facts),
        ),
        Finding(
            "missing class",
            "classes that are not in every split",
            f"Add photos of them. What is not in {SPLITS[0]} cannot be learnt, what is not in the "
            "others cannot be measured.",
            _missing(folders, labels),
        ),
        Finding(
            "too small to learn",
            f"classes with fewer than {_LEAST_TO_LEARN} photos to learn from",
            "Add photos, or join them with a class that is like them.",
            _tiny(learnt, labels),
        ),
        Finding(
            "too small to measure",
            f"classes with too few photos in {splits[-1] or 'all'} for their score to mean much",
            "Add photos to that split; ten make the interval 0.4 wide, thirty 0.2.",
            _unmeasurable(table[:, -1], labels) if len(splits) > 1 else [],
        ),
        Finding(
            "imbalance",
            f"the largest class has {_ratio(learnt):.0f} times the photos of the smallest",
            "Look at the score of each class, not only at accuracy: it hides the small ones.",
            _extremes(learnt, labels) if _ratio(learnt) >= _IMBALANCE else [],
        ),
        *_priors(table, splits, labels, seed),
    ]
    return [finding for finding in findings if finding.items]


def _empty(folders: Scan, facts: Sequence[PhotoFacts]) -> list[str]:
    """Name class folders without files, or without readable ones."""
    files = {(photo.name, photo.split, photo.label) for photo in folders.photos}
    held = {(split, label) for _, split, label in files}
    # By where the files lie: a split that was drawn for them is not a folder.
    split_of = {photo.path: photo.split for photo in folders.photos}
    readable = {(split_of[one.path], one.label) for one in facts if not one.reason}
    items = []
    for split, labels in folders.classes.items():
        for label in labels:
            place = f"{split}/{label}" if split else label
            if (split, label) not in held:
                items.append(f"{place}: empty")
            elif (split, label) not in readable:
                items.append(f"{place}: none of its files can be read")
    return items


def _missing(folders: Scan, labels: Sequence[str]) -> list[str]:
    return [
        f"{label} has no folder in {split}"
        for split, held in folders.classes.items()
        for label in labels
        if label not in held
    ]


def _tiny(counts: np.ndarray, labels: Sequence[str]) -> list[str]:
    return [
        f"{label}: {count}"
        for label, count in zip(labels, counts, strict=True)
        if 0 < count < _LEAST_TO_LEARN
    ]


def _unmeasurable(counts: np.ndarray, labels: Sequence[str]) -> list[str]:
    items = []
    for label, count in zip(labels, counts.tolist(), strict=True):
        if not count:
            continue
        low, high = wilson_interval(round(0.9 * count), count)
        if high - low > _WIDEST_INTERVAL:
            right = round(0.9 * count)
            items.append(
                f"{label}: {count}; with {right} of them right, between {low:.0%} and {high:.0%} "
                "would be right elsewhere"
            )
    return items


def _ratio(counts: np.ndarray) -> float:
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def _extremes(counts: np.ndarray, labels: Sequence[str]) -> list[str]:
    both = zip(counts.tolist(), labels, strict=True)
    present = sorted((count, label) for count, label in both if count)
    return [f"{label}: {count}" for count, label in (present[-1], present[0])]


def _priors(
    table: np.ndarray, splits: Sequence[str], labels: Sequence[str], seed: int
) -> list[Finding]:
    """Say which classes are more frequent in one split than in another by more than chance."""
    present = table[:, table.sum(axis=0) > 0]
    if present.shape[1] < 2:
        return []
    p_value = permutation_p(present, seed)
    items = [
        item
        for column in range(1, len(splits))
        for item in _differences(table[:, [0, column]], (splits[0], splits[column]), labels)
    ]
    if p_value > _LEAST_P or not items:
        return []
    sure = f"(chi-square {chi_square(present):.0f}, p = {p_value:.4f} by permutation)"
    return [
        Finding(
            "priors",
            f"classes are not equally frequent in all splits, by more than chance {sure}",
            "Draw the splits anew from all photos, or know that validation promises another score "
            "than you will get.",
            items,
        )
    ]


def _differences(table: np.ndarray, splits: tuple[str, str], labels: Sequence[str]) -> list[str]:
    """Name the classes whose shares of two splits differ by much and by more than chance."""
    shares = table / np.maximum(table.sum(axis=0), 1)
    # The difference of two shares in standard errors, and the factor between them, with half a
    # photo for none.
    together = table.sum(axis=1) / table.sum()
    error = np.sqrt(together * (1 - together) * (1 / np.maximum(table.sum(axis=0), 1)).sum())
    sure = np.abs(shares[:, 1] - shares[:, 0]) > _ERRORS * error
    factors = np.maximum(table, 0.5) / np.maximum(table.sum(axis=0), 1)
    much = factors.max(axis=1) >= _LEAST_FACTOR * factors.min(axis=1)
    return [
        f"{label}: {first:.1%} of {splits[0]} but {second:.1%} of {splits[1]}"
        for label, (first, second), named in zip(labels, shares, sure & much, strict=True)
        if named
    ]


def chi_square(table: np.ndarray) -> float:
    """Return Pearson's chi-square statistic of a table of counts, `(classes, splits)`."""
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    gaps = (table - expected) ** 2
    return float((gaps[expected > 0] / expected[expected > 0]).sum())


def permutation_p(table: np.ndarray, seed: int) -> float:
    """Return how often photos dealt to the splits at random are spread as unevenly as these.

    Dealing keeps the sizes of classes and splits, which is what a random permutation of the labels
    does; unlike the chi-square distribution it is right for small counts, too.

    Args:
        table: Counts, `(classes, splits)`.
        seed: Of the permutations.

    Returns:
        The p-value, at least 0.0005.
    """
    generator = np.random.default_rng(seed)
    observed = chi_square(table) - 1e-9
    as_uneven = 0
    for _ in range(_PERMUTATIONS):
        left, columns = table.sum(axis=1), []
        for size in table.sum(axis=0)[:-1]:
            columns.append(generator.multivariate_hypergeometric(left, size))
            left = left - columns[-1]
        as_uneven += chi_square(np.stack([*columns, left], axis=1)) >= observed
    return (as_uneven + 1) / (_PERMUTATIONS + 1)
