"""Tests of the batches: their order, pixels, shuffling, and features drawn from copies."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from fashion_keras.backend import keras, tensorflow
from fashion_keras.config import Config
from fashion_keras.data.batches import (
    Batches,
    class_numbers,
    class_weights,
    divisible,
    feature_batches,
    load_photos,
    load_split,
    one_hot,
)
from fashion_keras.data.prepare import Prepared, prepare


@pytest.fixture(params=["TensorFlow", "NumPy"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the batches be read with TensorFlow, and as where it is not installed."""
    if request.param == "NumPy":
        monkeypatch.setattr("fashion_keras.data.batches.tensorflow", lambda: None)
    return request.param


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepare PNGs of noise in several sizes: 10 for training and 2 for validation."""
    folder, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(1)
    for place in ("train/b", "train/a", "validation/a", "validation/b"):
        (folder / "photos" / place).mkdir(parents=True)
        for number in range(5 if place.startswith("train") else 1):
            pixels = random.integers(0, 256, (80 + number, 120 - number, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / "photos" / place / f"{number}.png")
    return prepare(Config(data=str(folder / "photos")), folder / "cache")


def in_one(batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return all inputs and all class numbers of one epoch."""
    inputs, numbers = zip(*batches, strict=True)
    return np.concatenate(inputs), np.concatenate(numbers)


def epoch(batches: Iterable[Any], steps: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return all inputs and all class numbers of an epoch of so many batches."""
    return in_one(itertools.islice(batches, number * steps, (number + 1) * steps))


def numbered(photos: int, copies: int) -> list[np.ndarray]:
    """Return copies whose features are (number of the photo, number of the copy)."""
    return [
        np.stack([np.arange(photos), np.full(photos, copy)], axis=1).astype("float32")
        for copy in range(copies)
    ]


def test_pixels_are_those_of_the_resizing_layer_in_the_order_of_the_split(noise, reader):
    batches = load_split(noise, "train", 71, 4)
    assert [len(numbers) for _, numbers in batches] == [4, 4, 2]
    pixels, numbers = in_one(batches)
    resize = keras.layers.Resizing(71, 71, interpolation="bilinear")
    for row, photo in zip(pixels, noise.split("train"), strict=True):
        decoded = np.asarray(Image.open(noise.folder / photo.prepared)).astype("float32")
        # Pillow computes in double precision.
        limit = 0 if reader == "TensorFlow" else 0.01
        np.testing.assert_allclose(row, resize(decoded[None])[0], rtol=0, atol=limit)
    assert pixels.dtype == "float32"
    assert noise.labels == ["a", "b"]
    assert numbers.tolist() == class_numbers(noise, "train").tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize("reader", ["TensorFlow"], indirect=True)
def test_photos_that_are_not_those_listed_are_refused(noise):
    photos = [photo for photo in noise.photos if photo != noise.split("train")[6]]
    with pytest.raises(RuntimeError, match=r"are not those listed there: remove it"):
        load_split(noise._replace(photos=photos), "train", 71, 4)


def test_seed_shuffles_each_epoch_differently(noise):
    batches = load_split(noise, "train", 71, 4, seed=1)
    first, second = (epoch(batches, 3, number)[0][:, 0, 0, 0] for number in (0, 1))
    again = epoch(load_split(noise, "train", 71, 4, seed=1), 3)[0][:, 0, 0, 0]
    unshuffled = in_one(load_split(noise, "train", 71, 4))[0][:, 0, 0, 0]
    assert sorted(first) == sorted(second) == sorted(unshuffled)
    assert len({tuple(first), tuple(second), tuple(unshuffled)}) == 3
    np.testing.assert_array_equal(first, again)


def test_photos_are_read_in_the_order_given(noise, capfd):
    pixels, _ = in_one(load_split(noise, "train", 71, 4))
    rows = [7, 2, 9, 0, 4]
    photos = [noise.split("train")[row] for row in rows]
    batches = list(load_photos(photos, noise.folder, 71, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), pixels[rows])
    assert capfd.readouterr().out == ""


def test_features_without_seed_are_the_first_copy_in_order():
    numbers = np.arange(10, dtype="int32") * 7
    batches = feature_batches(numbered(10, 2), numbers, 4)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    features, labels = in_one(batches)
    np.testing.assert_array_equal(features, numbered(10, 1)[0])
    np.testing.assert_array_equal(labels, numbers)


def test_each_epoch_takes_every_photo_once_in_a_random_copy():
    copies, numbers = numbered(50, 3), np.arange(50, dtype="int32") + 100
    batches, other = (feature_batches(copies, numbers, 8, seed=seed) for seed in (1, 2))
    (first, labels), (second, _) = (epoch(batches, 7, number) for number in (0, 1))
    np.testing.assert_array_equal(first[:, 0] + 100, labels)
    for features in (first, second):
        assert sorted(features[:, 0]) == list(range(50))
        assert set(features[:, 1]) == {0, 1, 2}
    assert first[:, 0].tolist() != second[:, 0].tolist()
    assert first[first[:, 0].argsort(), 1].tolist() != second[second[:, 0].argsort(), 1].tolist()
    resumed = feature_batches(copies, numbers, 8, seed=1, first_epoch=1)
    np.testing.assert_array_equal(epoch(resumed, 7)[0], second)
    assert epoch(other, 7)[0].tolist() not in (first.tolist(), second.tolist())


@pytest.mark.parametrize("seed", [None, 1])
def test_batches_are_the_same_from_memory_and_from_disk(seed, tmp_path):
    copies, numbers = [], np.arange(11, dtype="int32")
    for copy in range(3):
        features = np.random.default_rng(copy).normal(size=(11, 2, 2, 3)).astype("float16")
        np.save(tmp_path / f"{copy}.npy", features)
        copies.append(np.load(tmp_path / f"{copy}.npy", mmap_mode="r"))
    held = feature_batches(copies, numbers, 4, seed)
    mapped = feature_batches(copies, numbers, 4, seed, max_bytes=1)
    for one, other in zip(epoch(held, 6), epoch(mapped, 6), strict=True):  # Two epochs.
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    if not isinstance(held, Batches):
        assert held.element_spec == mapped.element_spec


@pytest.mark.parametrize("seed", [None, 1])
def test_numpy_gives_the_same_batches_as_tensorflow(seed, monkeypatch):
    copies, numbers = numbered(11, 3), np.arange(11, dtype="int32")
    found = []
    for tf in (tensorflow(), None):
        monkeypatch.setattr("fashion_keras.data.batches.tensorflow", lambda tf=tf: tf)
        batches = one_hot(feature_batches(copies, numbers, 4, seed, first_epoch=2), 11)
        found.append([np.asarray(part) for batch in itertools.islice(batches, 6) for part in batch])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_half_precision_becomes_float32_with_rows_of_labels():
    maps = np.arange(24, dtype="float16").reshape(2, 2, 2, 3)
    found, labels = in_one(one_hot(feature_batches([maps], np.array([2, 0], "int32"), 2), 3))
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, maps)
    np.testing.assert_array_equal(labels, [[0, 0, 1], [1, 0, 0]])


def test_photos_of_a_class_weigh_the_more_the_fewer_they_are():
    numbers = np.array([0, 0, 0, 2, 0, 2], "int32")  # No photo of the second class.
    weights: Any = class_weights(Config(class_weights="balanced"), numbers)
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=numbers)
    np.testing.assert_allclose(weights[[0, 2]], expected)
    batches = one_hot(feature_batches([np.arange(6.0)], numbers, 6), 3, weights)
    labels, found = (np.asarray(part) for batch in batches for part in batch[1:])
    np.testing.assert_array_equal(labels.argmax(axis=1), numbers)
    np.testing.assert_array_equal(found, weights[numbers])
    ((*_, filled),) = divisible(batches, 4)  # Six rows become eight.
    np.testing.assert_allclose(filled, [*(weights[numbers] * 8 / 6), 0, 0], rtol=1e-6)
    assert class_weights(Config(), numbers) is None


def test_batches_are_filled_up_with_rows_of_weight_0() -> None:
    batches = feature_batches([np.arange(5.0)], np.arange(5), 3)
    assert divisible(batches, 1) is batches
    first, last = ([np.asarray(part) for part in batch] for batch in divisible(batches, 2))
    assert [part.tolist() for part in first] == [
        [0, 1, 2, 0],
        [0, 1, 2, 0],
        pytest.approx([4 / 3] * 3 + [0]),
    ]
    assert [part.tolist() for part in last] == [[3, 4], [3, 4], [1, 1]]
    assert first[2].dtype == "float32"
