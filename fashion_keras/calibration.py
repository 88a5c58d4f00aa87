"""Makes probabilities mean what they say: temperature scaling."""

import numpy as np

_LEAST, _MOST = 0.05, 20.0
_STEPS = 60  # Halvings of the golden section: the temperature is exact to six digits.


def fit_temperature(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the number by which logits are divided so that the log loss is lowest.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The order of the categories of a
    photo, and so the accuracy, stays. Where no photo is named wrongly the loss would fall with the
    temperature for ever; then it is fitted to smoothed targets (Platt 1999).

    Args:
        true: Class number of each photo, `(photos,)`; photos not trained on.
        probabilities: `(photos, classes)`, each row summing to 1.

    Returns:
        The temperature, from 0.05 to 20; below 1 if probabilities were too low.
    """
    logits = np.log(np.clip(probabilities.astype("float64"), 1e-30, 1))
    targets = _targets(true, probabilities)
    # The loss has one minimum over 1 / temperature: it is convex there.
    low, high = 1 / _MOST, 1 / _LEAST
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(targets, logits * left) < log_loss(targets, logits * right):
            high = right
        else:
            low = left
    return float(2 / (low + high))


def _targets(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return what probabilities should be: 1 for true classes, less if all photos are right."""
    photos, classes = probabilities.shape
    exact = np.eye(classes)[true]
    if (probabilities.argmax(axis=1) != true).any():
        return exact
    # So many right of so many speak for a share of (n + 1) / (n + 2), not for 1 (Laplace).
    missing = 1 / (photos + 2)
    return np.where(exact > 0, 1 - missing, missing / (classes - 1))


def log_loss(targets: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean cross-entropy of `targets`, `(photos, classes)`, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal = np.log(np.exp(shifted).sum(axis=1))
    return float((normal - (targets * shifted).sum(axis=1)).mean())
