"""Batches for Keras: the photos of a split, or features that were computed from them.

TensorFlow reads them, under every backend. Where it is not installed Pillow and NumPy do.
"""

import functools
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.backend import keras, tensorflow
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, PreparedPhoto, link_or_copy

tensorflow()  # Now, quietly: Keras Tuner would import it with its messages.


def load_split(
    prepared: Prepared, split: str, image_size: int, batch_size: int, seed: int | None = None
) -> Any:
    """Return the photos of one split as a dataset.

    Args:
        prepared: The data set.
        split: `train`, `validation` or `test`.
        image_size: Side in pixels; photos are stretched to a square by bilinear interpolation,
            as the classifier's `Resizing` layer does.
        batch_size: Photos in a batch; the last batch of an epoch holds the rest.
        seed: Epochs follow each other without end, each in another random order. Without a seed:
            once, in the order of `prepared.split`.

    Returns:
        Pixels `(batch, image_size, image_size, 3)`, float32 in [0, 255], and class numbers
        `(batch,)`, int32: a `tf.data.Dataset`, or a `Batches`.

    Raises:
        RuntimeError: If the prepared folder does not hold the photos it lists.
    """
    files = [str(prepared.folder / photo.prepared) for photo in prepared.split(split)]
    if not tensorflow():
        read, numbers = _photo_reader(image_size), class_numbers(prepared, split)
        order = None if seed is None else functools.partial(_order, len(files), 1, seed)
        return _numpy_batches(
            lambda rows: (read([files[row] for row in rows]), numbers[rows]),
            *(len(files), batch_size, order),
        )
    options = {"class_names": prepared.labels, "shuffle": seed is not None, "seed": seed}
    batches = _read_folder(prepared.folder / split, image_size, batch_size, **options)
    if seed is None and batches.file_paths != files:
        raise RuntimeError(
            f"The photos in {prepared.folder} are not those listed there: remove it."
        )
    return _without_autotuning(batches if seed is None else batches.repeat())


def load_photos(
    photos: Sequence[PreparedPhoto], folder: Path, image_size: int, batch_size: int
) -> Generator[Any, None, None]:
    """Yield pixels of prepared photos in batches, in the order given, as `load_split` does.

    `folder` is `Prepared.folder` or another one that holds these photos in the same way.
    """
    if not tensorflow():
        read, files = _photo_reader(image_size), [folder / photo.prepared for photo in photos]
        for start in range(0, len(files), batch_size):
            yield read(files[start : start + batch_size])
        return
    with tempfile.TemporaryDirectory(prefix="photos-") as links:
        for number, photo in enumerate(photos):
            place = Path(links, f"{number:07d}{Path(photo.prepared).suffix}")
            link_or_copy((folder / photo.prepared).resolve(), place)
        batches = _read_folder(links, image_size, batch_size, label_mode=None, shuffle=False)
        yield from arrays(_without_autotuning(batches))


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
    options = tensorflow().data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def arrays(batches: Any) -> Iterator[Any]:
    """Return an iterator over batches as NumPy arrays, which every backend takes."""
    in_tensorflow = hasattr(batches, "as_numpy_iterator")
    return batches.as_numpy_iterator() if in_tensorflow else iter(batches)


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
        Features `(batch, ...)`, as in `copies`, and class numbers `(batch,)`, int32: a
        `tf.data.Dataset`, or a `Batches`.
    """
    count, numbers, tf = len(numbers), numbers.astype("int32"), tensorflow()
    order = None if seed is None else functools.partial(_order, count, len(copies), seed)
    if sum(math.prod(copy.shape) * copy.dtype.itemsize for copy in copies) <= max_bytes:
        copies = [np.concatenate([copy[:] for copy in copies])]
    if not tf:
        later = order and (lambda epoch: order(first_epoch + epoch))
        return _numpy_batches(
            lambda rows: (_gather(copies, rows), numbers[rows % count]),
            *(count, batch_size, later),
        )
    rows: Any = tf.data.Dataset.range(count).batch(batch_size)
    if order:
        orders: Any = tf.data.Dataset.from_generator(
            lambda: map(order, itertools.count(first_epoch)),
            output_signature=tf.TensorSpec((count,), tf.int64),
        )
        rows = orders.flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(epoch).batch(batch_size)
        )
    read = _tensor_reader(copies)
    batches = rows.map(lambda rows: (read(rows), tf.gather(numbers, rows % count)))
    return _without_autotuning(batches.prefetch(2))


def _order(count: int, copies: int, seed: int, epoch: int) -> np.ndarray:
    """Return the rows of an epoch, numbered through all copies."""
    generator = np.random.default_rng([seed, epoch])
    photos = generator.permutation(count)
    return generator.integers(copies, size=count)[photos] * count + photos


def _gather(copies: Sequence[Any], rows: np.ndarray) -> np.ndarray:
    """Return the features of rows that are numbered through all copies."""
    (count, *shape), dtype = copies[0].shape, copies[0].dtype
    features = np.empty((len(rows), *shape), dtype)
    chosen, photos = np.divmod(rows, count)
    for number in np.unique(chosen):
        here = chosen == number
        features[here] = copies[number][photos[here]]
    return features


def _tensor_reader(copies: Sequence[Any]) -> Callable[[Any], Any]:
    """Return what `_gather` does as a function for `tf.data`."""
    tf = tensorflow()
    if len(copies) == 1 and type(copies[0]) is np.ndarray:
        with tf.device("CPU"):
            features = tf.constant(copies[0])
        return lambda rows: tf.gather(features, rows)
    shape, dtype = copies[0].shape[1:], copies[0].dtype

    def read(rows: Any) -> Any:
        found = tf.numpy_function(functools.partial(_gather, copies), [rows], dtype)
        return tf.ensure_shape(found, (None, *shape))

    return read


def class_weights(config: Config, numbers: np.ndarray) -> np.ndarray | None:
    """Return the weight of each class in the loss, float32; None if all count the same.

    `balanced`: inverse to the photos of the class in `numbers`, with a mean of 1 over all photos,
    as `class_weight="balanced"` of scikit-learn (King and Zeng 2001, "Logistic Regression in Rare
    Events Data"). They are used as Keras' `class_weight` is: for the training loss and accuracy,
    not for validation.
    """
    if config.class_weights == "none":
        return None
    counts = np.bincount(numbers)
    return (len(numbers) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype("float32")


def one_hot(batches: Any, classes: int, weights: np.ndarray | None = None) -> Any:
    """Return the batches as float32, with class numbers as rows `(batch, classes)` of 0 and 1.

    With `weights` of the classes, the weight of each photo comes third.
    """
    rows = np.eye(classes, dtype="float32")
    tables = [rows] if weights is None else [rows, weights]
    if isinstance(batches, Batches):
        return batches.map(
            lambda inputs, numbers: (inputs.astype("float32"), *(one[numbers] for one in tables))
        )
    tf = tensorflow()
    return batches.map(
        lambda inputs, numbers: (
            tf.cast(inputs, tf.float32),
            *(tf.gather(one, numbers) for one in tables),
        )
    )


def divisible(batches: Any, devices: int) -> Any:
    """Fill up batches of inputs and labels with rows of weight 0, to be shared evenly by devices.

    Weights of photos may come third.

    The mean loss of a batch, and so its gradient, stays the same.
    """
    tf = None if isinstance(batches, Batches) else tensorflow()

    def fill_up(inputs: Any, labels: Any, *others: Any) -> tuple[Any, Any, Any]:
        count = tf.shape(labels)[0] if tf else len(labels)
        size = -(-count // devices) * devices
        if not tf:
            rows = np.arange(size)
            weights = np.where(rows < count, size / count, 0).astype("float32")
            weights = weights * others[0][rows % count] if others else weights
            return inputs[rows % count], labels[rows % count], weights
        rows = tf.range(size)
        weights = tf.where(rows < count, tf.cast(size / count, tf.float32), 0.0)
        weights = weights * tf.gather(others[0], rows % count) if others else weights
        return tf.gather(inputs, rows % count), tf.gather(labels, rows % count), weights

    return batches.map(fill_up) if devices > 1 else batches


class Batches(keras.utils.PyDataset):
    """Batches, `count` or without end; `make` returns that of a number, in a thread, ahead."""

    def __init__(self, make: Callable[[int], tuple], count: int | None) -> None:
        super().__init__()
        self._make, self._count = make, count
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: dict[int, Future] = {}

    @property
    def num_batches(self) -> Any:
        """Number of batches; None if they follow each other without end."""
        return self._count

    def __getitem__(self, index: int) -> tuple:
        """Return a batch; the one that follows is made meanwhile."""
        found = self._waiting.pop(index, None) or self._thread.submit(self._make, index)
        following = (index + 1) % self._count if self._count else index + 1
        self._waiting = {following: self._thread.submit(self._make, following)}
        return found.result()

    def map(self, function: Callable[..., tuple]) -> "Batches":
        """Return batches whose parts go through a function."""
        return Batches(lambda index: function(*self._make(index)), self._count)


def _numpy_batches(
    read: Callable[[np.ndarray], tuple],
    count: int,
    batch_size: int,
    order: Callable[[int], np.ndarray] | None,
) -> Batches:
    """Return what `read` gives for the rows of each batch; `order` has the rows of each epoch."""
    steps = math.ceil(count / batch_size)

    def make(index: int) -> tuple:
        epoch, step = divmod(index, steps)
        rows = order(epoch) if order else np.arange(count)
        return read(rows[step * batch_size : (step + 1) * batch_size])

    return Batches(make, None if order else steps)


def _photo_reader(image_size: int) -> Callable[[Sequence[Path | str]], np.ndarray]:
    """Return a function that decodes photos and stretches them to a size, with all cores."""
    threads = ThreadPoolExecutor(os.cpu_count())
    return lambda files: np.stack(
        list(threads.map(lambda file: _stretched(file, image_size), files))
    )


def _stretched(file: Path | str, size: int) -> np.ndarray:
    """Return the pixels of a photo as float32, by the same interpolation as `Resizing`."""
    with Image.open(file) as photo:
        bands = photo.convert("RGB").split()
    scale = (photo.width / size, 0, 0, 0, photo.height / size, 0)
    how = {"method": Image.Transform.AFFINE, "data": scale, "resample": Image.Resampling.BILINEAR}
    stretched = [band.convert("F").transform((size, size), **how) for band in bands]
    return np.stack([np.asarray(band) for band in stretched], axis=-1)
