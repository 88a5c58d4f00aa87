"""A loaded classifier: photos of any kind become predictions, in order, batch by batch."""

from __future__ import annotations

import base64
import collections
import dataclasses
import functools
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fashion_keras import engine, onnx_file
from fashion_keras.cli import default_cache, memory_advice
from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.inspection import POOLING, find_model, is_onnx, read_member, read_texts
from fashion_keras.saving import load_model

ONE_PHOTO = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray
NONE = "none of these"  # The category of a photo that is far from all classes.
NOVELTY = "novelty"  # The key of what is known about it in the metadata of a saved file.
CLASS_MEANS = "class_means"  # Where the means are: a member of a `.keras` file, a text in `.onnx`.
# Pillow reads a file when its pixels are first needed; two threads at once get garbage.
_ONE_IMAGE_AT_A_TIME = threading.Lock()


class Prediction(NamedTuple):
    """The prediction for one photo.

    Attributes:
        photo: The photo as it was given.
        category: The most probable label, or `NONE`; empty if the photo cannot be read.
        probability: Of the most probable label, in [0, 1]; 0 if the photo cannot be read.
        probabilities: Of each class, `(classes,)` in the order of the labels; else empty.
        reason: Why it cannot be read; empty if it can.
        features: What the backbone gives for the photo, `(channels,)`; empty if it is not known.
    """

    photo: Any
    category: str
    probability: float
    probabilities: np.ndarray
    reason: str
    features: np.ndarray = np.empty(0)


def unread(photo: Any, reason: str) -> Prediction:
    """Return the prediction of a photo that cannot be read."""
    return Prediction(photo, "", 0.0, np.empty(0), reason)


def read_pixels(photo: Any) -> np.ndarray:
    """Return the pixels of a photo given as path, bytes, image or array; see `photo.read_photo`.

    Raises:
        PhotoError: If it cannot be read.
        TypeError: If it is none of these.
    """
    if not isinstance(photo, ONE_PHOTO):
        kind = type(photo).__name__
        raise TypeError(
            f"expected a photo as path, bytes, image of Pillow or array. Received: {kind}"
        )
    if isinstance(photo, Image.Image):
        with _ONE_IMAGE_AT_A_TIME:
            return read_photo(photo).pixels
    if isinstance(photo, str | os.PathLike):
        photo = Path(photo)
    elif isinstance(photo, bytearray | memoryview):
        photo = bytes(photo)
    return read_photo(photo).pixels


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A loaded classifier; see `load_classifier`.

    Attributes:
        model: A Keras model from pixels `(batch, height, width, 3)`, any height and width, uint8
            or float in [0, 255], to probabilities `(batch, classes)`; None for an `.onnx` file.
        metadata: See `inspection.read_metadata`.
        engine: Computes what `outputs` returns, faster or without Keras.
        class_means: See `novelty.class_means`; None if the file has none.
    """

    model: Any
    metadata: dict
    engine: Callable[[np.ndarray], np.ndarray] | None = None
    class_means: np.ndarray | None = None

    def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """Return what `named` takes for each photo, `(batch, classes + channels)`.

        `pixels` are those of photos of one size, as for `model`. The first columns are the
        probabilities, the others the features, if they are known.
        """
        return np.asarray((self.engine or self._both.predict_on_batch)(pixels))

    @functools.cached_property
    def _both(self) -> Any:
        """The model with the features beside the probabilities."""
        from fashion_keras.backend import keras

        if POOLING not in (layer.name for layer in self.model.layers):
            return self.model  # `build_classifier` did not make it.
        concatenate = keras.layers.Concatenate(dtype="float32", name="both")
        both = concatenate(list(named_outputs(self.model).values()))
        return keras.Model(self.model.input, both, name="classifier")

    @property
    def labels(self) -> list[str]:
        """Name of each class, in the order of the probabilities."""
        return self.metadata["labels"]

    @property
    def image_size(self) -> int:
        """Side in pixels to which the model resizes photos."""
        return self.metadata["image_size"]

    def predict(
        self,
        photos: ONE_PHOTO | Iterable[Any],
        batch_size: int = 32,
        read: Callable[[Any], np.ndarray] = read_pixels,
    ) -> Iterator[Prediction]:
        """Yield one prediction for each photo, in order, while later photos are being decoded.

        A photo that cannot be read has its reason in place of a category.

        Args:
            photos: One photo or any number of them, even endless: paths, bytes, images of Pillow
                or arrays in any mixture. They are consumed a few batches ahead.
            batch_size: Photos that go through the model together; those of an `.onnx` file go one
                by one.
            read: Returns the pixels of one of `photos`; raises `PhotoError` if it cannot.

        Raises:
            InputError: If `batch_size` is less than 1, or memory does not suffice for a batch.
            TypeError: If something is no photo at all.
        """
        if batch_size < 1:
            raise InputError(f"`batch_size` must be 1 or more. Received: {batch_size}")
        if self.model is None:  # Photos keep their sizes, and batches would not be faster.
            batch_size = 1
        one = isinstance(photos, ONE_PHOTO) and getattr(photos, "ndim", 3) < 4
        several: Any = [photos] if one else photos
        decoded = self._decoded(several, 2 * batch_size, read)
        while batch := list(itertools.islice(decoded, batch_size)):
            yield from self._predict_batch(batch)

    def for_photos(self, count: float, cache: Path | None = None) -> Classifier:
        """Return this classifier with the engine that is best for about so many photos.

        For many photos on a CPU, where OpenVINO is installed (extra `cpu`), the model is converted
        once, in about 5 s, and predicts faster from then on; probabilities stay the same to 1e-5.

        Args:
            count: How many photos are to be predicted.
            cache: Folder for the converted model (default: `cli.default_cache`).
        """
        if self.model is None:
            return self
        where = cache or default_cache()
        run = engine.for_classifier(self._both, count, self.image_size, where)
        return dataclasses.replace(self, engine=run)

    def _decoded(
        self, photos: Iterable[Any], ahead: int, read: Callable[[Any], np.ndarray]
    ) -> Iterator[tuple[Any, np.ndarray | str]]:
        """Yield each photo with its resized pixels, or with the reason why there are none."""

        def decode(photo: Any) -> np.ndarray | str:
            try:
                return self.resize(read(photo))
            except PhotoError as error:
                return str(error)

        waiting: collections.deque[tuple[Any, Future]] = collections.deque()
        pool = ThreadPoolExecutor()
        try:
            for photo in photos:
                waiting.append((photo, pool.submit(decode, photo)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _predict_batch(self, batch: list[tuple[Any, np.ndarray | str]]) -> Iterator[Prediction]:
        readable = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        with memory_advice("--batch-size", len(readable)):
            rows = iter(self.outputs(np.stack(readable)) if readable else ())
        for photo, pixels in batch:
            failed = isinstance(pixels, str)
            yield unread(photo, pixels) if failed else self.named(photo, next(rows))

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return the pixels of one photo in the model's own size; may run in any thread.

        An `.onnx` file resizes photos itself.
        """
        if self.model is None:
            return pixels
        from fashion_keras.backend import array

        resize = self.model.get_layer("resize")
        return array(resize(pixels[None].astype("float32")))[0]

    def named(self, photo: Any, row: np.ndarray) -> Prediction:
        """Return the prediction for a photo from its row of `outputs`."""
        probabilities, features = np.split(row, [len(self.labels)])
        best = int(probabilities.argmax())
        category = NONE if self._is_novel(features) else self.labels[best]
        return Prediction(photo, category, float(probabilities[best]), probabilities, "", features)

    def _is_novel(self, features: np.ndarray) -> bool:
        """Return whether features are farther from the mean of each class than the threshold."""
        if self.class_means is None or not len(features):
            return False
        (distance,) = distances(features[None], self.class_means)
        return bool(distance > self.metadata[NOVELTY]["threshold"])


def load_classifier(path: str | os.PathLike) -> Classifier:
    """Load a classifier that `python -m fashion_keras.final` saved, or its export to `.onnx`.

    The latter is run by ONNX Runtime; Keras is not imported. Of a folder its only `.keras` file is
    loaded.

    Raises:
        InputError: If the file is no whole classifier of this project, or is not safe to load.
    """
    path = find_model(os.fspath(path))
    if is_onnx(path):
        run, texts = onnx_file.open_onnx(path)
        metadata = read_texts(texts, path)
        means = _read_class_means(texts.get(CLASS_MEANS, ""), metadata, path)
        return Classifier(None, metadata, run, means)
    model, metadata = load_model(path)
    content = read_member(path, CLASS_MEANS)
    return Classifier(model, metadata, None, _read_class_means(content, metadata, path))


def named_outputs(model: Any) -> dict[str, Any]:
    """Return the tensors of probabilities and features of a model of `build_classifier`, by name.

    Its last layer, whose name holds the metadata, is replaced.
    """
    from fashion_keras.backend import keras

    last = keras.layers.Softmax(dtype="float32", name=onnx_file.OUTPUT)
    probabilities = last(model.layers[-1].input)
    features = model.get_layer(POOLING).output
    return {onnx_file.OUTPUT: probabilities, onnx_file.FEATURES: features}


def distances(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the cosine distance of each photo to the nearest class mean, `(photos,)`, in [0, 2].

    Args:
        features: `(photos, channels)`.
        means: See `novelty.class_means`.
    """
    return 1 - (unit_vectors(features) @ means.T.astype("float32")).max(axis=1)


def unit_vectors(rows: np.ndarray) -> np.ndarray:
    """Return rows divided by their lengths, float32."""
    rows = rows.astype("float32")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _read_class_means(content: bytes | str, metadata: dict, path: Path) -> np.ndarray | None:
    """Return the class means in a `.npy` file's content (a text is base64); None without any.

    Raises:
        InputError: If `content` is damaged, or does not go with the metadata of the file `path`.
    """
    if not content or NOVELTY not in metadata:
        return None
    try:
        float(metadata[NOVELTY]["threshold"])
        file = io.BytesIO(base64.b64decode(content) if isinstance(content, str) else content)
        means = np.lib.format.read_array(file, allow_pickle=False)
        if means.dtype != "float16" or means.ndim != 2 or len(means) != len(metadata["labels"]):
            raise ValueError(f"class means of {means.dtype} and the shape {means.shape}")
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged (copy or download it again): {error}") from error
    return means
