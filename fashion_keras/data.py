"""Reads a data set in batches: the photos of one split, or vectors and maps made from them.

Beside `devices` the only module that imports TensorFlow: `tf.data` feeds Keras on every backend.
"""

import itertools
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fashion_keras.prepare import Prepared

_BLOCK = 2**24  # Bytes of features fetched at once: few calls into Python, little memory.


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


def feature_batches(
    views: Sequence[np.ndarray],
    numbers: np.ndarray,
    batch_size: int,
    seed: int | None = None,
    first_pass: int = 0,
) -> tf.data.Dataset:
    """Return vectors or maps and their class numbers as a dataset; few of them are in memory.

    Args:
        views: One or more views of the same photos, each `(photos, ...)`.
        numbers: Class number of each photo, `(photos,)`.
        batch_size: Photos in a batch; the last batch holds what is left.
        seed: Each pass takes the photos in another random order, each in one of its views drawn
            at random, so that a pass is as long with many views as with one. Without a seed:
            the first view, in order.
        first_pass: Number of passes that were made with this seed before.

    Returns:
        Batches of features `(batch, ...)`, as in `views`, and class numbers `(batch,)`, int32.
    """
    count, shape = len(numbers), views[0].shape[1:]
    rows_in_block = max(1, _BLOCK // views[0][:1].nbytes)
    passes = itertools.count(first_pass)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order, chosen = np.arange(count), np.zeros(count, dtype=int)
        if seed is not None:
            generator = np.random.default_rng([seed, next(passes)])
            order, chosen = generator.permutation(count), generator.integers(len(views), size=count)
        for start in range(0, count, rows_in_block):
            rows = order[start : start + rows_in_block]
            yield _gather(views, chosen[rows], rows), numbers[rows]

    signature = (
        tf.TensorSpec((None, *shape), views[0].dtype),
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
    """Return the batches as float32, with class numbers as rows `(batch, classes)` of 0 and 1."""
    return batches.map(
        lambda inputs, numbers: (tf.cast(inputs, tf.float32), tf.one_hot(numbers, classes))
    )


def _gather(views: Sequence[np.ndarray], chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return row `rows[i]` of view `chosen[i]` for each i."""
    block = np.empty((len(rows), *views[0].shape[1:]), views[0].dtype)
    for number, view in enumerate(views):
        mask = chosen == number
        block[mask] = _anew(view)[rows[mask]]
    return block


def _anew(view: np.ndarray) -> np.ndarray:
    # What was read through a memory map counts as this process's memory until the map is closed.
    # Only of a whole file: a slice names the file, too.
    file = view.filename if isinstance(view, np.memmap) else None
    whole = isinstance(view.base, mmap.mmap)
    return np.load(file, mmap_mode="r") if file and whole else view
