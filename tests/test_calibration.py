"""Tests of temperature scaling."""

import numpy as np
import pytest

from fashion_keras.calibration import fit_temperature, log_loss


def drawn(temperature: float, photos: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return classes drawn from probabilities, and the probabilities at another temperature."""
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (photos, 4))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (right.cumsum(axis=1) < generator.random((photos, 1))).sum(axis=1)
    told = np.exp(logits / temperature)
    return np.minimum(true, 3), told / told.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("told_at", [0.4, 1.0, 2.5])
def test_temperature_undoes_the_one_that_probabilities_were_told_at(told_at: float) -> None:
    assert fit_temperature(*drawn(told_at)) == pytest.approx(1 / told_at, rel=0.05)


def test_no_other_temperature_gives_a_lower_loss() -> None:
    true, told = drawn(1.7, photos=300)
    logits, best = np.log(told), fit_temperature(true, told)
    losses = [log_loss(np.eye(4)[true], logits / (best * factor)) for factor in (0.99, 1.0, 1.01)]
    assert min(losses) == losses[1]


def test_probabilities_of_zero_and_one_are_taken() -> None:
    assert fit_temperature(np.array([0, 1]), np.eye(2, dtype="float32")) == pytest.approx(20, 0.01)
    assert fit_temperature(np.array([1, 0]), np.eye(2, dtype="float32")) == pytest.approx(20, 0.01)


@pytest.mark.parametrize("classes", [2, 10])
def test_photos_that_are_all_right_are_not_made_certain(classes: int) -> None:
    told = np.full((20, classes), 0.4 / (classes - 1))
    told[:, 1] = 0.6
    sharpened = told ** (1 / fit_temperature(np.ones(20, int), told))
    assert sharpened[0, 1] / sharpened[0].sum() == pytest.approx(21 / 22, rel=1e-4)


def test_one_mistake_is_enough_for_exact_targets() -> None:
    told = np.tile([0.6, 0.4], (20, 1))
    sharpened = told ** (1 / fit_temperature(np.array([1] + [0] * 19), told))
    assert sharpened[0, 0] / sharpened[0].sum() == pytest.approx(19 / 20, rel=1e-4)


def test_log_loss_is_that_of_the_true_classes() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    expected = -(np.log(0.5) + np.log(0.1)) / 2
    assert log_loss(np.eye(2), logits + 7) == pytest.approx(expected)
