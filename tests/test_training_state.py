"""Tests of the state of a training: however often it is stopped, it ends as if it had not been."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras import training_state
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared
from fashion_keras.training import Material, Trained, open_material, train
from fashion_keras.training_state import State, history_row, read_rows, size_of

CONFIG = Config(
    image_size=71, batch_size=8, inner_size=8, droprate=0.5, epochs=5, learning_rate=0.03
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where vectors stay from test to test."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def material(
    prepared: Prepared, tiny_backbone: keras.Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Material:
    """Open the drawn photos through the tiny backbone; states are kept after every epoch."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    monkeypatch.setattr(training_state, "_PAUSE", 0.0)
    return open_material(CONFIG, prepared, cache)


class Stop(keras.callbacks.Callback):
    """Stops the program at the beginning of an epoch, and notes the ends of all."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.seen: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Stop."""
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the epoch."""
        self.seen.append(epoch)


def same(one: Trained, other: Trained) -> bool:
    """Tell whether two trainings are the same to the last bit, but for their times."""
    rows = [[{**row, "seconds": 0} for row in trained.history] for trained in (one, other)]
    weights = [trained.parts.head.get_weights() for trained in (one, other)]
    return rows[0] == rows[1] and all(map(np.array_equal, *weights))


def stopped(config: Config, material: Material, file: Path, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, material, [Stop(epoch)], file=file)


@pytest.mark.parametrize("averaged", [0.0, 2.0])
def test_a_training_that_was_stopped_again_and_again_ends_as_an_undisturbed_one(
    averaged: float, material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, ema_epochs=averaged)
    quiet, file = train(config, material), tmp_path / "one.weights.h5"
    for epoch in (1, 2, 4):
        stopped(config, material, file, epoch)
    watcher = Stop(-1)
    assert same(train(config, material, [watcher], file=file), quiet)
    assert watcher.seen == [0, 1, 2, 3, 4]
    told = "found 4 epochs of a training, which goes on after them"
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_a_finished_training_is_not_done_again(
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "one.weights.h5"
    first = train(CONFIG, material, file=file)
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("it is trained again"))
    watcher = Stop(-1)
    assert same(train(CONFIG, material, [watcher], file=file), first)
    assert watcher.seen == [0, 1, 2, 3, 4]
    assert "found 5 epochs of a finished training" in capsys.readouterr().out


def test_patience_counts_on_where_it_was(material: Material, tmp_path: Path) -> None:
    # It never gets better than after the first epochs.
    config = dataclasses.replace(CONFIG, epochs=40, patience=2, learning_rate=5.0)
    quiet, file = train(config, material), tmp_path / "one.weights.h5"
    assert 2 < len(quiet.history) < 40
    stopped(config, material, file, len(quiet.history) - 1)
    assert same(train(config, material, file=file), quiet)


def test_what_is_damaged_is_trained_anew(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.weights.h5"
    stopped(CONFIG, material, file, 3)
    file.write_bytes(file.read_bytes()[:3000])
    assert len(train(CONFIG, material, file=file).history) == 5
    assert "one.weights.h5 is damaged" in capsys.readouterr().out


def test_states_are_not_kept_more_often_than_every_few_seconds(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_state, "_PAUSE", 3600.0)
    file = tmp_path / "one.weights.h5"
    stopped(CONFIG, material, file, 4)
    assert not file.exists()
    assert read_rows(file) == []


@pytest.mark.parametrize("full", ["cache", "temporary"])
def test_hdf5_never_meets_a_full_disk(
    full: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cache" / "one.weights.h5"
    stopped(CONFIG, material, file, 2)
    before, usage = file.read_bytes(), shutil.disk_usage
    needed = size_of(train(CONFIG, material).parts.model)
    # In the cache the best weights come on top; the temporary ones replace those that are there.
    free = {"cache": 1_000_000 + needed + 10, "temporary": 0}[full]

    def almost_full(place: Path) -> Any:
        is_meant = (Path(place) == file.parent) == (full == "cache")
        return SimpleNamespace(free=free) if is_meant else usage(place)

    monkeypatch.setattr("shutil.disk_usage", almost_full)
    with pytest.raises(OSError, match="No space left"):
        train(CONFIG, material, file=file)
    assert file.read_bytes() == before
    assert [one for one in file.parent.iterdir() if one.suffix != ".lock"] == [file]


def test_without_a_file_nothing_is_kept(material: Material, tmp_path: Path) -> None:
    state: Any = State(None)
    assert (state.rows, state.finished) == ([], False)
    train(CONFIG, material)
    with pytest.raises(ValueError, match="kept in a file"):
        state.best_weights()


def test_rows_count_epochs_from_one_and_round_seconds() -> None:
    logs = {"loss": 2.5, "accuracy": 0.25, "val_loss": 3.0, "val_accuracy": 0.5, "other": 1.0}
    row = history_row(0, logs, 0.12345)
    assert list(row.values()) == [1, 2.5, 0.25, 3.0, 0.5, 0.123]
    assert " ".join(row) == "epoch loss accuracy val_loss val_accuracy seconds"
