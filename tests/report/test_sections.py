"""Tests of the tables and charts of the page: their numbers are those of the predictions."""

import numpy as np
import pytest

from fashion_keras.metrics import calibration_error, scores
from fashion_keras.report.outcome import Predictions
from fashion_keras.report.sections import calibration, classes, coverage, matrix, novelty

LABELS = ["a", "b", "c"]


def scored(*photos):
    """Return photos given by true class, predicted class and its probability."""
    rows = np.zeros((len(photos), 3))
    for row, (_, predicted, probability) in zip(rows, photos, strict=True):
        row[:] = (1 - probability) / 2
        row[predicted] = probability
    true = np.array([photo[0] for photo in photos])
    return Predictions([f"{at}.jpg" for at in range(len(photos))], true, rows, LABELS)


PHOTOS = scored((0, 0, 0.9), (0, 1, 0.8), (0, 1, 0.6), (1, 1, 0.7), (1, 0, 0.5), (1, 1, 0.95))


def test_matrix_has_counts_and_shares_of_each_true_class():
    found = matrix(PHOTOS)
    counts = [[cell["count"] for cell in row["cells"]] for row in found["rows"]]
    assert counts == [[1, 2, 0], [1, 2, 0], [0, 0, 0]]
    assert [row["total"] for row in found["rows"]] == [3, 3, 0]
    first = found["rows"][0]["cells"]
    assert [cell["share"] for cell in first] == pytest.approx([1 / 3, 2 / 3, 0])
    assert [cell["style"] for cell in first] == ["correct1", "wrong4", ""]
    assert first[1]["id"] == "cell-0-1"


def test_classes_have_an_interval_unless_they_have_no_photos():
    rows = classes(scores(PHOTOS.true, PHOTOS.probabilities, LABELS))
    assert rows[0]["interval"] == pytest.approx((0.0615, 0.7923), abs=1e-4)
    assert rows[2]["interval"] is None


def test_dots_of_the_reliability_diagram_are_the_bins_of_the_calibration_error():
    generator = np.random.default_rng(1)
    rows = generator.dirichlet([1, 1, 1], 200)
    photos = Predictions([""] * 200, generator.integers(0, 3, 200), rows, LABELS)
    found = calibration(photos, 1.0)
    diagonal, dots = found["chart"].series
    assert (diagonal.x, diagonal.y) == ([0, 1], [0, 1])
    count = (np.array(dots.sizes) - 10) / 150  # Sizes say which share of the photos a bin has.
    assert count.sum() == pytest.approx(1)
    error = float(count @ np.abs(np.array(dots.x) - dots.y))
    assert found["errors"] == {"as saved": pytest.approx(error)}


def test_a_temperature_shows_what_it_changed():
    errors = calibration(PHOTOS, 0.5)["errors"]
    assert list(errors) == ["after temperature scaling", "before temperature scaling"]
    logits = 0.5 * np.log(PHOTOS.probabilities)
    before = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = calibration_error(PHOTOS.correct, before.max(axis=1))
    assert errors["before temperature scaling"] == pytest.approx(expected)


def test_coverage_leaves_out_the_least_confident():
    rows = {row["threshold"]: row for row in coverage(PHOTOS)["rows"]}
    assert (rows[0.0]["predicted"], rows[0.0]["wrong"]) == (6, 3)
    assert (rows[0.7]["predicted"], rows[0.7]["wrong"]) == (4, 1)
    assert rows[0.7]["coverage"] == pytest.approx(4 / 6)
    assert rows[0.99]["accuracy"] is None


def test_photos_of_equal_confidence_are_not_divided():
    (series,) = coverage(scored((0, 1, 0.9), (0, 0, 0.9), (1, 1, 0.5)))["chart"].series
    assert series.x == pytest.approx([2 / 3, 1])
    assert series.y == pytest.approx([1 / 2, 2 / 3])


def test_each_threshold_on_the_distance_passes_and_refuses():
    pairs = [("validation", 0.1), ("validation", 0.3), ("other", 0.3), ("other", 0.5)]
    rows = [{"split": split, "distance": distance} for split, distance in pairs]
    passed, line, refused = novelty(rows, 0.4).series
    assert passed.x == refused.x == [0.1, 0.3, 0.5]
    assert (passed.y, refused.y) == ([0.5, 1, 1], [1, 0.5, 0])
    assert (line.x, line.y) == ([0.4, 0.4], [0, 1])
    assert len(novelty(rows[:2], 0.4).series) == 2
