"""The model that a service answers with: loaded, checked, warmed, with its queue."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.files import sha256_of
from fashion_keras.grad_cam import explainer
from fashion_keras.serve.batching import ModelQueue

Explain = Callable[[np.ndarray, Sequence[int]], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Served:
    """A classifier that is ready to answer.

    Attributes:
        classifier: The loaded file.
        version: Name of the file and the start of its SHA-256.
        queue: Resized pixels `(side, side, 3)` to probabilities `(classes,)`.
        explain: See `explain.explainer`.
        seconds_to_load: What loading and warming took.
    """

    classifier: Classifier
    version: str
    queue: ModelQueue
    explain: Explain
    seconds_to_load: float


def batch_sizes(largest: int) -> list[int]:
    """Return the sizes of batches that a model is compiled for: 1, 2, 4 and so on to `largest`."""
    return sorted({largest, *(2**power for power in range(largest.bit_length()))})


def load_served(file: Path, sizes: Sequence[int], observed: Callable[[int, float], None]) -> Served:
    """Load a classifier, have it answer in all sizes of batches, and start its queue.

    Args:
        file: A `.keras` file of this project.
        sizes: See `batch_sizes`.
        observed: Told the photos and the seconds of each batch.

    Raises:
        InputError: If the file cannot be loaded, changes meanwhile, or answers with anything but
            probabilities.
    """
    start = time.monotonic()
    digest = sha256_of(file)
    classifier = load_classifier(file)
    if sha256_of(file) != digest:
        raise InputError(f"{file} changed while it was being loaded; load it again.")
    predict = classifier.model.predict_on_batch
    side = classifier.image_size
    for size in sizes:
        _check_answer(np.asarray(predict(_greys(size, side))), size, classifier, file)
    explain = explainer(classifier.model)
    explain(_greys(1, side)[0], [0])

    def timed(pixels: np.ndarray) -> np.ndarray:
        begun = time.monotonic()
        rows = np.asarray(predict(pixels))
        observed(len(pixels), time.monotonic() - begun)
        return rows

    version = f"{file.name}@{digest[:12]}"
    queue = ModelQueue(timed, sizes)
    return Served(classifier, version, queue, explain, time.monotonic() - start)


def _greys(size: int, side: int) -> np.ndarray:
    return np.full((size, side, side, 3), 127.0, "float32")


def _check_answer(rows: np.ndarray, size: int, classifier: Classifier, file: Path) -> None:
    expected = (size, len(classifier.labels))
    if rows.shape != expected or not np.allclose(rows.sum(axis=-1), 1, atol=1e-3):
        raise InputError(
            f"{file} does not answer with probabilities of {expected[1]} classes; train it again."
        )
