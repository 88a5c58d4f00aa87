"""Turns probabilities and true classes into numbers, and into one row for each photo."""

import math
from collections.abc import Sequence

import numpy as np

BINS = 15  # Of confidence, for the calibration error: the number used by Guo et al. 2017.


def scores(true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict:
    """Return all numbers that say how good predictions are.

    Args:
        true: Class number of each photo, `(photos,)`.
        probabilities: `(photos, classes)`, each row summing to 1.
        labels: Name of each class.

    Returns:
        `photos`, `correct`, `accuracy`, `accuracy_interval` (95 %, Wilson 1927), `macro_f1`,
        `log_loss` (nats), `expected_calibration_error` (Guo et al. 2017) and, by class,
        `precision`, `recall`, `f1` and `support`. Classes without photos do not count in
        `macro_f1`.
    """
    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == true).sum())
    table = confusion(true, predicted, len(labels))
    by_class = {label: _class_scores(table, number) for number, label in enumerate(labels)}
    present = [row["f1"] for row in by_class.values() if row["support"]]
    true_probability = probabilities[np.arange(len(true)), true]
    return {
        "photos": len(true),
        "correct": correct,
        "accuracy": correct / len(true),
        "accuracy_interval": list(wilson_interval(correct, len(true))),
        "macro_f1": sum(present) / len(present),
        "log_loss": float(np.abs(np.log(np.clip(true_probability, 1e-15, 1))).mean()),
        "expected_calibration_error": calibration_error(predicted == true, probabilities.max(1)),
        "by_class": by_class,
    }


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count photos by true class (rows) and predicted class (columns), `(classes, classes)`."""
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (true, predicted), 1)
    return table


def _class_scores(table: np.ndarray, number: int) -> dict:
    hits = int(table[number, number])
    support, claimed = int(table[number].sum()), int(table[:, number].sum())
    return {
        "precision": hits / claimed if claimed else 0.0,
        "recall": hits / support if support else 0.0,
        "f1": 2 * hits / (support + claimed) if support + claimed else 0.0,
        "support": support,
    }


def wilson_interval(correct: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval that holds the true accuracy with 95 % confidence (Wilson 1927)."""
    share = correct / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # Rounding alone would take the ends of 0 or all out of `count` just past 0 or 1.
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return for each photo which of `BINS` bins of equal width its confidence is in."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width, in [0, 1].

    Args:
        correct: Whether each prediction is right, `(photos,)` bool.
        confidence: Probability of the predicted class, `(photos,)`.
    """
    gaps = np.zeros(BINS)
    np.add.at(gaps, confidence_bins(confidence), correct.astype(float) - confidence)
    return float(np.abs(gaps).sum() / len(correct))


def photo_rows(
    files: Sequence[str], true: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]
) -> list[list]:
    """Return one row a photo: file, true class, predicted class, probability of each class.

    Nine digits give a float32 back as it was, and the least probability is not 0.
    """
    return [
        [file, label, labels[int(row.argmax())], *(f"{value:.9g}" for value in row)]
        for file, label, row in zip(files, true, probabilities, strict=True)
    ]
