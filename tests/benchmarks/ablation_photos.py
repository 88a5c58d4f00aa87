"""Choices of how photos become square and small, and of looking at both mirror images."""

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
from fashion_keras.training import open_datasets
from tests.benchmarks.ablation_heads import EPOCHS, HEAD, softmax, train_heads
from tests.benchmarks.folds import Measure, cross_validate

Change = Callable[[Image.Image, int], Image.Image]


def unchanged(photo: Image.Image, size: int) -> Image.Image:
    """Return the photo: the model stretches it to a square."""
    return photo


CHANGES: dict[str, Change] = {
    "stretched to a square, bilinear": unchanged,
    "antialiased resize": lambda photo, size: photo.resize((size, size), Image.Resampling.BILINEAR),
    "padded to a square with white": lambda photo, size: ImageOps.pad(
        photo, (max(photo.size), max(photo.size)), color="white"
    ),
    "middle square cut out": lambda photo, size: ImageOps.fit(
        photo, (min(photo.size), min(photo.size))
    ),
}


def changed_photos(prepared: Prepared, folder: Path, change: Change, size: int) -> Path:
    """Write a changed copy of each training and validation photo, without loss."""
    for photo in [*prepared.split("train"), *prepared.split("validation")]:
        image = Image.fromarray(read_photo(prepared.folder / photo.prepared).pixels)
        target = (folder / photo.prepared).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        change(image, size).save(target, compress_level=1)
    return folder


def vectors_of(config: Config, data: str, cache: Path) -> np.ndarray:
    """Return the vectors of the training photos."""
    prepared = prepare(data, cache, config.seed)
    store = open_datasets(config, prepared, cache).store
    return np.array(store.features("train"))


def rows(base: Config, cache: Path, seeds: int, folds: int) -> Iterator[tuple[str, Measure]]:
    """Yield one row a choice; heads are trained on the photos themselves, without copies.

    All rows, the first too, go through the same decoder: copies are written without loss.
    """
    config = dataclasses.replace(base, heads=1, augmented_copies=0, epochs=EPOCHS, **HEAD)
    prepared = prepare(base.data, cache, base.seed)
    numbers = class_numbers(prepared, "train")

    def vectors(change: Change) -> np.ndarray:
        with tempfile.TemporaryDirectory() as name:
            copies = changed_photos(prepared, Path(name) / "photos", change, config.image_size)
            return vectors_of(config, str(copies), Path(name))

    def measure(change: Change, other: Change | None = None) -> dict:
        first = vectors(change)
        second = vectors(other) if other else None

        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            seeded = dataclasses.replace(config, seed=100 * seed)
            head = train_heads(seeded, [first[train]], numbers[train])
            logits = head.predict_on_batch(first[rows])
            if second is not None:
                logits = (logits + head.predict_on_batch(second[rows])) / 2
            return softmax(logits)

        return cross_validate(numbers, seeds, folds, predict)

    for choice, change in CHANGES.items():
        yield choice, functools.partial(measure, change)
    yield (
        "mean of the photo and its mirror image when predicting",
        functools.partial(measure, unchanged, lambda photo, _: ImageOps.mirror(photo)),
    )
