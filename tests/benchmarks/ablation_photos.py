"""Choices of how photos become square and small, and of predicting both mirror images."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.training import Datasets, open_datasets
from tests.benchmarks.ablation_heads import HEAD, softmax, train_heads
from tests.benchmarks.folds import CrossValidate, Row, Scores

Change = Callable[[Image.Image, int], Image.Image]
CHANGES: dict[str, list[Change]] = {  # Logits of several are averaged.
    "stretched to a square, bilinear": [lambda photo, size: photo],  # By the model.
    "antialiased resize": [
        lambda photo, size: photo.resize((size, size), Image.Resampling.BILINEAR)
    ],
    "padded to a square with white": [
        lambda photo, size: ImageOps.pad(photo, (max(photo.size), max(photo.size)), color="white")
    ],
    "middle square cut out": [
        lambda photo, size: ImageOps.fit(photo, (min(photo.size), min(photo.size)))
    ],
    "mean of the photo and its mirror image when predicting": [
        lambda photo, size: photo,
        lambda photo, size: ImageOps.mirror(photo),
    ],
}


def changed(prepared: Prepared, change: Change, config: Config, folder: Path) -> Datasets:
    """Return changed photos for training and validation, written without loss to a folder."""
    for photo in [*prepared.split("train"), *prepared.split("validation")]:
        image = Image.fromarray(read_photo(prepared.folder / photo.prepared).pixels)
        target = (folder / "photos" / photo.prepared).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        change(image, config.image_size).save(target, compress_level=1)
    return open_datasets(config, prepare(Config(data=str(folder / "photos")), folder), folder)


def features_of(prepared: Prepared, change: Change, config: Config) -> np.ndarray:
    """Return the features of changed training photos."""
    with tempfile.TemporaryDirectory() as name:
        store = changed(prepared, change, config, Path(name)).store
        return np.array(store.features("train"))


def rows(base: Config, cache: Path, validate: CrossValidate) -> Iterator[Row]:
    """Yield one row a choice; heads are trained on the photos themselves, without copies.

    All rows, the first too, go through the same decoder: copies are written without loss.
    """
    base = dataclasses.replace(base, augmented_copies=0, **HEAD)
    prepared = prepare(base, cache)
    numbers = class_numbers(prepared, "train")

    def measure(changes: list[Change]) -> Scores:
        features = [features_of(prepared, change, base) for change in changes]

        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            config = dataclasses.replace(base, seed=100 * seed)
            head = train_heads(config, [features[0][train]], numbers[train])
            return softmax(np.mean([head.predict_on_batch(one[rows]) for one in features], axis=0))

        return validate(numbers, predict)

    for choice, changes in CHANGES.items():
        yield choice, functools.partial(measure, changes)
