"""Tests of counting: the table, small classes, and classes that are not equally frequent."""

from pathlib import Path

import numpy as np
import pytest

from fashion_keras.check.balance import Counts, class_findings, compare_priors, count_photos
from fashion_keras.check.findings import Finding, ordered
from fashion_keras.check.photos import CheckedPhoto
from fashion_keras.data.scan import Scan, SourcePhoto


def findings(sizes: dict[str, dict[str, int]]) -> dict[str, Finding]:
    """Return the findings on classes of the given sizes in each split, by kind."""
    photos = [
        SourcePhoto(Path(split, label, str(number)), f"{split}/{label}/{number}", split, label)
        for split, classes in sizes.items()
        for label, size in classes.items()
        for number in range(size)
    ]
    folders = Scan({split: [*sizes[split]] for split in sizes}, photos, [], [], [], [])
    checked = [CheckedPhoto(one.name, one.split, one.label, one.path, "") for one in photos]
    counts = count_photos(folders, checked)
    return {one.kind: one for one in ordered(class_findings(folders, checked, counts, seed=1))}


def test_table_has_counts_and_shares():
    counts = Counts(["hat", "shoes"], ["train", "validation"], np.array([[3, 1], [1, 1]]))
    assert [line.split() for line in str(counts).splitlines()] == [
        ["class", "train", "validation"],
        ["hat", "3", "75.0%", "1", "50.0%"],
        ["shoes", "1", "25.0%", "1", "50.0%"],
        ["all", "4", "2"],
    ]


@pytest.mark.parametrize(
    ("sizes", "kind", "items"),
    [
        ({"train": {"hat": 30, "bag": 0}}, "empty class", ["train/bag: empty"]),
        (
            {"train": {"hat": 30}, "test": {"bag": 10}},
            "missing class",
            ["bag has no folder in train", "hat has no folder in test"],
        ),
        ({"train": {"hat": 30, "bag": 19}}, "too small to learn", ["bag: 19"]),
        ({"": {"hat": 30, "bag": 19}}, "too small to learn", ["bag: 19"]),
        (
            {"train": {"hat": 30, "bag": 30}, "test": {"hat": 9, "bag": 10}},
            "too small to measure",
            ["hat: 9"],
        ),
        ({"train": {"hat": 300, "bag": 30}}, "imbalance", ["hat: 300", "bag: 30"]),
        (
            {"train": {"hat": 100, "bag": 100}, "test": {"hat": 100, "bag": 20}},
            "priors",
            ["bag: 50.0% of train but 16.7% of test", "hat: 50.0% of train but 83.3% of test"],
        ),
    ],
)
def test_faults_are_found(sizes, kind, items):
    assert findings(sizes)[kind].items == items


@pytest.mark.parametrize(
    "sizes",
    [
        {"train": {"hat": 299, "bag": 30}, "validation": {"hat": 99, "bag": 10}},
        {"validation": {"hat": 300, "bag": 10}},  # Only training photos are learnt from.
    ],
)
def test_sound_classes_have_no_findings(sizes):
    assert findings(sizes) == {}


@pytest.mark.parametrize(
    ("table", "statistic", "p_value"),
    [
        ([[10, 20], [30, 40]], 0.79365, 0.5),
        ([[10, 20], [30, 60]], 0, 1),
        # Exactly: tables at least as uneven have probability 2 / C(8, 4).
        ([[4, 0], [0, 4]], 8, 0.0286),
        ([[90, 10, 5], [10, 90, 95], [0, 0, 0]], 200, 0.0005),
        ([[90, 0], [10, 0]], 0, 1),
    ],
)
def test_priors_are_compared(table, statistic, p_value):
    found = compare_priors(np.array(table), seed=1)
    assert found[0] == pytest.approx(statistic, abs=0.01)
    assert found[1] == pytest.approx(p_value, abs=0.03 if p_value > 0.1 else 0.01)
