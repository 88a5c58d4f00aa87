"""Batches for Keras: the photos of a split, or features that were computed from them."""

import itertools
import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.backend import keras  # Before TensorFlow, whose start-up messages it hides.

# isort: split
import tensorflow as tf

from fashion_keras.data.prepare import Prepared, PreparedPhoto, link_or_copy


def load_split(
    prepared: Prepared, split: str, image_size: int, batch_size: int, seed: int | None = None
) -> Any:
    """Return the photos of one split as a dataset.

    Args:
        prepared: The data set.
        split: `train`, `validation` or `test`.
        image_size: Side in pixels; photos are stretched to a square by bilinear interpolation,
            as the classifier's `Resizing` layer does.
        batch_size: Photos in a batch; the last batch holds the rest.
        seed: Shuffles the photos, differently in each epoch; without it the order is that of
            `prepared.split`.

    Returns:
        A `tf.data.Dataset` of pixels `(batch, image_size, image_size, 3)`, float32 in [0, 255],
        and class numbers `(batch,)`, int32.

    Raises:
        RuntimeError: If the prepared folder does not hold the photos it lists.
    """
    options = {"class_names": prepared.labels, "shuffle": seed is not None, "seed": seed}
    batches = _read_folder(prepared.folder / split, image_size, batch_size, **options)
    listed = [str(prepared.folder / photo.prepared) for photo in prepared.split(split)]
    if seed is None and batches.file_paths != listed:
        raise RuntimeError(
            f"The photos in {prepared.folder} are not those listed there: remove it."
        )
    return _without_autotuning(batches)


def load_photos(
    photos: Sequence[PreparedPhoto], folder: Path, image_size: int, batch_size: int
) -> Generator[Any, None, None]:
    """Yield pixels of prepared photos in batches, in the order given, as `load_split` does.

    `folder` is `Prepared.folder` or another one that holds these photos in the same way.
    """
    with tempfile.TemporaryDirectory(prefix="photos-") as links:
        for number, photo in enumerate(photos):
            place = Path(links, f"{number:07d}{Path(photo.prepared).suffix}")
            link_or_copy((folder / photo.prepared).resolve(), place)
        batches = _read_folder(links, image_size, batch_size, label_mode=None, shuffle=False)
        yield from _without_autotuning(batches)


def _read_folder(folder: Path | str, image_size: int, batch_size: int, **options: Any) -> Any:
    return keras.utils.image_dataset_from_directory(
        folder,
        image_size=(image_size, image_size),
        batch_size=batch_size,
        interpolation="bilinear",
        verbose=False,
        **options,
    )


def _without_autotuning(batches: Any) -> Any:
    # The thread that tunes buffer sizes delays the end of an epoch by seconds on a busy computer;
    # the untuned values (all cores, two batches ahead) are just as fast.
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def class_numbers(prepared: Prepared, split: str) -> np.ndarray:
    """Return the class number of each photo of a split, `(photos,)` int32."""
    number = {label: index for index, label in enumerate(prepared.labels)}
    return np.array([number[photo.label] for photo in prepared.split(split)], dtype="int32")


def feature_batches(
    copies: Sequence[Any],
    numbers: np.ndarray,
    batch_size: int,
    seed: int | None = None,
    first_epoch: int = 0,
    max_bytes: int = 2**28,
) -> Any:
    """Return features or feature maps with their class numbers as a dataset.

    Args:
        copies: Features of the photos, then of augmented copies of them. Each is an array
            `(photos, ...)`, or has its `shape`, `dtype`, `[:]` and rows by an array of numbers.
        numbers: Class number of each photo, `(photos,)`.
        batch_size: Photos in a batch; the last batch holds the rest.
        seed: Epochs follow each other without end, each in another random order, each photo in one
            of its copies chosen at random; `fit` needs `steps_per_epoch`. (To open a dataset again
            takes longer than a short epoch.) Without a seed: the first copy, once, in order.
        first_epoch: The first epoch has the order of this one (0 for the first) of a training.
        max_bytes: If all copies take more, only the rows of each batch are read into memory.

    Returns:
        A `tf.data.Dataset` of features `(batch, ...)`, as in `copies`, and class numbers
        `(batch,)`, int32.
    """
    count = len(numbers)
    rows: Any = tf.data.Dataset.range(count).batch(batch_size)
    if seed is not None:
        signature = tf.TensorSpec((count,), tf.int64)
        order: Any = tf.data.Dataset.from_generator(
            lambda: _orders(count, len(copies), seed, first_epoch), output_signature=signature
        )
        rows = order.flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(epoch).batch(batch_size)
        )
    read = _reader(copies, max_bytes)
    batches = rows.map(lambda rows: (read(rows), tf.gather(numbers.astype("int32"), rows % count)))
    return _without_autotuning(batches.prefetch(2))


def _orders(count: int, copies: int, seed: int, first_epoch: int) -> Iterator[np.ndarray]:
    """Yield the rows of each epoch, numbered through all copies."""
    for epoch in itertools.count(first_epoch):
        generator = np.random.default_rng([seed, epoch])
        photos = generator.permutation(count)
        yield generator.integers(copies, size=count)[photos] * count + photos


def _reader(copies: Sequence[Any], max_bytes: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from rows, numbered through all copies, to their features."""
    if sum(math.prod(copy.shape) * copy.dtype.itemsize for copy in copies) <= max_bytes:
        with tf.device("CPU"):
            features = tf.constant(np.concatenate([copy[:] for copy in copies]))
        return lambda rows: tf.gather(features, rows)
    (count, *shape), dtype = copies[0].shape, copies[0].dtype

    def gather(rows: np.ndarray) -> np.ndarray:
        features = np.empty((len(rows), *shape), dtype)
        chosen, photos = np.divmod(rows, count)
        for number in np.unique(chosen):
            here = chosen == number
            features[here] = copies[number][photos[here]]
        return features

    return lambda rows: tf.ensure_shape(tf.numpy_function(gather, [rows], dtype), (None, *shape))


def one_hot(batches: Any, classes: int) -> Any:
    """Return the batches as float32, with class numbers as rows `(batch, classes)` of 0 and 1."""
    return batches.map(
        lambda inputs, numbers: (tf.cast(inputs, tf.float32), tf.one_hot(numbers, classes))
    )
