"""Tests of fine-tuning: what it trains, from what, how its rate moves, and how it goes on."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras import fine_tuning
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.ensemble import Ensemble, train_ensemble
from fashion_keras.features import FeatureStore
from fashion_keras.files import only_one
from fashion_keras.fine_tuner import (
    build_fine_tuner,
    check_fine_tune_from,
    chosen_fine_tune_from,
    compile_fine_tuner,
)
from fashion_keras.fine_tuning import STAGE, fine_tune
from fashion_keras.model import build_head
from fashion_keras.training import Material
from tests.conftest import normalised_backbone

CONFIG = Config(
    image_size=71,
    batch_size=8,
    inner_size=0,
    fine_tuning_copies=1,
    fine_tuning_epochs=3,
    fine_tuning_learning_rate=0.01,
    fine_tune_from="block13",
)


@pytest.fixture
def material(prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path) -> Material:
    """Return the drawn photos with the tiny backbone."""
    return Material(
        prepared, tiny_backbone, FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    )


def start(material: Material, config: Config = CONFIG) -> Ensemble:
    """Return a head that was not trained, always the same."""
    keras.utils.set_random_seed(3)
    backbone, _ = material.frozen()
    row = {"stage": "head 1", "epoch": 1}
    return Ensemble(backbone, build_head(config, 10), [row], {"loss": 9.0, "accuracy": 0.0})


@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_fine_tuning_lowers_the_loss_and_moves_backbone_and_head(
    fine_tune_from: str, material: Material, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from, fine_tuning_epochs=6)
    begin = start(material)
    before = [*begin.backbone.get_weights(), *begin.head.get_weights()]
    tuned = fine_tune(config, material, begin, tmp_path)
    losses = [row["loss"] for row in tuned.history[1:]]
    assert losses[-1] < losses[0]
    after = [*tuned.backbone.get_weights(), *tuned.head.get_weights()]
    moved = [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    below = (
        fine_tune_from == "pixels"
    )  # Kernel and bias below the only block, then those of block and head.
    assert moved == [below, below, True, True, True, True]
    assert tuned.backbone.trainable_weights == []


def test_history_and_scores_are_those_of_the_last_pass(material: Material, tmp_path: Path) -> None:
    tuned = fine_tune(CONFIG, material, start(material), tmp_path)
    stages = [(row["stage"], row["epoch"]) for row in tuned.history]
    assert stages == [("head 1", 1), *(("fine-tuning", number) for number in (1, 2, 3))]
    last = tuned.history[-1]
    assert tuned.validation == {"loss": last["val_loss"], "accuracy": last["val_accuracy"]}


def test_rate_rises_then_falls_to_nothing(material: Material) -> None:
    config = dataclasses.replace(CONFIG, fine_tuning_epochs=4)
    trainer = build_fine_tuner(config, material, build_head(config, 10)).model
    compile_fine_tuner(trainer, config, steps=5)
    optimizer: Any = trainer.optimizer
    rates = [float(optimizer._learning_rate(step)) for step in range(21)]
    assert rates[0] == 0
    assert max(rates) == rates[2] == pytest.approx(0.01)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-6)


class KilledError(Exception):
    """Stands for a process that ends."""


def test_interrupted_run_goes_on_and_ends_as_one_that_was_not(
    prepared: Prepared,
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backbone, _ = material.frozen()
    original = backbone.get_weights()
    config = dataclasses.replace(CONFIG, droprate=0.5)
    whole = fine_tune(config, material, start(material, config), tmp_path / "whole")
    expected = [*whole.backbone.get_weights(), *whole.head.get_weights()]

    save = fine_tuning._Passes._save

    def kill_after_two(passes: Any) -> None:
        save(passes)
        if len(passes._rows) == 2:
            raise KilledError

    backbone.set_weights(original)
    monkeypatch.setattr(fine_tuning._Passes, "_save", kill_after_two)
    with pytest.raises(KilledError):
        fine_tune(config, material, start(material, config), tmp_path / "parts")
    monkeypatch.undo()
    backbone.set_weights(original)
    parts = fine_tune(config, material, start(material, config), tmp_path / "parts")
    assert "goes on after pass 2" in capsys.readouterr().out
    found = [*parts.backbone.get_weights(), *parts.head.get_weights()]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["epoch"] for row in parts.history[1:]] == [1, 2, 3]


def test_finished_run_is_not_done_again(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = material.frozen()
    original = backbone.get_weights()
    first = fine_tune(CONFIG, material, start(material), tmp_path)
    expected = backbone.get_weights()
    backbone.set_weights(original)
    monkeypatch.setattr(fine_tuning._Passes, "on_epoch_end", None)
    again = fine_tune(CONFIG, material, start(material), tmp_path)
    assert again.history == first.history
    for one, other in zip(backbone.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_maps_are_made_from_the_backbone_as_it_was(
    material: Material, tmp_path: Path
) -> None:
    backbone, _ = material.frozen()
    original = backbone.get_weights()
    first = fine_tune(CONFIG, material, start(material), tmp_path)
    made = {file.name: file.read_bytes() for file in (tmp_path / "vectors-1").iterdir()}
    shutil.rmtree(tmp_path / "vectors-1")
    backbone.set_weights(original)
    # The state of the finished passes is loaded only after the maps were made.
    again = fine_tune(CONFIG, material, start(material), tmp_path)
    assert again.history == first.history
    assert {file.name: file.read_bytes() for file in (tmp_path / "vectors-1").iterdir()} == made


def test_order_of_photos_does_not_depend_on_what_was_drawn_before(
    material: Material, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, fine_tune_from="pixels", fine_tuning_epochs=1)
    backbone, _ = material.frozen()
    original = backbone.get_weights()
    found = []
    for seed in (1, 2):
        backbone.set_weights(original)
        begin = start(material)
        keras.utils.set_random_seed(seed)
        found.append(fine_tune(config, material, begin, tmp_path / str(seed)).validation["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_another_configuration_starts_anew(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine_tune(CONFIG, material, start(material), tmp_path)
    fine_tune(dataclasses.replace(CONFIG, droprate=0.4), material, start(material), tmp_path)
    assert "goes on" not in capsys.readouterr().out


def test_divergence_is_said(material: Material, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, fine_tuning_learning_rate=10.0, fine_tuning_epochs=1)
    begin = start(material)
    begin.head.set_weights([np.full_like(weight, np.inf) for weight in begin.head.get_weights()])
    with pytest.raises(
        InputError, match="diverged in pass 1.*smaller `--fine-tuning-learning-rate`"
    ):
        fine_tune(config, material, begin, tmp_path)
    assert not list(tmp_path.rglob("*.weights.h5"))


class Second(keras.callbacks.Callback):
    """Stands for a second process at the same training; notes which states it could not have."""

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache = cache
        self.refused: list[str] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Try all states."""
        for lock in self.cache.glob("*/*.lock"):
            try:
                with only_one(lock, "training"):
                    pass
            except InputError:
                self.refused.append(lock.parent.name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_each_training_keeps_its_state_to_itself(material: Material, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, heads=1, epochs=1, fine_tuning_epochs=1)
    cache = tmp_path / "states"
    second = Second(cache)
    heads = train_ensemble(config, material, lambda stage: [second], cache)
    fine_tune(config, material, heads, cache, lambda stage: [second])
    assert second.refused == ["heads-1", "fine-tuning-2"]


def test_cut_follows_the_machine_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for devices, expected in (([], "block11"), (["gpu:0"], "pixels")):
        monkeypatch.setattr(keras.distribution, "list_devices", lambda kind, d=devices: d)
        assert chosen_fine_tune_from(Config()) == expected
        assert chosen_fine_tune_from(Config(fine_tune_from="block4")) == "block4"


def test_unknown_cut_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="`auto`, `pixels` or one of block2, .*Received: cut='add"):
        check_fine_tune_from(Config(fine_tune_from="add_10"))
    for fine_tune_from in ("auto", "pixels", "block2", "block14"):
        check_fine_tune_from(Config(fine_tune_from=fine_tune_from))


def test_damaged_state_is_named_and_the_training_begins_anew(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine_tune(CONFIG, material, start(material), tmp_path)
    (state,) = (tmp_path / "fine-tuning-2").glob("*.h5")
    state.write_bytes(state.read_bytes()[:100])
    capsys.readouterr()
    again = fine_tune(CONFIG, material, start(material), tmp_path)
    assert "weights.h5 is damaged (" in capsys.readouterr().out
    passes = [row for row in again.history if row["stage"] == STAGE]
    assert len(passes) == CONFIG.fine_tuning_epochs


def test_other_validation_photos_start_anew(
    prepared: Prepared, material: Material, tmp_path: Path
) -> None:
    fewer = prepared._replace(
        photos=[photo for photo in prepared.photos if photo.file != "validation/hat/001.jpg"]
    )
    backbone, _ = material.frozen()
    store = FeatureStore(fewer, CONFIG, backbone, tmp_path)
    files = {
        fine_tuning._state_file(config, one, tmp_path)
        for one in (material, Material(fewer, backbone, store))
        for config in (CONFIG, dataclasses.replace(CONFIG, data="elsewhere"))
    }
    assert len(files) == 2


@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_batch_normalisation_never_moves(
    fine_tune_from: str, prepared: Prepared, tmp_path: Path
) -> None:
    backbone = normalised_backbone()
    backbone.trainable = False
    material = Material(prepared, backbone, FeatureStore(prepared, CONFIG, backbone, tmp_path))
    before = backbone.get_layer("block13_bn").get_weights()
    kernel = backbone.get_layer("block13_conv").get_weights()[0]
    config = dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from, fine_tuning_epochs=1)
    fine_tune(config, material, start(material), tmp_path)
    assert not np.array_equal(backbone.get_layer("block13_conv").get_weights()[0], kernel)
    for one, other in zip(backbone.get_layer("block13_bn").get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
