"""The model of a service: loaded, checked, warmed up, with its queue."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.inspection import name_of
from fashion_keras.serve.batching import ModelQueue


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A classifier that is ready to answer.

    Attributes:
        classifier: The loaded file.
        version: Name of the file and the start of its SHA-256.
        queue: Pixels, as `Classifier.resize` returns them, to rows of `Classifier.outputs`.
        explain: See `grad_cam.explainer`; None if the file cannot explain.
    """

    classifier: Classifier
    version: str
    queue: ModelQueue
    explain: Callable[[np.ndarray, Sequence[int]], list[np.ndarray]] | None


def batch_sizes(largest: int) -> list[int]:
    """Return the batch sizes that a model is compiled for: 1, 2, 4 and so on up to `largest`."""
    return sorted({largest, *(2**power for power in range(largest.bit_length()))})


def load_model(file: Path, batch_size: int, observe: Callable[[int, float], None]) -> ServedModel:
    """Load a classifier, run it once in every batch size, and start its queue.

    Args:
        file: A `.keras` file of this project, or its export to `.onnx`.
        batch_size: The largest size of a batch; photos of an `.onnx` file go one by one.
        observe: Called with the photos and the seconds of each batch.

    Raises:
        InputError: If the file cannot be loaded or does not answer with probabilities.
    """
    version = name_of(file)
    classifier = load_classifier(file).for_photos(math.inf)
    run, side = classifier.outputs, classifier.image_size
    grey = np.full((1, side, side, 3), 127.0, "float32")
    sizes = batch_sizes(batch_size if classifier.model else 1)
    for size in sizes:
        rows = run(grey.repeat(size, axis=0))
        if not np.allclose(rows[:, : len(classifier.labels)].sum(axis=-1), 1, atol=1e-3):
            raise InputError(f"{file} does not answer with probabilities; train it again.")
    explain = _explainer(classifier, grey[0])

    def predict(pixels: np.ndarray) -> np.ndarray:
        start = time.monotonic()
        rows = run(pixels)
        observe(len(pixels), time.monotonic() - start)
        return rows

    return ServedModel(classifier, version, ModelQueue(predict, sizes), explain)


def _explainer(classifier: Classifier, photo: np.ndarray) -> Any:
    """Return what explains, warmed up on a photo; None for an `.onnx` file."""
    if classifier.model is None:
        return None
    from fashion_keras.grad_cam import explainer  # Imports Keras.

    explain = explainer(classifier.model)
    explain(photo, [0])
    return explain
