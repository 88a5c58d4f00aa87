"""Tests of the batches that are read: order, pixels, shuffling, and vectors drawn from copies."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fashion_keras.data.batches import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.pieces import opened, piece_of


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepare PNGs of noise in several sizes: 10 for training and 2 for validation."""
    folder, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(1)
    for place in ("train/b", "train/a", "validation/a", "validation/b"):
        (folder / "photos" / place).mkdir(parents=True)
        for number in range(5 if place.startswith("train") else 1):
            pixels = random.integers(0, 256, (80 + number, 120 - number, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / "photos" / place / f"{number}.png")
    return prepare(str(folder / "photos"), folder / "cache")


def in_one(batches) -> tuple[np.ndarray, np.ndarray]:
    """Return all inputs and all class numbers of one pass."""
    inputs, numbers = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(inputs), np.concatenate(numbers)


def marked_views(photos: int, augmented_copies: int) -> list[np.ndarray]:
    """Return copies whose vectors are (number of the photo, number of the view)."""
    return [
        np.stack([np.arange(photos), np.full(photos, view)], axis=1).astype("float32")
        for view in range(augmented_copies)
    ]


def test_pixels_are_those_of_the_resizing_layer_in_the_order_of_the_split(noise: Prepared) -> None:
    pixels, numbers = in_one(load_split(noise, "train", 71, 4))
    resize = keras.layers.Resizing(71, 71, interpolation="bilinear")
    for row, photo in zip(pixels, noise.split("train"), strict=True):
        decoded = np.asarray(Image.open(noise.folder / photo.prepared)).astype("float32")
        np.testing.assert_array_equal(row, resize(decoded[None])[0])
    assert pixels.dtype == "float32"
    assert numbers.tolist() == [0] * 5 + [1] * 5


def test_order_of_the_drawn_photos_is_that_of_the_split(prepared: Prepared) -> None:
    pixels, numbers = in_one(load_split(prepared, "validation", 71, 8))
    for row, photo in zip(pixels, prepared.split("validation"), strict=True):
        with Image.open(prepared.folder / photo.prepared) as opened:
            expected = np.asarray(opened).mean(axis=(0, 1))
        np.testing.assert_allclose(row.mean(axis=(0, 1)), expected, atol=3)
    np.testing.assert_array_equal(numbers, class_numbers(prepared, "validation"))


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 8), (4, 10), (8, 10), (8, None), (0, 10)])
def test_part_of_a_split_is_the_same_to_the_last_bit(
    start: int, stop: int | None, noise: Prepared
) -> None:
    pixels, numbers = in_one(load_split(noise, "train", 71, 4))
    part, its_numbers = in_one(load_split(noise, "train", 71, 4, None, start, stop))
    np.testing.assert_array_equal(part, pixels[start:stop])
    np.testing.assert_array_equal(its_numbers, numbers[start:stop])


def test_part_of_a_split_needs_none_of_the_other_photos(
    prepared: Prepared, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels, _ = in_one(load_split(prepared, "train", 71, 4))
    broken = prepared._replace(folder=shutil.copytree(prepared.folder, tmp_path / "broken"))
    for photo in broken.split("train")[:8]:
        (broken.folder / photo.prepared).write_bytes(b"no photo")
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_one(load_split(broken, "train", 71, 4, None, 0, 4))
    capfd.readouterr()
    part, _ = in_one(load_split(broken, "train", 71, 4, None, 8, 12))
    np.testing.assert_array_equal(part, pixels[8:12])
    assert capfd.readouterr().out == ""


def test_photos_that_are_not_those_listed_are_not_read(noise: Prepared) -> None:
    photos = [photo for photo in noise.photos if photo != noise.split("train")[6]]
    for part in [(), (None, 4, 8)]:
        with pytest.raises(RuntimeError, match="are not those it lists"):
            load_split(noise._replace(photos=photos), "train", 71, 4, *part)


def test_last_batch_is_kept(noise: Prepared) -> None:
    batches = load_split(noise, "train", 71, 4)
    assert [len(numbers) for _, numbers in batches.as_numpy_iterator()] == [4, 4, 2]


def test_class_numbers_follow_the_sorted_labels(noise: Prepared) -> None:
    numbers = class_numbers(noise, "validation")
    assert noise.labels == ["a", "b"]
    assert (numbers.tolist(), numbers.dtype) == ([0, 1], "int32")


def test_seed_shuffles_each_pass_anew(noise: Prepared) -> None:
    batches = load_split(noise, "train", 71, 4, seed=1)
    first, second = in_one(batches)[0][:, 0, 0, 0], in_one(batches)[0][:, 0, 0, 0]
    unshuffled = in_one(load_split(noise, "train", 71, 4))[0][:, 0, 0, 0]
    assert sorted(first) == sorted(second) == sorted(unshuffled)
    assert len({tuple(first), tuple(second), tuple(unshuffled)}) == 3


def test_same_seed_shuffles_the_same_way(noise: Prepared) -> None:
    first, again = (in_one(load_split(noise, "train", 71, 4, seed=1))[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("block", [1, 24, 2**24])
def test_vectors_without_seed_are_the_first_view_in_order(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.data.batches._BLOCK", block)
    numbers = np.arange(10, dtype="int32") * 7
    batches = feature_batches(marked_views(10, 2), numbers, 4)
    assert [len(labels) for _, labels in batches.as_numpy_iterator()] == [4, 4, 2]
    vectors, labels = in_one(batches)
    np.testing.assert_array_equal(vectors, marked_views(10, 1)[0])
    np.testing.assert_array_equal(labels, numbers)


def test_each_pass_takes_every_photo_once_in_one_of_its_views() -> None:
    numbers = np.arange(50, dtype="int32") + 100
    batches = feature_batches(marked_views(50, 3), numbers, 8, seed=1)
    for _ in range(2):
        vectors, labels = in_one(batches)
        assert sorted(vectors[:, 0]) == list(range(50))
        assert set(vectors[:, 1]) == {0, 1, 2}
        np.testing.assert_array_equal(vectors[:, 0] + 100, labels)


def test_second_pass_has_another_order_and_other_views() -> None:
    batches = feature_batches(marked_views(50, 3), np.zeros(50, "int32"), 8, seed=1)
    first, second = in_one(batches)[0], in_one(batches)[0]
    assert first[:, 0].tolist() != second[:, 0].tolist()
    augmented_copies = [vectors[vectors[:, 0].argsort(), 1].tolist() for vectors in (first, second)]
    assert augmented_copies[0] != augmented_copies[1]


def test_seed_decides_all_passes_over_vectors() -> None:
    def two_passes(seed: int) -> list:
        batches = feature_batches(marked_views(50, 3), np.zeros(50, "int32"), 8, seed=seed)
        return [in_one(batches)[0].tolist() for _ in range(2)]

    assert two_passes(1) == two_passes(1)
    assert two_passes(1)[0] not in two_passes(2)


@pytest.mark.parametrize(("photos", "batch_size", "batches"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_number_of_feature_batches_is_known(photos: int, batch_size: int, batches: int) -> None:
    dataset = feature_batches(marked_views(photos, 1), np.zeros(photos, "int32"), batch_size)
    assert int(dataset.cardinality()) == batches


def test_vectors_are_read_from_a_mapped_file(tmp_path: Path) -> None:
    np.save(tmp_path / "view.npy", marked_views(10, 1)[0])
    mapped = np.load(tmp_path / "view.npy", mmap_mode="r")
    vectors, _ = in_one(feature_batches([mapped, mapped], np.zeros(10, "int32"), 4, seed=1))
    assert sorted(vectors[:, 0]) == list(range(10))


def test_part_of_a_mapped_file_stays_that_part(tmp_path: Path) -> None:
    np.save(tmp_path / "view.npy", marked_views(10, 1)[0])
    part = np.load(tmp_path / "view.npy", mmap_mode="r")[5:]
    vectors, _ = in_one(feature_batches([part], np.zeros(5, "int32"), 4))
    assert vectors[:, 0].tolist() == [5, 6, 7, 8, 9]


def test_vectors_are_read_from_several_files(tmp_path: Path) -> None:
    pieces = [piece_of(tmp_path / "view.npy", *rows, 10) for rows in ((0, 4), (4, 10))]
    for piece in pieces:
        np.save(piece.file, marked_views(10, 1)[0][piece.start : piece.stop])
    view, numbers = opened(pieces), np.zeros(10, "int32")
    np.testing.assert_array_equal(in_one(feature_batches([view], numbers, 4))[0], view)
    vectors, _ = in_one(feature_batches([view, view], numbers, 4, seed=1))
    assert sorted(vectors[:, 0]) == list(range(10))


def test_passes_go_on_where_an_earlier_run_stopped() -> None:
    augmented_copies, numbers = marked_views(50, 3), np.zeros(50, "int32")
    whole = feature_batches(augmented_copies, numbers, 8, seed=1)
    _, second = in_one(whole)[0], in_one(whole)[0]
    later = feature_batches(augmented_copies, numbers, 8, seed=1, first_pass=1)
    np.testing.assert_array_equal(in_one(later)[0], second)


def test_maps_in_half_precision_become_float32_with_rows_of_labels() -> None:
    maps = np.arange(24, dtype="float16").reshape(2, 2, 2, 3)
    found, labels = in_one(one_hot(feature_batches([maps], np.array([2, 0], "int32"), 2), 3))
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, maps)
    np.testing.assert_array_equal(labels, [[0, 0, 1], [1, 0, 0]])
