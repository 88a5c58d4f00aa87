"""Directions of vectors, block by block: of many photos no more are in memory than of few."""

from collections.abc import Iterator, Sequence

import numpy as np

from fashion_keras.data.batches import feature_batches
from fashion_keras.features import Features

_ROWS = 2048


def directions(vectors: Sequence[Features]) -> Iterator[np.ndarray]:
    """Yield the rows of all arrays, in order, scaled to the length of 1.

    Args:
        vectors: Arrays `(photos, numbers)`, such as those of each split, mapped from disk or not.

    Yields:
        Blocks `(rows, numbers)`, float32.
    """
    for part in vectors:
        for block, _ in feature_batches([part], np.zeros(len(part), "int32"), _ROWS):
            rows = np.asarray(block)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            yield (rows / np.maximum(lengths, 1e-12)).astype("float32")
