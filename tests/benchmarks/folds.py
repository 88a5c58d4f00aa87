"""Divides photos into folds, and scores what was predicted for all of them."""

from collections.abc import Callable

import numpy as np

from fashion_keras.metrics import scores

Measure = Callable[[], dict[str, list[float]]]
Predict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def fold_numbers(numbers: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each photo, `(photos,)`; each class is spread evenly over the folds."""
    generator = np.random.default_rng(seed)
    fold = np.empty(len(numbers), dtype=int)
    for number in np.unique(numbers):
        rows = generator.permutation(np.flatnonzero(numbers == number))
        fold[rows] = (np.arange(len(rows)) + generator.integers(folds)) % folds
    return fold


def cross_validate(
    numbers: np.ndarray, seeds: int, folds: int, predict: Predict
) -> dict[str, list[float]]:
    """Return accuracy and log loss over all photos, one value a seed.

    Args:
        numbers: Class number of each photo.
        seeds: How many times to divide and train anew.
        folds: In how many parts to divide.
        predict: Takes the rows to train on, the rows to predict and a seed; returns
            probabilities `(rows to predict, classes)`.
    """
    found: dict[str, list[float]] = {"accuracy": [], "log_loss": []}
    classes = int(numbers.max()) + 1
    for seed in range(1, seeds + 1):
        fold = fold_numbers(numbers, folds, seed)
        probabilities = np.zeros((len(numbers), classes))
        for number in range(folds):
            rows = np.flatnonzero(fold == number)
            probabilities[rows] = predict(np.flatnonzero(fold != number), rows, seed)
        metrics = scores(numbers, probabilities, [str(number) for number in range(classes)])
        for name, values in found.items():
            values.append(round(metrics[name], 5))
    return found
