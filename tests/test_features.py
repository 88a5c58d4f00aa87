"""Tests of features: their numbers, what is computed once, chunks, workers and the command."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fashion_keras.backend import keras
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import load_split
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.features import Chunks, FeatureStore, main
from fashion_keras.model import FEATURES, build_feature_model
from tests.conftest import small_backbone

# Chunks of 255 photos: the 40 photos of training are one of them.
CONFIG = Config(image_size=71, feature_batch_size=5)


@pytest.fixture
def store(prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path) -> FeatureStore:
    """Open a store without any features."""
    return FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a chunk hold 15 photos: the 40 of training are three chunks, of 15, 15 and 10."""
    monkeypatch.setattr("fashion_keras.features._PHOTOS", 15)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> None:
        raise AssertionError("photos were read again")

    monkeypatch.setattr("fashion_keras.data.batches.load_photos", read)


def arrays_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("features/*.npy"))


def test_copy_0_is_what_the_bare_model_gives(
    store: FeatureStore, prepared: Prepared, tiny_backbone: keras.Model
) -> None:
    model = build_feature_model(tiny_backbone)
    batches = [pixels for pixels, _ in load_split(prepared, "validation", 71, 5)]
    expected = np.concatenate([model(pixels)["features"] for pixels in batches])
    features = store.features("validation")
    assert (features.shape, features.dtype) == ((20, FEATURES), "float32")
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_copies_differ_for_every_photo(store: FeatureStore) -> None:
    plain, first, second = (np.array(store.features("validation", copy)) for copy in range(3))
    for one, other in [(plain, first), (plain, second), (first, second)]:
        assert (np.abs(one - other).max(axis=1) > 1e-3).all()


def test_second_call_computes_nothing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store.missing("validation", 1) == 20
    first = store.features("validation", 1)
    assert store.missing("validation", 1) == 0
    forbid_reading(monkeypatch)
    capsys.readouterr()
    np.testing.assert_array_equal(store.features("validation", 1), first)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("copy", [0, 2])
def test_chunks_are_made_in_any_order_and_only_where_missing(
    copy: int,
    small_chunks: None,
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = np.array(store.features("train", copy))
    first, second, third = arrays_in(store.folder.parent)
    for removed in ([first], [second, third], [first, third]):
        kept = {file: file.read_bytes() for file in {first, second, third} - set(removed)}
        for file in removed:
            file.unlink()
        capsys.readouterr()
        np.testing.assert_array_equal(store.features("train", copy), expected)
        assert {file: file.read_bytes() for file in kept} == kept
        left = capsys.readouterr().out
        assert left.startswith("found the features of ")
    assert "found the features of 15 of 40 photos" in left or "10 of 40" in left


def test_an_interruption_keeps_finished_chunks(
    small_chunks: None, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(store.features("train", 1))
    shutil.rmtree(store.folder)
    real, calls = np.save, []

    def save(file: Path, array: np.ndarray) -> None:
        calls.append(file)
        if len(calls) == 2:
            real(file, array[:3])
            raise KeyboardInterrupt
        real(file, array)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", save)
        with pytest.raises(KeyboardInterrupt):
            store.features("train", 1)
    assert (len(arrays_in(store.folder.parent)), store.missing("train", 1)) == (1, 25)
    np.testing.assert_array_equal(store.features("train", 1), expected)


def test_a_copy_does_not_depend_on_other_chunks(
    small_chunks: None, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    whole = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "whole").features("train", 1)
    later = [photo for photo in prepared.photos if photo not in prepared.split("train")[:15]]
    part = FeatureStore(
        prepared._replace(photos=later), CONFIG, tiny_backbone, tmp_path / "part"
    ).features("train", 1)
    np.testing.assert_array_equal(part, whole[15:])


def test_feature_maps_and_features_come_together(
    store: FeatureStore,
    prepared: Prepared,
    tiny_backbone: keras.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "other")
    expected = alone.features("validation", 1)
    maps = store.feature_maps("validation", 1, "block13")
    assert (maps.shape, maps.dtype) == ((20, 5, 5, FEATURES), "float16")
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(store.features("validation", 1), expected)
    # The block of the tiny backbone changes nothing, so pooled feature maps are features.
    np.testing.assert_allclose(maps[:].astype("float32").mean(axis=(1, 2)), expected, atol=1e-3)


def test_features_that_exist_are_not_written_again_with_feature_maps(store: FeatureStore) -> None:
    marked = np.full_like(store.features("validation", 1), 7)
    np.save(arrays_in(store.folder.parent)[0], marked)
    store.feature_maps("validation", 1, "block13")
    np.testing.assert_array_equal(store.features("validation", 1), marked)


def test_many_features_stay_on_disk(
    small_chunks: None, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.features("train")
    monkeypatch.setattr("fashion_keras.features._IN_MEMORY", 1000)
    chunks = store.features("train")
    assert isinstance(chunks, Chunks)
    assert (len(chunks), chunks.shape, chunks.dtype) == (40, whole.shape, whole.dtype)
    mask = np.arange(40) % 3 == 0
    for rows in (0, -1, slice(None), slice(10, 35, 4), np.array([39, 0, 15, 14]), mask):
        np.testing.assert_array_equal(chunks[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(chunks), whole)


@pytest.mark.parametrize("value", [1e5, np.inf])
def test_numbers_that_half_precision_cannot_hold_are_refused(
    value: float, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    kernel, bias, *block = tiny_backbone.get_weights()
    bias[5] = value
    tiny_backbone.set_weights([kernel, bias, *block])
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    with pytest.raises(RuntimeError, match="numbers that float(16|32) cannot"):
        store.feature_maps("validation", 0, "block13")
    assert arrays_in(tmp_path) == []


def test_full_disk_is_said_before_any_photo_is_read(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.feature_maps("train", 1, "block13")
    forbid_reading(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    # What is left: 40 + 20 feature maps of 5 x 5 x 2048 numbers of 2 bytes.
    with pytest.raises(InputError, match=r"keeps 6\.1 MB of feature maps .* where 5\.0 MB are fr"):
        store.make_feature_maps(1, "block13")


def test_half_precision_gives_other_features_where_it_is_in_force(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.model.precision_in_force", lambda wanted: wanted)
    exact, near = (
        np.asarray(
            FeatureStore(
                prepared, dataclasses.replace(CONFIG, precision=one), small_backbone(), tmp_path
            ).features("validation")
        )
        for one in ("float32", "mixed_bfloat16")
    )
    assert 1e-5 < np.abs(near - exact).max() < 0.02


@pytest.mark.slow
def test_several_workers_make_the_same_bytes(
    small_chunks: None, prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    made = []
    for workers in (1, 2):
        cache = tmp_path / str(workers)
        store = FeatureStore(prepared, CONFIG, tiny_backbone, cache, workers)
        store.make([("train", 1), ("validation", 0)], "block13")
        made.append({file.name: file.read_bytes() for file in arrays_in(cache)})
    assert len(made[0]) == 2 * (3 + 2)
    assert made[0] == made[1]


@pytest.fixture
def words(
    sample_folder: Path, tmp_path: Path, tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return the common words of the command; the backbone is tiny."""
    monkeypatch.setattr("fashion_keras.model.build_backbone", lambda weights: tiny_backbone)
    monkeypatch.setattr("fashion_keras.model.check_weights", lambda weights: None)
    return ["--data", str(sample_folder), "--cache", str(tmp_path), "--image-size", "71"]


def test_the_command_makes_what_a_search_needs_and_no_features_of_the_test(
    words: list[str], sample_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*words, "--augmented-copies", "2"])
    shapes = [np.load(file, mmap_mode="r").shape for file in arrays_in(tmp_path)]
    assert sorted(shapes) == [(20, FEATURES), *[(40, FEATURES)] * 3]
    assert "now run: python -m tuning.search --data" in capsys.readouterr().out
    with_maps = ["--feature-maps", "--fine-tune-from", "block13", "--fine-tuning-copies", "0"]
    main([*words, *with_maps])
    assert len(arrays_in(tmp_path)) == 4 + 2
    assert "now run: python -m fashion_keras.final" in capsys.readouterr().out
    prepared = prepare(str(sample_folder), tmp_path)
    assert len(prepared.split("train")) == 40


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (["--feature-maps", "--fine-tune-from", "pixels"], "such as `--fine-tune-from block11`"),
        (["--fine-tune-from", "block1"], "`fine_tune_from` must be `auto`, `pixels` or one of"),
        (["--weights", "no.h5"], "No weights file no.h5"),
    ],
)
def test_what_cannot_work_is_refused_before_photos_are_looked_for(
    more: list[str], advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASHION_KERAS_WEIGHTS", raising=False)
    with pytest.raises(InputError, match=advice):
        main(["--data", "nowhere", "--cache", str(tmp_path), *more])
