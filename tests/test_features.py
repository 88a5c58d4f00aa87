"""Tests of features: their numbers, what is computed once, chunks, workers and the command."""

import dataclasses
import itertools
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import load_split
from fashion_keras.features import Chunks, FeatureStore, main
from fashion_keras.model import build_feature_model
from tests.builders import needs_openvino
from tests.conftest import FEATURES, small_backbone

# Chunks of 255 photos: the 40 photos of training are one of them.
CONFIG = Config(image_size=71, feature_batch_size=5)


@pytest.fixture
def store(prepared, tiny_backbone, tmp_path):
    """Open a store without any features."""
    return FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)


@pytest.fixture
def small_chunks(monkeypatch):
    """Let a chunk hold 15 photos: the 40 of training are three chunks, of 15, 15 and 10."""
    monkeypatch.setattr("fashion_keras.features._PHOTOS", 15)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> None:
        raise AssertionError("photos were read again")

    monkeypatch.setattr("fashion_keras.data.batches.load_photos", read)


def arrays_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("features/*.npy"))


def test_copy_0_is_what_the_bare_model_gives(store, prepared, tiny_backbone):
    model = build_feature_model(tiny_backbone)
    batches = [pixels for pixels, _ in load_split(prepared, "validation", 71, 5)]
    expected = np.concatenate([model(pixels)["features"] for pixels in batches])
    features = store.features("validation")
    assert (features.shape, features.dtype) == ((20, FEATURES), "float32")
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_speed_is_measured_on_batches_of_one_size(prepared, tiny_backbone, tmp_path, monkeypatch):
    store = FeatureStore(
        prepared, dataclasses.replace(CONFIG, feature_batch_size=16), tiny_backbone, tmp_path
    )
    sizes: list[int] = []
    empty = {"features": np.zeros((16, FEATURES))}
    monkeypatch.setattr(store, "run", lambda block: lambda batch: sizes.append(len(batch)) or empty)
    assert store.photos_per_second() == store.photos_per_second() > 0
    assert sizes == [16, 16]  # Of 40 photos.


def test_copies_differ_for_every_photo_and_are_computed_once(store, monkeypatch, capsys):
    copies = [np.array(store.features("validation", copy)) for copy in range(3)]
    for one, other in itertools.combinations(copies, 2):
        assert (np.abs(one - other).max(axis=1) > 1e-3).all()
    assert (store.missing("validation", 2), store.missing("validation", 3)) == (0, 20)
    forbid_reading(monkeypatch)
    capsys.readouterr()
    np.testing.assert_array_equal(store.features("validation", 2), copies[2])
    assert capsys.readouterr().out == ""


def test_chunks_are_made_in_any_order_and_only_where_missing(small_chunks, store, capsys):
    expected = np.array(store.features("train", 2))
    first, second, third = arrays_in(store.folder.parent)
    for removed in ([first], [second, third], [first, third]):
        kept = {file: file.read_bytes() for file in {first, second, third} - set(removed)}
        for file in removed:
            file.unlink()
        capsys.readouterr()
        np.testing.assert_array_equal(store.features("train", 2), expected)
        assert {file: file.read_bytes() for file in kept} == kept
        found = sum(len(np.load(file)) for file in kept)
        assert f"found the features of {found} of 40 photos and copies" in capsys.readouterr().out


def test_an_interruption_keeps_finished_chunks(small_chunks, store, monkeypatch):
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


def test_a_copy_does_not_depend_on_other_chunks(small_chunks, prepared, tiny_backbone, tmp_path):
    whole = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "whole").features("train", 1)
    later = [photo for photo in prepared.photos if photo not in prepared.split("train")[:15]]
    part = FeatureStore(
        prepared._replace(photos=later), CONFIG, tiny_backbone, tmp_path / "part"
    ).features("train", 1)
    np.testing.assert_array_equal(part, whole[15:])


def test_feature_maps_and_features_come_together(store, monkeypatch):
    expected = np.array(store.features("validation", 1))
    shutil.rmtree(store.folder)
    maps = store.feature_maps("validation", 1, "block13")
    assert (maps.shape, maps.dtype) == ((20, 5, 5, FEATURES), "float16")
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(store.features("validation", 1), expected)
    # The block of the tiny backbone changes nothing, so pooled feature maps are features.
    np.testing.assert_allclose(maps[:].astype("float32").mean(axis=(1, 2)), expected, atol=1e-3)


def test_features_that_exist_are_not_written_again_with_feature_maps(store):
    marked = np.full_like(store.features("validation", 1), 7)
    np.save(arrays_in(store.folder.parent)[0], marked)
    store.feature_maps("validation", 1, "block13")
    np.testing.assert_array_equal(store.features("validation", 1), marked)


def test_many_features_stay_on_disk(small_chunks, store, monkeypatch):
    whole = store.features("train")
    monkeypatch.setattr("fashion_keras.features._IN_MEMORY", 1000)
    chunks = store.features("train")
    assert isinstance(chunks, Chunks)
    assert (len(chunks), chunks.shape, chunks.dtype) == (40, whole.shape, whole.dtype)
    mask = np.arange(40) % 3 == 0
    for rows in (0, -1, slice(None), slice(10, 35, 4), np.array([39, 0, 15, 14]), mask):
        np.testing.assert_array_equal(chunks[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(chunks), whole)
    elsewhere = pickle.loads(pickle.dumps(chunks))  # noqa: S301
    shutil.rmtree(store.folder)  # Another computer may not have the files.
    np.testing.assert_array_equal(elsewhere, whole)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_numbers_that_half_precision_cannot_hold_are_refused(prepared, tiny_backbone, tmp_path):
    kernel, bias, *block = tiny_backbone.get_weights()
    tiny_backbone.set_weights([kernel, bias + 1e5, *block])
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    with pytest.raises(RuntimeError, match="numbers that are too large to be kept"):
        store.feature_maps("validation", 0, "block13")
    assert arrays_in(tmp_path) == []


def test_full_disk_is_said_before_any_photo_is_read(store, monkeypatch):
    store.feature_maps("train", 1, "block13")
    forbid_reading(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    # What is left: 40 + 20 feature maps of 5 x 5 x 2048 numbers of 2 bytes.
    with pytest.raises(InputError, match=r"keeps 6\.1 MB in .* where 5\.0 MB are fr"):
        store.make_feature_maps(1, "block13")


def test_half_precision_gives_other_features_where_it_is_in_force(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("fashion_keras.model.precision_in_force", lambda wanted: wanted)
    found = []
    for precision in ("float32", "mixed_bfloat16"):
        config = dataclasses.replace(CONFIG, precision=precision)
        store = FeatureStore(prepared, config, small_backbone(), tmp_path)
        found.append(np.asarray(store.features("validation")))
    assert 1e-5 < np.abs(found[0] - found[1]).max() < 0.02


@pytest.fixture
def openvino(monkeypatch):
    """Let OpenVINO be worth it for any number of photos."""
    needs_openvino()
    monkeypatch.setattr("fashion_keras.engine._WORTH_CONVERTING", 0)


@pytest.mark.slow
def test_openvino_gives_what_keras_gives_with_feature_maps_and_without(
    store, openvino, prepared, tiny_backbone, tmp_path
):
    converted = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    assert (store.engine, converted.engine[:9]) == ("keras", "openvino ")
    maps = converted.feature_maps("validation", 1, "block13")[:]
    features = converted.features("validation", 1)
    np.testing.assert_allclose(features, store.features("validation", 1), atol=1e-5)
    expected = store.feature_maps("validation", 1, "block13")[:]
    np.testing.assert_allclose(maps, expected, atol=1e-2)  # Rounded to half precision.
    assert len(arrays_in(tmp_path)) == 2 * 2
    for file in converted._files("validation", 1):
        file.unlink()
    np.testing.assert_array_equal(converted.features("validation", 1), features)


def test_features_go_on_with_the_engine_that_they_were_begun_with(
    small_chunks, store, openvino, prepared, tiny_backbone, tmp_path
):
    store.features("train", 0)
    for file in arrays_in(tmp_path)[1:]:
        file.unlink()
    assert FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path).engine == "keras"
    other = dataclasses.replace(CONFIG, image_size=80)
    assert FeatureStore(prepared, other, tiny_backbone, tmp_path).engine != "keras"
    arrays_in(tmp_path)[0].unlink()
    assert FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path).engine != "keras"


def test_features_are_named_for_keras_where_the_backbone_cannot_be_converted(
    openvino, prepared, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr("fashion_keras.engine.converted", lambda *arguments: None)
    hoped = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    assert hoped.engine != "keras"
    hoped.features("validation")
    assert hoped.engine == "keras"
    monkeypatch.setattr("fashion_keras.engine._on_cpu", lambda: False)
    plain = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    assert arrays_in(tmp_path) == plain._files("validation", 0)


def test_workers_of_a_cluster_may_have_graphics_cards(
    openvino, prepared, tiny_backbone, tmp_path, monkeypatch
):
    engines = []
    for address in ("local", "ray://elsewhere:1"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        engines.append(FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path, 2).engine)
    assert (engines[0][:9], engines[1]) == ("openvino ", "keras")
    monkeypatch.setattr("fashion_keras.engine._WORTH_CONVERTING", 1e9)  # For few photos, too.
    assert FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path, 2).engine == "keras"


@pytest.fixture
def words(sample_folder, tmp_path, tiny_backbone, monkeypatch):
    """Return the common words of the command; the backbone is tiny."""
    monkeypatch.setattr("fashion_keras.model.build_backbone", lambda config: tiny_backbone)
    monkeypatch.setattr("fashion_keras.model.check_weights", lambda config: None)
    return ["--data", str(sample_folder), "--cache", str(tmp_path), "--image-size", "71"]


def test_the_command_makes_what_a_search_needs_and_no_features_of_the_test(words, tmp_path, capsys):
    main([*words, "--augmented-copies", "2"])
    shapes = [np.load(file, mmap_mode="r").shape for file in arrays_in(tmp_path)]
    assert sorted(shapes) == [(20, FEATURES), *[(40, FEATURES)] * 3]
    assert "now run: python -m tuning.search --data" in capsys.readouterr().out
    main([*words, "--image-size", "150", "--augmented-copies", "0"])
    assert "--image-size" not in capsys.readouterr().out  # A search has it anyway.
    with_maps = ["--feature-maps", "--fine-tune-from", "block13", "--fine-tuning-copies", "0"]
    main([*words, *with_maps])
    assert len(arrays_in(tmp_path)) == 4 + 2 + 2
    assert "now run: python -m fashion_keras.final" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (["--feature-maps", "--fine-tune-from", "pixels"], "--fine-tune-from block5`, or another"),
        (
            ["--fine-tune-from", "block1"],
            "`fine_tune_from` must be `auto`, `pixels`, or the beginning of",
        ),
        (["--weights", "no.h5"], "No weights file no.h5"),
    ],
)
def test_what_cannot_work_is_refused_before_photos_are_read(more, advice, tmp_path, monkeypatch):
    monkeypatch.delenv("FASHION_KERAS_WEIGHTS", raising=False)
    with pytest.raises(InputError, match=advice):
        main(["--data", "nowhere", "--cache", str(tmp_path), *more])
