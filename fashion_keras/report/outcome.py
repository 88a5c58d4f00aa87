"""Reads back what training, test and search wrote down."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Tested(NamedTuple):
    """What a saved file said of labelled photos.

    Attributes:
        names: Name of each photo.
        true: Number of its class, `(photos,)`.
        probabilities: Of each class, `(photos, classes)`.
        labels: Name of each class.
    """

    names: list[str]
    true: np.ndarray
    probabilities: np.ndarray
    labels: list[str]

    @property
    def predicted(self) -> np.ndarray:
        """Number of the class that each photo was given, `(photos,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of that class, `(photos,)`."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether it is the true one, `(photos,)` bool."""
        return self.predicted == self.true

    @property
    def true_probability(self) -> np.ndarray:
        """Probability of the true class, `(photos,)`."""
        return self.probabilities[np.arange(len(self.true)), self.true]

    @property
    def losses(self) -> np.ndarray:
        """Negative log of the probability of the true class, `(photos,)`."""
        # Not the negative: that of a certain and right answer would be shown as -0.00.
        return np.abs(np.log(np.clip(self.true_probability, 1e-15, 1)))

    def top_losses(self, count: int) -> list[int]:
        """Return the numbers of the photos with the highest losses, the worst first."""
        return [int(number) for number in np.argsort(self.true_probability, kind="stable")[:count]]


def read_tested(file: Path) -> Tested | None:
    """Read `predictions.csv` of `evaluate`; None if there is none."""
    if not file.exists():
        return None
    with file.open(newline="", encoding="utf-8") as source:
        header, *rows = csv.reader(source)
    labels = header[3:]  # By place: a category may be called `file`.
    return Tested(
        [row[0] for row in rows],
        np.array([labels.index(row[1]) for row in rows]),
        np.array([row[3:] for row in rows], dtype="float64"),
        labels,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a table, numbers as floats; empty if there is no such file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as source:
        return [
            {name: _number(text) for name, text in row.items()} for row in csv.DictReader(source)
        ]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
