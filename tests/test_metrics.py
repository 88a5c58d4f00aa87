"""Tests of the scores against values computed by hand, and of temperature scaling."""

import math

import numpy as np
import pytest

from fashion_keras.metrics import (
    calibrated_losses,
    calibration_error,
    clearly_lower,
    fit_temperature,
    scores,
    wilson_interval,
)

LABELS = ["cap", "hat", "sock"]
TRUE = np.array([0, 0, 0, 1])
# Predicted: cap, cap, hat, hat; no photo shows a sock.
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.4, 0.6, 0.0], [0.0, 1.0, 0.0]])


def test_scores_of_four_photos() -> None:
    metrics = scores(TRUE, PROBABILITIES, LABELS)
    assert (metrics["photos"], metrics["correct"], metrics["accuracy"]) == (4, 3, 0.75)
    assert metrics["accuracy_interval"] == list(wilson_interval(3, 4))
    assert list(metrics["by_class"]) == LABELS
    cap, hat, sock = metrics["by_class"].values()
    assert cap == pytest.approx({"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert hat == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1})
    assert sock == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # Without socks.
    # The true classes got 0.8, 0.5, 0.4 and 1: -ln(0.8 x 0.5 x 0.4 x 1) / 4, in nats.
    assert metrics["log_loss"] == pytest.approx(-math.log(0.16) / 4)
    # Alone in their bins: correct at 0.8, correct at 0.5, wrong at 0.6, correct at 1.
    assert metrics["expected_calibration_error"] == pytest.approx((0.2 + 0.5 + 0.6 + 0.0) / 4)


def test_log_loss_takes_float32_and_impossible_classes() -> None:
    sure = np.array([[1.0, 0.0]], "float32")
    assert 20 < scores(np.array([1]), sure, ["cap", "hat"])["log_loss"] < 50
    rounded = np.array([[1 / 3, 1 / 3, 1 / 3 + 3e-7]], "float32")
    assert scores(np.array([1]), rounded, LABELS)["log_loss"] == pytest.approx(math.log(3), 1e-5)


@pytest.mark.parametrize(
    ("correct", "confidence", "expected"),
    [
        ([True, False, True, True], [0.75] * 4, 0),  # Within a bin, the gap of the means.
        ([False, True, False, False], [0.75] * 4, 0.5),
        # 0.66 and 0.67 are in different bins of 1/15, so that their gaps do not cancel.
        ([True, False], [0.66, 0.67], (0.34 + 0.67) / 2),
    ],
)
def test_calibration_error(correct: list, confidence: list, expected: float) -> None:
    found = calibration_error(np.array(correct), np.array(confidence))
    assert found == pytest.approx(expected)


def test_wilson_interval() -> None:
    low, high = wilson_interval(338, 372)
    assert (round(low, 3), round(high, 3)) == (0.875, 0.934)
    for count in (1, 10, 399):
        (least, low), (high, most) = wilson_interval(0, count), wilson_interval(count, count)
        assert 0 <= least < low < 1
        assert 0 < high < most <= 1
        assert low == pytest.approx(1 - high)


def drawn(temperature: float, photos: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return classes drawn from probabilities, and the probabilities at another temperature."""
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (photos, 4))
    correct = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (correct.cumsum(axis=1) < generator.random((photos, 1))).sum(axis=1)
    changed = np.exp(logits / temperature)
    return np.minimum(true, 3), changed / changed.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fitted_temperature_undoes_another_one(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(1 / temperature, rel=0.05)


@pytest.mark.parametrize("classes", [2, 10])
def test_photos_that_are_all_correct_are_not_made_certain(classes: int) -> None:
    given = np.full((20, classes), 0.4 / (classes - 1))
    given[:, 1] = 0.6
    sharpened = given ** (1 / fit_temperature(np.ones(20, int), given))
    assert sharpened[0, 1] / sharpened[0].sum() == pytest.approx(21 / 22, rel=1e-4)


def test_losses_are_clearly_lower_beyond_two_standard_errors():
    others, gains = np.ones(100), np.tile([0.0, 0.2], 50)  # Mean 0.1, standard error 0.01.
    assert clearly_lower(others - gains, others)
    assert clearly_lower(others - gains + 0.079, others)
    assert not clearly_lower(others - gains + 0.081, others)
    assert not clearly_lower(others + gains, others)


def test_calibrated_losses_are_those_at_the_best_temperature(monkeypatch):
    true, logits = np.array([0, 1, 1, 0]), np.array([[2.0, 0], [0, 1], [1, 0], [3, 1]])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    few = calibrated_losses(true, probabilities)
    assert few[0] == 1
    np.testing.assert_allclose(few[1], -np.log(probabilities[np.arange(4), true]), rtol=1e-9)
    monkeypatch.setattr("fashion_keras.metrics.LEAST_TO_CALIBRATE", 4)
    temperature, losses = calibrated_losses(true, probabilities)
    assert temperature == pytest.approx(fit_temperature(true, probabilities))
    scaled = np.exp(logits / temperature)
    shares = scaled / scaled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(shares[np.arange(4), true]), rtol=1e-9)
