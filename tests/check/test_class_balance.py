"""Tests of counting: chi-square and its p-value by permutation."""

from pathlib import Path

import numpy as np
import pytest

from fashion_keras.check.class_balance import as_text, chi_square, class_findings, permutation_p
from fashion_keras.check.photo_facts import PhotoFacts
from fashion_keras.data.scan import Scan, SourcePhoto


def test_chi_square_of_a_table_worked_by_hand():
    assert chi_square(np.array([[10, 20], [30, 40]])) == pytest.approx(0.79365, abs=1e-5)
    assert chi_square(np.array([[10, 20], [30, 60]])) == pytest.approx(0)


def test_p_value_is_near_that_of_fisher_for_small_counts():
    # Exactly: tables at least as uneven have probability 2 / C(8, 4) = 0.0286.
    assert permutation_p(np.array([[4, 0], [0, 4]]), seed=1) == pytest.approx(0.0286, abs=0.01)
    assert permutation_p(np.array([[10, 20], [30, 60]]), seed=1) == 1
    assert permutation_p(np.array([[90, 10, 5], [10, 90, 95]]), seed=1) == 0.0005


def test_the_table_says_counts_and_shares():
    text = as_text(np.array([[3, 1], [1, 1]]), ["train", "validation"], ["hat", "shoes"])
    assert [line.split() for line in text.splitlines()] == [
        ["class", "train", "validation"],
        ["hat", "3", "75.0%", "1", "50.0%"],
        ["shoes", "1", "25.0%", "1", "50.0%"],
        ["all", "4", "2"],
    ]


@pytest.mark.parametrize(("split", "told"), [("train", True), ("validation", False)])
def test_photos_to_learn_from_are_those_of_train(split, told):
    names = [f"hat/{number}" for number in range(30)] + [f"shoes/{number}" for number in range(3)]
    photos = [SourcePhoto(Path(name), name, split, name.partition("/")[0]) for name in names]
    folders = Scan(Path("photos"), {split: ["hat", "shoes"]}, photos, [], [], [])
    facts = [PhotoFacts(one.name, split, one.label, one.path, "") for one in photos]
    kinds = {finding.kind for finding in class_findings(folders, facts, seed=1)}
    assert kinds == ({"imbalance", "too small to learn"} if told else set())
