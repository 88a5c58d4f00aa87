"""Tests of the vectors: their numbers, what their key covers, and that only whole ones are used."""

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras.backbone import VECTOR_SIZE
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import load_photos, load_split
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_feature_model
from fashion_keras.pieces import Shard

CONFIG = Config(image_size=71, batch_size=8)


@pytest.fixture
def store(prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path) -> FeatureStore:
    """Open a store without any vectors."""
    return FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> None:
        raise AssertionError("photos were read again")

    monkeypatch.setattr("fashion_keras.features.load_photos", read)


def break_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> Iterator:
        yield from itertools.islice(load_photos(*arguments), batches)
        raise KeyboardInterrupt

    monkeypatch.setattr("fashion_keras.features.load_photos", read)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "vectors-1").iterdir())


def test_vectors_are_one_row_a_photo(store: FeatureStore) -> None:
    vectors = store.vectors("validation")
    assert (vectors.shape, vectors.dtype) == ((20, VECTOR_SIZE), "float32")
    assert isinstance(vectors, np.memmap)


def test_view_0_is_what_the_bare_model_gives(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    model = build_feature_model(tiny_backbone)
    batches = [pixels for pixels, _ in load_split(prepared, "validation", 71, 8)]
    expected = np.concatenate([model(pixels)["vectors"] for pixels in batches])
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(store.vectors("validation"), expected, atol=1e-6)


def test_views_differ_for_every_photo(store: FeatureStore) -> None:
    plain, first, second = (np.array(store.vectors("validation", view)) for view in range(3))
    for one, other in [(plain, first), (plain, second), (first, second)]:
        assert (np.abs(one - other).max(axis=1) > 1e-3).all()


def test_same_view_is_the_same_in_another_store(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    again = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "other")
    np.testing.assert_array_equal(store.vectors("validation", 2), again.vectors("validation", 2))


def test_second_call_computes_nothing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = np.array(store.vectors("validation", 1))
    forbid_reading(monkeypatch)
    capsys.readouterr()
    np.testing.assert_array_equal(store.vectors("validation", 1), first)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("change", [{"image_size": 72}, {"batch_size": 9}])
def test_key_covers_what_decides_all_views(
    view: int, change: dict, store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    config = dataclasses.replace(CONFIG, **change)
    other = FeatureStore(prepared, config, tiny_backbone, Path())
    assert other.key("train", view) != store.key("train", view)


@pytest.mark.parametrize("change", [{"rotation": 0.04}, {"zoom": 0.2}, {"seed": 2}])
def test_key_covers_augmentation_in_augmented_views_only(
    change: dict, store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    config = dataclasses.replace(CONFIG, **change)
    other = FeatureStore(prepared, config, tiny_backbone, Path())
    assert other.key("train", 1) != store.key("train", 1)
    assert other.key("train") == store.key("train")


def test_key_passes_over_knobs_of_the_head(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    config = Config(
        image_size=71, batch_size=8, augmented_copies=3, inner_size=7, learning_rate=0.1
    )
    assert FeatureStore(prepared, config, tiny_backbone, Path()).key("train", 1) == store.key(
        "train", 1
    )


def test_key_tells_views_and_splits_apart(store: FeatureStore) -> None:
    keys = {store.key(split, view) for split in ("train", "validation") for view in range(3)}
    assert len(keys) == 6


def test_key_covers_the_weights(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    *others, bias = tiny_backbone.get_weights()
    bias[-1] += 1e-6
    tiny_backbone.set_weights([*others, bias])
    assert FeatureStore(prepared, CONFIG, tiny_backbone, Path()).key("train") != store.key("train")


def test_key_covers_the_bytes_of_each_photo(
    sample_folder: Path, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for place in ("train/hat", "train/dress", "validation/hat"):
        shutil.copytree(sample_folder / place, photos / place)

    def key(split: str) -> str:
        return FeatureStore(prepare(str(photos), tmp_path), CONFIG, tiny_backbone, tmp_path).key(
            split
        )

    before = key("train"), key("validation")
    changed = sorted((photos / "train" / "hat").iterdir())[-1]
    changed.write_bytes(changed.read_bytes() + b"\0")  # Behind a JPEG's end: the same pixels.
    assert key("train") != before[0]
    assert key("validation") == before[1]


@pytest.mark.parametrize("view", [0, 2])
def test_interrupted_view_goes_on_after_its_whole_batches(
    view: int,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = np.array(store.vectors("validation", view))
    shutil.rmtree(tmp_path / "vectors-1")
    with monkeypatch.context() as patch:
        break_after(2 if view else 1, patch)  # Of a view one batch is augmented ahead.
        with pytest.raises(KeyboardInterrupt):
            store.vectors("validation", view)
    assert store.missing("validation", view)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        forwarded = count_forwarded(patch)
        np.testing.assert_array_equal(store.vectors("validation", view), expected)
    assert forwarded == [8, 4]  # The first batch of eight is kept.
    assert "going on after 8 photos" in capsys.readouterr().out
    assert files_in(tmp_path) == [f"{store.key('validation', view)}.npy"]


def test_view_that_was_stopped_after_its_last_batch_gets_its_name(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(store.vectors("validation"))
    next(store.folder.iterdir()).unlink()
    with monkeypatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            store.vectors("validation")
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(store.vectors("validation"), expected)


def count_forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that will hold the sizes of all batches that go through the backbone."""
    sizes: list[int] = []

    def build(*arguments: Any) -> Any:
        model = build_feature_model(*arguments)
        real = model.predict_on_batch

        def predict(pixels: Any) -> Any:
            sizes.append(len(pixels))
            return real(pixels)

        monkeypatch.setattr(model, "predict_on_batch", predict)
        return model

    monkeypatch.setattr("fashion_keras.forward.build_feature_model", build)
    return sizes


def test_maps_and_vectors_that_stopped_apart_go_on_together(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = np.array(store.maps("validation", 0, "block13"))
    vectors = np.array(store.vectors("validation"))
    shutil.rmtree(tmp_path / "vectors-1")
    with monkeypatch.context() as patch:
        break_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            store.vectors("validation")
    np.testing.assert_array_equal(store.maps("validation", 0, "block13"), maps)
    np.testing.assert_array_equal(store.vectors("validation"), vectors)


def test_shards_are_read_as_one_array_to_the_last_bit(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    whole = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "whole")
    for number in (3, 1, 2):  # 40 photos are five batches of eight.
        store.make("train", 1, "block13", Shard(number, 3))
    assert not store.missing("train", 1, "block13")
    assert not store.missing("train", 1)
    np.testing.assert_array_equal(
        store.maps("train", 1, "block13"), whole.maps("train", 1, "block13")
    )
    np.testing.assert_array_equal(store.vectors("train", 1), whole.vectors("train", 1))
    assert len(files_in(tmp_path)) == 6
    assert {name.split(".", 1)[1] for name in files_in(tmp_path)} == {
        "0-8.npy",
        "8-24.npy",
        "24-40.npy",
    }


def test_a_shard_computes_its_own_photos_alone_and_what_is_missing_is_made(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarded = count_forwarded(monkeypatch)
    store.make("train", 2, None, Shard(2, 2))
    assert forwarded == [8] * 3
    store.make("train", 2, None, Shard(2, 2))
    store.make("train", 2, None, Shard(5, 5))
    assert forwarded == [8] * 3
    assert store.missing("train", 2)
    assert store.vectors("train", 2).shape == (40, VECTOR_SIZE)
    assert forwarded == [8] * 5


def test_more_shards_than_batches_leave_some_without_work(store: FeatureStore) -> None:
    for number in range(1, 9):
        store.make("validation", 0, None, Shard(number, 8))
    assert not store.missing("validation", 0)


def test_an_interrupted_shard_goes_on(
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = np.array(store.vectors("train", 1))
    shutil.rmtree(tmp_path / "vectors-1")
    with monkeypatch.context() as patch:
        break_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            store.make("train", 1, None, Shard(2, 2))
    forwarded = count_forwarded(monkeypatch)
    np.testing.assert_array_equal(store.vectors("train", 1), expected)
    assert forwarded == [8] * 4  # Two before the shard, two that are left of it.
    assert "view 1, photos 17 to 40: going on after 8 photos" in capsys.readouterr().out


def test_leftover_of_a_killed_run_is_not_used(store: FeatureStore, tmp_path: Path) -> None:
    expected = np.array(store.vectors("validation"))
    whole = tmp_path / "vectors-1" / f"{store.key('validation')}.npy"
    half = np.zeros((20, VECTOR_SIZE), "float32")
    whole.unlink()
    with whole.with_name(f".99999.tmp.{whole.name}").open("wb") as leftover:
        np.save(leftover, half)
    np.testing.assert_array_equal(store.vectors("validation"), expected)


def test_maps_and_vectors_come_from_one_pass(
    store: FeatureStore, tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.missing("validation", 1, "block13")
    assert store.missing("validation", 1)
    maps = np.array(store.maps("validation", 1, "block13"))
    assert (maps.shape, maps.dtype) == ((20, 5, 5, VECTOR_SIZE), "float16")
    forbid_reading(monkeypatch)
    assert not store.missing("validation", 1, "block13")
    vectors = store.vectors("validation", 1)
    # The block of the tiny backbone changes nothing, so pooled maps are vectors.
    np.testing.assert_allclose(vectors, maps.astype("float32").mean(axis=(1, 2)), atol=1e-3)


def test_vectors_beside_maps_are_those_made_alone(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    store.maps("validation", 1, "block13")
    alone = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "other")
    np.testing.assert_array_equal(store.vectors("validation", 1), alone.vectors("validation", 1))


def test_vectors_that_are_there_are_not_written_again_beside_maps(
    store: FeatureStore, tmp_path: Path
) -> None:
    marked = np.full_like(store.vectors("validation", 1), 7)
    np.save(tmp_path / "vectors-1" / f"{store.key('validation', 1)}.npy", marked)
    store.maps("validation", 1, "block13")
    np.testing.assert_array_equal(store.vectors("validation", 1), marked)


def test_backbone_that_was_trained_on_makes_no_features(
    store: FeatureStore, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    finished = np.array(store.vectors("validation"))
    *others, bias = tiny_backbone.get_weights()
    bias[-1] += 1e-6
    tiny_backbone.set_weights([*others, bias])
    with pytest.raises(RuntimeError, match="was trained on"):
        store.vectors("train")
    with pytest.raises(RuntimeError, match="was trained on"):
        store.maps("validation", 0, "block13")
    assert len(files_in(tmp_path)) == 1
    np.testing.assert_array_equal(store.vectors("validation"), finished)


@pytest.mark.parametrize("value", [1e5, np.inf])
def test_maps_that_half_precision_cannot_hold_are_refused(
    value: float, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    kernel, bias, *block = tiny_backbone.get_weights()
    bias[5] = value
    tiny_backbone.set_weights([kernel, bias, *block])
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    with pytest.raises(RuntimeError, match="numbers that float16 cannot hold"):
        store.maps("validation", 0, "block13")
    assert files_in(tmp_path) == []


def test_all_maps_for_fine_tuning_are_made_once(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.make_maps(1, "block13")
    assert len(files_in(tmp_path)) == 6  # Maps and vectors of two copies and of validation.
    forbid_reading(monkeypatch)
    store.make_maps(1, "block13")


def test_full_disk_is_said_before_any_photo_is_read(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_reading(monkeypatch)
    usage = shutil.disk_usage(Path())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
    # Two copies of 40 photos and one of 20: 100 maps of 5 x 5 x 2048 numbers of 2 bytes.
    with pytest.raises(InputError, match=r"keeps 10\.2 MB of maps .* where 5\.0 MB are free"):
        store.make_maps(1, "block13")
