"""Reads a data set in batches: the photos of one split, or vectors and maps made from them.

Beside `devices` the only module that imports TensorFlow: `tf.data` feeds Keras on every backend.
"""

import contextlib
import io
import itertools
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fashion_keras.data.prepare import Prepared
from fashion_keras.pieces import Features
from fashion_keras.stopwatch import spent

_BLOCK = 2**24  # Bytes of features fetched at once: few calls into Python, little memory.


def load_split(
    prepared: Prepared,
    split: str,
    image_size: int,
    batch_size: int,
    seed: int | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Any:
    """Return the photos of one split, or a part of them, as a dataset.

    Args:
        prepared: The data set.
        split: `train`, `validation` or `test`.
        image_size: Side in pixels; photos are stretched to a square by bilinear interpolation,
            the same that the classifier's `Resizing` layer uses.
        batch_size: Photos in a batch; the last batch holds what is left.
        seed: Shuffles anew in each pass; without it the order is that of `prepared.split`. A part
            is never shuffled.
        start: Where a part begins, in that order; photos before it are not decoded.
        stop: The photo after the last one of a part, where a batch ends (default: all photos).

    Returns:
        A `tf.data.Dataset` of pixels `(batch, image_size, image_size, 3)`, float32 in [0, 255],
        and class numbers `(batch,)`, int32.

    Raises:
        RuntimeError: If the prepared folder does not hold the photos it lists, in that order.
    """
    count = len(prepared.split(split))
    # Keras can leave out the first photos: those of a share for training, the rest is for
    # validation. The half keeps rounding from taking one photo more or less.
    share = {"validation_split": (count - start + 0.5) / count, "subset": "validation"}
    with contextlib.redirect_stdout(io.StringIO()):  # It tells that share, also if not verbose.
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
            **(share if start else {}),
        )
    if seed is None:
        _check_order(prepared, split, start, batches.file_paths)
    if stop is not None and stop < count:
        batches = batches.take(-(-(stop - start) // batch_size))
    return _without_autotuning(batches)


def _check_order(prepared: Prepared, split: str, start: int, files: Sequence[str]) -> None:
    listed = [str(prepared.folder / photo.prepared) for photo in prepared.split(split)[start:]]
    if listed != list(files):
        raise RuntimeError(f"the photos in {prepared.folder} are not those it lists")


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
    augmented_copies: Sequence[Features],
    numbers: np.ndarray,
    batch_size: int,
    seed: int | None = None,
    first_pass: int = 0,
) -> tf.data.Dataset:
    """Return vectors or maps and their class numbers as a dataset; few of them are in memory.

    Args:
        augmented_copies: One or more copies of the same photos, each `(photos, ...)`.
        numbers: Class number of each photo, `(photos,)`.
        batch_size: Photos in a batch; the last batch holds what is left.
        seed: Each pass takes the photos in another random order, each in one of its copies drawn
            at random, so that a pass is as long with many copies as with one. Without a seed:
            the first view, in order.
        first_pass: Number of passes that were made with this seed before.

    Returns:
        Batches of features `(batch, ...)`, as in `augmented_copies`, and class numbers
        `(batch,)`, int32.
    """
    count, shape = len(numbers), augmented_copies[0].shape[1:]
    rows_in_block = max(1, _BLOCK // augmented_copies[0][:1].nbytes)
    passes = itertools.count(first_pass)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order, chosen = np.arange(count), np.zeros(count, dtype=int)
        if seed is not None:
            generator = np.random.default_rng([seed, next(passes)])
            order, chosen = (
                generator.permutation(count),
                generator.integers(len(augmented_copies), size=count),
            )
        for start in range(0, count, rows_in_block):
            rows = order[start : start + rows_in_block]
            yield _gather(augmented_copies, chosen[rows], rows), numbers[rows]

    signature = (
        tf.TensorSpec((None, *shape), augmented_copies[0].dtype),
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


@spent("I/O")
def _gather(
    augmented_copies: Sequence[Features], chosen: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Return row `rows[i]` of view `chosen[i]` for each i."""
    block = np.empty((len(rows), *augmented_copies[0].shape[1:]), augmented_copies[0].dtype)
    for number, view in enumerate(augmented_copies):
        mask = chosen == number
        block[mask] = _anew(view)[rows[mask]]
    return block


def _anew(view: Features) -> Features:
    # What was read through a memory map counts as this process's memory until the map is closed.
    # Only of a whole file: a slice names the file, too.
    if isinstance(view, np.memmap) and view.filename and isinstance(view.base, mmap.mmap):
        return np.load(view.filename, mmap_mode="r")
    return view
