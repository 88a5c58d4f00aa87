"""Tests of the tables and charts of the page: their numbers are those of the predictions."""

import numpy as np
import pytest

from fashion_keras.metrics import calibration_error, scores
from fashion_keras.report import outcome
from fashion_keras.report.sections import (
    _reliability,
    calibration,
    classes,
    coverage,
    learning_curves,
    matrix,
    pairs,
)

LABELS = ["a", "b", "c"]


def answers(*photos: tuple[int, int, float]) -> outcome.Tested:
    """Return photos given by true class, predicted class and its probability."""
    rows = np.full((len(photos), 3), 0.0)
    for row, (_, said, probability) in zip(rows, photos, strict=True):
        row[:] = (1 - probability) / 2
        row[said] = probability
    true = np.array([photo[0] for photo in photos])
    return outcome.Tested([f"{at}.jpg" for at in range(len(photos))], true, rows, LABELS)


PHOTOS = answers((0, 0, 0.9), (0, 1, 0.8), (0, 1, 0.6), (1, 1, 0.7), (1, 0, 0.5), (1, 1, 0.95))


def test_matrix_has_counts_and_shares_of_each_true_class() -> None:
    found = matrix(PHOTOS)
    counts = [[cell["count"] for cell in row["cells"]] for row in found["rows"]]
    assert counts == [[1, 2, 0], [1, 2, 0], [0, 0, 0]]
    first = found["rows"][0]["cells"]
    assert [cell["share"] for cell in first] == pytest.approx([1 / 3, 2 / 3, 0])
    assert [cell["style"] for cell in first] == ["right1", "wrong4", ""]
    assert first[1]["id"] == "cell-0-1"


def test_most_confused_pairs_come_first() -> None:
    found = [(pair["true"], pair["predicted"], pair["count"]) for pair in pairs(PHOTOS)]
    assert found == [("a", "b", 2), ("b", "a", 1)]


def test_classes_have_an_interval_unless_they_have_no_photos() -> None:
    rows = classes(scores(PHOTOS.true, PHOTOS.probabilities, LABELS))
    assert rows[0]["interval"] == pytest.approx((0.0615, 0.7923), abs=1e-4)
    assert rows[2]["interval"] is None


def test_bins_hold_the_calibration_error() -> None:
    generator = np.random.default_rng(1)
    correct, confidence = generator.random(200) < 0.7, generator.random(200)
    bins = _reliability(correct, confidence)
    gaps = [one["photos"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    assert sum(gaps) / 200 == pytest.approx(calibration_error(correct, confidence))
    assert sum(one["photos"] for one in bins) == 200


def test_before_temperature_scaling_is_told_only_where_it_is_known() -> None:
    assert [one["name"] for one in calibration(PHOTOS, None)["errors"]] == ["as saved"]
    found = calibration(PHOTOS, 0.5)["errors"]
    assert [one["name"].split()[0] for one in found] == ["after", "before"]
    logits = 0.5 * np.log(PHOTOS.probabilities)
    before = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = calibration_error(PHOTOS.correct, before.max(axis=1))
    assert found[1]["error"] == pytest.approx(expected)


def test_coverage_leaves_out_the_least_sure() -> None:
    rows = {row["threshold"]: row for row in coverage(PHOTOS)["rows"]}
    assert (rows[0.0]["answers"], rows[0.0]["wrong"]) == (6, 3)
    assert (rows[0.7]["answers"], rows[0.7]["wrong"]) == (4, 1)
    assert rows[0.7]["coverage"] == pytest.approx(4 / 6)
    assert rows[0.99]["accuracy"] is None


def test_photos_as_sure_as_each_other_are_not_divided() -> None:
    chart = coverage(answers((0, 1, 0.9), (0, 0, 0.9), (1, 1, 0.5)))["chart"]
    assert len(chart["series"][0]["line"].split()) == 2


def test_learning_curves_mark_the_epoch_that_was_kept() -> None:
    def row(stage: str, epoch: int, loss: float) -> dict:
        numbers = {"loss": loss, "accuracy": 0.5, "val_loss": loss, "val_accuracy": epoch / 10}
        return {"stage": stage, "epoch": epoch, "seconds": 2.0, **numbers}

    rows = [row("head 1", 1, 0.1), row("head 1", 2, 0.9)]
    rows += [row("fine-tuning", 1, 0.1), row("fine-tuning", 2, 0.9)]
    heads, tuned = learning_curves(rows)
    assert (heads["title"], heads["stages"], heads["seconds"]) == ("Heads", 1, 4.0)
    assert "kept: 1 points, the first at 0.1" in heads["charts"][0]["text"]
    assert "kept: 1 points, the first at 0.2" in tuned["charts"][0]["text"]
    assert [part["title"] for part in learning_curves(rows[:2])] == ["Heads"]
