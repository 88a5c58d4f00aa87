"""Reads a data set in batches: the photos of one split, or vectors made from them.

The only module that imports TensorFlow: `tf.data` feeds Keras on every backend.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fashion_keras.prepare import Prepared

_BLOCK = 2048  # Vectors fetched at once: few calls into Python, 16 MB in memory.


def load_split(
    prepared: Prepared, split: str, image_size: int, batch_size: int, seed: int | None = None
) -> Any:
    """Return the photos of one split as a dataset.

    Args:
        prepared: The data set.
        split: `train`, `validation` or `test`.
        image_size: Side in pixels; photos are stretched to a square by bilinear interpolation,
            the same that the classifier's `Resizing` layer uses.
        batch_size: Photos in a batch; the last batch holds what is left.
        seed: Shuffles anew in each pass; without it the order is that of `prepared.split`.

    Returns:
        A `tf.data.Dataset` of pixels `(batch, image_size, image_size, 3)`, float32 in [0, 255],
        and class numbers `(batch,)`, int32.
    """
    batches: Any = keras.utils.image_dataset_from_directory(
        prepared.folder / split,
        class_names=prepared.labels,
        label_mode="int",
        image_size=(image_size, image_size),
        batch_size=batch_size,
        shuffle=seed is not None,
        seed=seed,
        interpolation="bilinear",
        verbose=False,
    )
    return _without_autotuning(batches)


def _without_autotuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    # The thread that tunes a pipeline's buffers holds up the end of a pass by seconds, on a busy
    # computer even more; the untuned values (all cores, two batches ahead) are just as fast.
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def class_numbers(prepared: Prepared, split: str) -> np.ndarray:
    """Return the class number of each photo of a split, `(photos,)` int32."""
    number = {label: index for index, label in enumerate(prepared.labels)}
    return np.array([number[photo.label] for photo in prepared.split(split)], dtype="int32")


def vector_batches(
    views: Sequence[np.ndarray], numbers: np.ndarray, batch_size: int, seed: int | None = None
) -> tf.data.Dataset:
    """Return vectors and their class numbers as a dataset; only a few blocks are in memory.

    Args:
        views: One or more views of the same photos, each `(photos, 2048)`.
        numbers: Class number of each photo, `(photos,)`.
        batch_size: Vectors in a batch; the last batch holds what is left.
        seed: Each pass takes the photos in another random order, each in one of its views drawn
            at random, so that a pass is as long with many views as with one. Without a seed:
            the first view, in order.

    Returns:
        Batches of vectors `(batch, 2048)`, float32, and class numbers `(batch,)`, int32.
    """
    count, width = views[0].shape
    passes = itertools.count()

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order, chosen = np.arange(count), np.zeros(count, dtype=int)
        if seed is not None:
            generator = np.random.default_rng([seed, next(passes)])
            order, chosen = generator.permutation(count), generator.integers(len(views), size=count)
        for start in range(0, count, _BLOCK):
            rows = order[start : start + _BLOCK]
            yield _gather(views, chosen[rows], rows), numbers[rows]

    signature = (
        tf.TensorSpec((None, width), tf.float32),
        tf.TensorSpec((None,), tf.int32),
    )
    steps = -(-count // batch_size)
    batches = (
        tf.data.Dataset.from_generator(blocks, output_signature=signature)
        .rebatch(batch_size)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .prefetch(2)
    )
    return _without_autotuning(batches)


def one_hot(batches: Any, classes: int) -> Any:
    """Return the batches with class numbers `(batch,)` as rows `(batch, classes)` of 0 and 1."""
    return batches.map(lambda inputs, numbers: (inputs, tf.one_hot(numbers, classes)))


def _gather(views: Sequence[np.ndarray], chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return row `rows[i]` of view `chosen[i]` for each i."""
    block = np.empty((len(rows), views[0].shape[1]), dtype="float32")
    for number, view in enumerate(views):
        mask = chosen == number
        block[mask] = view[rows[mask]]
    return block
