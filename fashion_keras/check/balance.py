"""Counts photos by class and split: empty, missing and small classes, imbalance, other priors."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import MonteCarloMethod, chi2_contingency

from fashion_keras.check.findings import Finding
from fashion_keras.check.photos import CheckedPhoto
from fashion_keras.data.layout import SPLITS
from fashion_keras.data.scan import Scan

_LEAST_TO_LEARN = 20
_LEAST_TO_MEASURE = 10  # With nine of them correct, the 95 % interval of the recall is 0.4 wide.
_IMBALANCE = 10.0  # Photos of the largest class for each photo of the smallest.
# Splits drawn at random pass nearly always (99 of 100 times). In large data sets small differences
# are significant, too: only a class whose shares differ by this factor and by so many standard
# errors is named.
_LARGEST_P, _LEAST_FACTOR, _ERRORS = 0.01, 1.5, 2.5
_TABLES = 1999  # Drawn at random for the p-value.


class Counts(NamedTuple):
    """The number of readable photos of each class and split."""

    labels: list[str]  # Classes of any split, sorted.
    splits: list[str]  # Splits in use, in order; one without a name if the source has none.
    table: np.ndarray  # `(classes, splits)`

    def __str__(self) -> str:
        """Return counts, and shares of each split, as a table to print."""
        width = max(map(len, [*self.labels, "class"])) + 2
        totals = self.table.sum(axis=0)
        lines = ["class".ljust(width) + "".join(f"{name or 'photos':>20}" for name in self.splits)]
        for label, row in zip(self.labels, self.table, strict=True):
            shares = zip(row, row / np.maximum(totals, 1), strict=True)
            cells = [f"{count:>12} {share:>7.1%}" for count, share in shares]
            lines.append(label.ljust(width) + "".join(cells))
        lines.append("all".ljust(width) + (8 * " ").join(map("{:>12}".format, totals)))
        return "\n".join(lines)


def count_photos(folders: Scan, photos: Sequence[CheckedPhoto]) -> Counts:
    """Count the readable photos in the folders of a data set."""
    labels = folders.labels
    used = {photo.split for photo in photos} | set(folders.classes)
    splits = [split for split in SPLITS if split in used] or [""]
    count = collections.Counter((photo.label, photo.split) for photo in photos if not photo.reason)
    table = [[count[label, split] for split in splits] for label in labels]
    return Counts(labels, splits, np.array(table, dtype=int).reshape(-1, len(splits)))


def class_findings(
    folders: Scan, photos: Sequence[CheckedPhoto], counts: Counts, seed: int
) -> list[Finding]:
    """Return what is wrong with classes and their sizes; `seed` is of the test for priors."""
    labels, splits, table = counts
    # Without a folder for training nothing can be learnt, whatever the others hold.
    train = _sizes(labels, table[:, 0]) if splits[0] in ("", SPLITS[0]) else []
    measured = _sizes(labels, table[:, -1]) if len(splits) > 1 else []
    ratio = train[-1][0] / train[0][0] if train else 1.0
    extremes = [train[-1], train[0]] if ratio >= _IMBALANCE else []
    missing = [
        f"{label} has no folder in {split}"
        for split, names in folders.classes.items()
        for label in labels
        if label not in names
    ]
    statistic, p_value = compare_priors(table, seed)
    others = range(1, len(splits)) if p_value <= _LARGEST_P else []
    differences = [item for column in others for item in _differences(counts, column)]
    return [
        Finding("empty class", _empty(folders, photos)),
        Finding("missing class", missing),
        Finding("too small to learn", _below(_LEAST_TO_LEARN, train), least=_LEAST_TO_LEARN),
        Finding("too small to measure", _below(_LEAST_TO_MEASURE, measured), split=splits[-1]),
        Finding("imbalance", [f"{label}: {size}" for size, label in extremes], ratio=ratio),
        Finding("priors", differences, statistic=statistic, p_value=p_value),
    ]


def _empty(folders: Scan, photos: Sequence[CheckedPhoto]) -> list[str]:
    """Name class folders without files, or without readable ones."""
    used = {(photo.split, photo.label) for photo in folders.photos}
    unreadable = {photo.path for photo in photos if photo.reason}
    readable = {(one.split, one.label) for one in folders.photos if one.path not in unreadable}
    return [
        (f"{split}/{label}: " if split else f"{label}: ")
        + ("none of its files can be read" if (split, label) in used else "empty")
        for split, labels in folders.classes.items()
        for label in labels
        if (split, label) not in readable
    ]


def _sizes(labels: Sequence[str], column: np.ndarray) -> list[tuple[int, str]]:
    """Return the classes with photos and their numbers of photos, the smallest first."""
    return sorted(pair for pair in zip(column.tolist(), labels, strict=True) if pair[0])


def _below(least: int, sizes: Sequence[tuple[int, str]]) -> list[str]:
    return [f"{label}: {size}" for size, label in sizes if size < least]


def compare_priors(table: np.ndarray, seed: int) -> tuple[float, float]:
    """Test whether classes are equally frequent in all splits, from counts `(classes, splits)`.

    Returns:
        Pearson's chi-square statistic and the p-value, at least 0.0005, of random permutations of
        the labels: unlike the chi-square distribution it holds for small counts, too.
    """
    present = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(present.shape) < 2:
        return 0.0, 1.0
    draw = MonteCarloMethod(n_resamples=_TABLES, rng=np.random.default_rng(seed))
    result: Any = chi2_contingency(present, correction=False, method=draw)
    return float(result.statistic), float(result.pvalue)


def _differences(counts: Counts, column: int) -> list[str]:
    """Name the classes whose share of a split differs much, and beyond chance, from the first."""
    table = counts.table[:, [0, column]]
    sizes = np.maximum(table.sum(axis=0), 1)
    shares, overall = table / sizes, table.sum(axis=1) / max(table.sum(), 1)
    error = np.sqrt(overall * (1 - overall) * (1 / sizes).sum())
    significant = np.abs(shares[:, 1] - shares[:, 0]) > _ERRORS * error
    factors = np.maximum(table, 0.5) / sizes  # With half a photo for none.
    large = factors.max(axis=1) >= _LEAST_FACTOR * factors.min(axis=1)
    first, other = counts.splits[0], counts.splits[column]
    return [
        f"{counts.labels[row]}: {shares[row, 0]:.1%} of {first} but {shares[row, 1]:.1%} of {other}"
        for row in np.flatnonzero(significant & large)
    ]
