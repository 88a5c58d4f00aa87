"""Tests of the benchmark for graphics cards, on the CPU: its pack and what it measures."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.config import Config, InputError
from tests.benchmarks import gpu, gpu_pack
from tests.benchmarks.common import provenance
from tests.builders import opened


@pytest.fixture
def datasets(prepared, tiny_backbone, tmp_path):
    """Return the drawn photos with a tiny backbone."""
    return opened(prepared, tiny_backbone, tmp_path, Config(image_size=71))


def packed(folder, datasets, monkeypatch):
    """Pack without wheels, in pieces of 300 kB."""
    monkeypatch.setattr("fashion_keras.training.prepare_datasets", lambda *_: datasets)
    monkeypatch.setattr(gpu_pack, "PIECE", 300_000)
    monkeypatch.setattr(sys, "path", [*sys.path])
    gpu_pack.pack(Config(), folder, folder / "pack", "3.12", [])
    return folder / "pack"


def test_a_pack_holds_all_but_the_test_and_loads_in_float32(
    datasets, tiny_backbone, tmp_path, monkeypatch
):
    fields = gpu_pack.unpack(packed(tmp_path, datasets, monkeypatch), tmp_path)
    assert fields["backbone"] == "xception"
    photos = [photo.prepared for photo in datasets.prepared.photos if photo.split != "test"]
    files = [file.relative_to(fields["data"]) for file in Path(fields["data"]).glob("*/*/*.jpg")]
    assert sorted(file.as_posix()[:-4] for file in files) == sorted(name[:-4] for name in photos)
    exact = tiny_backbone.get_weights()
    tiny_backbone.load_weights(fields["weights"])
    for one, other in zip(exact, tiny_backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one.astype("float16").astype("float32"), other)
    assert Path(fields["weights"]).stat().st_size < 0.6 * sum(one.nbytes for one in exact)


def test_missing_or_damaged_pieces_are_refused(datasets, tmp_path, monkeypatch):
    pack = packed(tmp_path, datasets, monkeypatch)
    first, second, *_ = sorted(pack.iterdir())
    content = second.read_bytes()
    second.write_bytes(content[::-1])
    with pytest.raises(InputError, match="damaged"):
        gpu_pack.unpack(pack, tmp_path)
    second.unlink()
    with pytest.raises(InputError, match=r"Expected \d+ pieces of a pack in .*pack. Received: \d"):
        gpu_pack.unpack(pack, tmp_path)


def test_no_saved_model_is_packed(tmp_path):
    for weights in ("released", "mine.keras"):
        with pytest.raises(InputError, match="not those of a saved model"):
            gpu_pack.pack(Config(weights=weights), tmp_path, tmp_path, "3.12", [])


def test_what_was_found_is_kept_by_part(tmp_path):
    for part, found in (("jax", {"a": 1}), ("torch", {"a": 2}), ("jax", {"b": 3})):
        gpu.keep(tmp_path, part, found)
    kept = json.loads((tmp_path / "benchmarks" / "gpu.json").read_text())
    run = kept["torch"].pop("run")
    assert run["command"] == provenance()["command"]
    assert (kept["jax"].keys(), kept["torch"]) == ({"a", "b", "run"}, {"a": 2})


def test_recipes_are_checked_before_anything_is_measured(tmp_path):
    file = tmp_path / "recipes.json"
    file.write_text('[{"batch_size": 64}, {"zoom": 0.2}]')
    base = dataclasses.replace(gpu.BASE, image_size=71)
    found = gpu.read_recipes(file, base)
    assert [gpu.differences(one) for one in found] == [
        {"image_size": 71, "batch_size": 64},
        {"image_size": 71, "zoom": 0.2},
    ]
    for wrong in ("{", '{"zoom": 0.2}', '[{"zom": 1}]', '[{"zoom": "x"}]'):
        file.write_text(wrong)
        with pytest.raises(InputError, match="Expected a JSON list of objects of fields in"):
            gpu.read_recipes(file, base)


@pytest.mark.slow
def test_speeds_and_recipes_are_measured(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr("fashion_keras.training.prepare_datasets", lambda *_: datasets)
    config = dataclasses.replace(gpu.BASE, image_size=71, batch_size=8, feature_batch_size=8)
    found: dict[str, Any] = {}
    gpu.measure_speeds(config, tmp_path, 0.01, found.update)
    for name in ("features", "fine_tuning_augmented", "fine_tuning_as_they_are"):
        speeds = found[name]["photos_per_second"]
        assert min(speeds.values()) > 0
        used = {
            one: pytest.approx(speeds[one] / speeds["bare"], rel=0.05, abs=6e-4)
            for one in found[name]["used"]
        }
        assert found[name]["used"] == used
    recipe = dataclasses.replace(config, epochs=1, fine_tuning_epochs=1)
    gpu.train_recipes([recipe], tmp_path, found.update)
    (row,) = found["rows"]
    assert list(row["stages"]) == ["head", "epoch 1", "fine-tuning"]
    assert row["stages"]["epoch 1"]["accuracy"] == row["stages"]["fine-tuning"]["accuracy"]


def test_a_recipe_that_cannot_be_trained_does_not_end_the_others(tmp_path):
    recipes = [dataclasses.replace(gpu.BASE, weights=file) for file in ("1.h5", "2.h5")]
    found: dict[str, Any] = {}
    gpu.train_recipes(recipes, tmp_path, found.update)
    assert ["1.h5" in row["error"] for row in found["rows"]] == [True, False]
