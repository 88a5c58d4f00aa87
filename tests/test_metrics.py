"""Tests of the scores against values computed by hand."""

import math

import numpy as np
import pytest

from fashion_keras.metrics import (
    calibration_error,
    confusion,
    photo_rows,
    scores,
    wilson_interval,
)

LABELS = ["cap", "hat", "sock"]
TRUE = np.array([0, 0, 0, 1])
# Predicted: cap, cap, hat, hat; no photo shows a sock.
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.4, 0.6, 0.0], [0.0, 1.0, 0.0]])


@pytest.fixture
def metrics() -> dict:
    """Score four photos, one of them wrong."""
    return scores(TRUE, PROBABILITIES, LABELS)


def test_accuracy_counts_photos(metrics: dict) -> None:
    assert (metrics["photos"], metrics["correct"], metrics["accuracy"]) == (4, 3, 0.75)
    assert metrics["accuracy_interval"] == list(wilson_interval(3, 4))


def test_scores_of_each_class(metrics: dict) -> None:
    assert list(metrics["by_class"]) == LABELS
    cap, hat, sock = metrics["by_class"].values()
    assert cap == {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3}
    assert hat == {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1}
    assert sock == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_macro_f1_leaves_out_classes_without_photos(metrics: dict) -> None:
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_macro_f1_counts_classes_that_were_never_predicted() -> None:
    metrics = scores(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), ["cap", "hat"])
    assert metrics["by_class"]["hat"]["f1"] == 0
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_log_loss_is_in_nats(metrics: dict) -> None:
    # The true classes got 0.8, 0.5, 0.4 and 1: -ln(0.8 x 0.5 x 0.4 x 1) / 4.
    assert metrics["log_loss"] == pytest.approx(-math.log(0.16) / 4)


def test_log_loss_of_an_impossible_class_is_finite() -> None:
    metrics = scores(np.array([1]), np.array([[1.0, 0.0]]), ["cap", "hat"])
    assert metrics["log_loss"] == pytest.approx(-math.log(1e-15))


def test_calibration_error_of_four_photos(metrics: dict) -> None:
    # Alone in their bins: right at 0.8, right at 0.5, wrong at 0.6, right at 1.
    assert metrics["expected_calibration_error"] == pytest.approx((0.2 + 0.5 + 0.6 + 0.0) / 4)


def test_calibration_error_within_a_bin_is_the_gap_of_the_means() -> None:
    correct, confidence = np.array([True, False, True, True]), np.array([0.75, 0.75, 0.75, 0.75])
    assert calibration_error(correct, confidence) == pytest.approx(0)
    assert calibration_error(~correct, confidence) == pytest.approx(0.5)


def test_calibration_bins_have_equal_width() -> None:
    # 0.66 and 0.67 are in different bins of 1/15, so that their gaps do not cancel.
    error = calibration_error(np.array([True, False]), np.array([0.66, 0.67]))
    assert error == pytest.approx((0.34 + 0.67) / 2)


def test_wilson_interval_of_the_known_case() -> None:
    low, high = wilson_interval(338, 372)
    assert (round(low, 3), round(high, 3)) == (0.875, 0.934)


def test_wilson_interval_stays_between_0_and_1() -> None:
    for count in range(1, 400):
        (least, low), (high, most) = wilson_interval(0, count), wilson_interval(count, count)
        assert 0 <= least < low < 1
        assert 0 < high < most <= 1
        assert low == pytest.approx(1 - high)


def test_confusion_has_true_classes_in_rows() -> None:
    table = confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    assert table.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_photo_rows_name_photo_classes_and_probabilities() -> None:
    rows = photo_rows(["a.jpg", "b.jpg"], ["cap", "cap"], PROBABILITIES[[0, 2]], LABELS)
    assert rows == [
        ["a.jpg", "cap", "cap", "0.8", "0.1", "0.1"],
        ["b.jpg", "cap", "hat", "0.4", "0.6", "0"],
    ]


def test_probabilities_are_read_back_as_they_were() -> None:
    row = np.array([[1 - 1e-7, 1 / 3, 1.2e-12]], "float32")
    ((_, _, _, *texts),) = photo_rows(["a.jpg"], ["cap"], row, LABELS)
    assert np.array_equal(np.array([texts], "float32"), row)
    assert float(texts[2]) == pytest.approx(1.2e-12)


def test_photo_rows_need_one_row_a_photo() -> None:
    with pytest.raises(ValueError, match="shorter"):
        photo_rows(["a.jpg", "b.jpg"], ["cap", "cap"], PROBABILITIES[:1], LABELS)
