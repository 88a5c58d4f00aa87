"""Turns probabilities and true classes into numbers, and calibrates probabilities."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

BINS = 15  # Of confidence, for the calibration error: the number used by Guo et al. 2017.
TEMPERATURES = 0.05, 20.0
LEAST_TO_CALIBRATE = 100  # Photos.


def scores(true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict:
    """Return all numbers that say how good predictions are.

    Args:
        true: Class number of each photo, `(photos,)`.
        probabilities: `(photos, classes)`, each row summing to 1.
        labels: Name of each class.

    Returns:
        What `accuracy_scores` returns, `macro_f1`, `log_loss` (nats), `expected_calibration_error`
        (Guo et al. 2017) and, by class, `precision`, `recall`, `f1` and `support`. Classes without
        photos do not count in `macro_f1`.
    """
    numbers = range(len(labels))
    predicted = probabilities.argmax(axis=1)
    columns = precision_recall_fscore_support(
        true,
        predicted,
        labels=numbers,
        zero_division=0,  # pyright: ignore[reportArgumentType] -- As documented.
    )
    rows = list(zip(*(np.asarray(column).tolist() for column in columns), strict=True))
    exact = probabilities.astype("float64")
    return {
        **accuracy_scores(true, predicted),
        "macro_f1": float(np.mean([f1 for _, _, f1, support in rows if support])),
        "log_loss": float(log_loss(true, exact / exact.sum(axis=1, keepdims=True), labels=numbers)),
        "expected_calibration_error": calibration_error(predicted == true, probabilities.max(1)),
        "by_class": {
            label: dict(zip(("precision", "recall", "f1", "support"), row, strict=True))
            for label, row in zip(labels, rows, strict=True)
        },
    }


def accuracy_scores(true: np.ndarray, predicted: np.ndarray) -> dict:
    """Return the scores that class numbers, `(photos,)`, suffice for.

    They are `photos`, `correct`, `accuracy`, `accuracy_interval` (95 %, Wilson 1927), and
    `balanced_accuracy`: the mean recall of the classes with photos.
    """
    hits = predicted == true
    correct, recalls = int(hits.sum()), [hits[true == number].mean() for number in np.unique(true)]
    return {
        "photos": len(true),
        "correct": correct,
        "accuracy": correct / len(true),
        "accuracy_interval": list(wilson_interval(correct, len(true))),
        "balanced_accuracy": float(np.mean(recalls)),
    }


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count photos by true class (rows) and predicted class (columns), `(classes, classes)`."""
    return confusion_matrix(true, predicted, labels=range(classes))


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the interval that holds the true accuracy with 95 % confidence (Wilson 1927)."""
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the number of the bin, of `BINS` of equal width, that each confidence is in."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width, in [0, 1].

    Args:
        correct: Whether each prediction is correct, `(photos,)` bool.
        confidence: Probability of the predicted class, `(photos,)`.
    """
    gaps = np.zeros(BINS)
    np.add.at(gaps, confidence_bins(confidence), correct.astype(float) - confidence)
    return float(np.abs(gaps).sum() / len(correct))


def fit_temperature(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the number by which logits are divided so that the log loss is lowest.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The accuracy stays. If all photos
    are correctly classified, the loss would fall without end as the temperature falls; then it is
    fitted to smoothed targets (Platt 1999).

    Args:
        true: Class number of each photo, `(photos,)`; photos not trained on.
        probabilities: `(photos, classes)`, each row summing to 1.

    Returns:
        The temperature, in `TEMPERATURES`; below 1 if probabilities were too low.
    """
    logits = np.log(np.clip(probabilities.astype("float64"), 1e-30, 1))
    targets = _targets(true, probabilities)
    least, most = TEMPERATURES

    def loss(inverse: float) -> float:  # Convex, so it has one minimum.
        return -float((targets * log_softmax(logits * inverse, axis=1)).sum(axis=1).mean())

    found = minimize_scalar(
        loss, bounds=(1 / most, 1 / least), method="bounded", options={"xatol": 1e-7}
    )
    return 1 / float(found.x)


def calibrated_losses(true: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the temperature (see `fit_temperature`) and the log loss of each photo with it.

    With fewer photos than `LEAST_TO_CALIBRATE` the temperature is 1: they cannot decide it.
    """
    enough = len(true) >= LEAST_TO_CALIBRATE
    temperature = fit_temperature(true, probabilities) if enough else 1.0
    logits = np.log(np.clip(probabilities.astype("float64"), 1e-30, 1)) / temperature
    return temperature, -log_softmax(logits, axis=1)[np.arange(len(true)), true]


def clearly_lower(losses: np.ndarray, others: np.ndarray) -> bool:
    """Return whether losses of the same photos are lower by more than two standard errors."""
    gains = others - losses
    return bool(gains.mean() > 2 * gains.std(ddof=1) / math.sqrt(len(gains)))


def _targets(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return what probabilities should be: 1 for true classes, less if all photos are correct."""
    photos, classes = probabilities.shape
    exact = np.eye(classes)[true]
    if (probabilities.argmax(axis=1) != true).any():
        return exact
    # With all of n photos correct, the expected share is (n + 1) / (n + 2), not 1 (Laplace).
    missing = 1 / (photos + 2)
    return np.where(exact > 0, 1 - missing, missing / (classes - 1))
