"""Cross-validation: what was predicted for each photo by a model trained on the others."""

from collections.abc import Callable

import numpy as np
from sklearn.model_selection import StratifiedKFold

from fashion_keras.metrics import calibrated_losses

Predict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
Scores = dict[str, list[float]]
CrossValidate = Callable[[np.ndarray, Predict], Scores]
Row = tuple[str, Callable[[], Scores]]  # A choice, and what measures it.


def cross_validate(seeds: int, folds: int, numbers: np.ndarray, predict: Predict) -> Scores:
    """Return accuracy and calibrated log loss of each fold's photos, one value a seed and fold.

    Args:
        seeds: How many times to divide and train anew.
        folds: In how many parts to divide; each class is spread evenly over them.
        numbers: Class number of each photo.
        predict: Takes the rows to train on, the rows to predict and a seed; returns
            probabilities `(rows to predict, classes)`.
    """
    found: Scores = {"accuracy": [], "log_loss": []}
    for seed in range(1, seeds + 1):
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for train, rows in parts.split(numbers, numbers):
            true, probabilities = numbers[rows], predict(train, rows, seed)
            found["accuracy"].append(round(float((probabilities.argmax(1) == true).mean()), 5))
            _, losses = calibrated_losses(true, probabilities)
            found["log_loss"].append(round(float(losses.mean()), 5))
    return found
