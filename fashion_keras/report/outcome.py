"""Reads the results that training, evaluation and search wrote."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """What a classifier predicted for labelled photos."""

    names: list[str]
    true: np.ndarray  # Number of each photo's class, `(photos,)`.
    probabilities: np.ndarray  # `(photos, classes)`.
    labels: list[str]

    @property
    def predicted(self) -> np.ndarray:
        """Number of the predicted class, `(photos,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, `(photos,)`."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether the predicted class is the true one, `(photos,)` bool."""
        return self.predicted == self.true

    @property
    def true_probability(self) -> np.ndarray:
        """Probability of the true class, `(photos,)`."""
        return self.probabilities[np.arange(len(self.true)), self.true]

    @property
    def losses(self) -> np.ndarray:
        """Negative log of the probability of the true class, `(photos,)`."""
        # The absolute value, as the negative of log(1) would be shown as -0.00.
        return np.abs(np.log(np.clip(self.true_probability, 1e-15, 1)))

    def top_losses(self, count: int) -> list[int]:
        """Return the numbers of the photos with the highest losses, the highest first."""
        return np.argsort(self.true_probability, kind="stable")[:count].tolist()

    def caption(self, at: int) -> str:
        """Return what was predicted for a photo, in words."""
        true, predicted = self.labels[self.true[at]], self.labels[self.predicted[at]]
        verdict = "predicted correctly" if self.correct[at] else f"predicted as {predicted}"
        return f"{true}\n{verdict} ({self.confidence[at]:.2f})\nloss {self.losses[at]:.2f}"


def read_predictions(file: Path) -> Predictions | None:
    """Read `predictions.csv` of `evaluate`; None if the file does not exist."""
    if not file.exists():
        return None
    with file.open(newline="", encoding="utf-8") as source:
        header, *rows = csv.reader(source)
    labels = header[3:]  # By position: a category may be called `file`.
    return Predictions(
        [row[0] for row in rows],
        np.array([labels.index(row[1]) for row in rows]),
        np.array([row[3:] for row in rows], dtype="float64"),
        labels,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file does not exist."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a table, numbers as floats; empty if the file does not exist."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as source:
        rows = csv.DictReader(source)
        return [{name: _number(text) for name, text in row.items()} for row in rows]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
