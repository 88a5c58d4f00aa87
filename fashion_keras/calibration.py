"""Makes probabilities mean what they say: temperature scaling."""

import numpy as np

_LEAST, _MOST = 0.05, 20.0
_STEPS = 60  # Halvings of the golden section: the temperature is exact to six digits.


def fit_temperature(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the number by which logits are divided so that the log loss is lowest.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The order of the categories of a
    photo, and so the accuracy, stays.

    Args:
        true: Class number of each photo, `(photos,)`; photos not trained on.
        probabilities: `(photos, classes)`, each row summing to 1.

    Returns:
        The temperature, from 0.05 to 20; below 1 if probabilities were too low.
    """
    logits = np.log(np.clip(probabilities.astype("float64"), 1e-30, 1))
    # The loss has one minimum over 1 / temperature: it is convex there.
    low, high = 1 / _MOST, 1 / _LEAST
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(true, logits * left) < log_loss(true, logits * right):
            high = right
        else:
            low = left
    return float(2 / (low + high))


def log_loss(true: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean negative log probability of the true classes, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal = np.log(np.exp(shifted).sum(axis=1))
    return float((normal - shifted[np.arange(len(true)), true]).mean())
