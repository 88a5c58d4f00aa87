"""Tests of training: determinism, the best epoch, stopping, copies, history and Adam's state."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.optimizer import average_momentum
from fashion_keras.training import (
    Material,
    build_parts,
    open_material,
    train,
    training_batches,
    write_history,
)

CONFIG = Config(image_size=71, batch_size=8, inner_size=8, epochs=3, learning_rate=0.01)
# Steps so large that accuracy and loss go up and down.
WILD = Config(
    image_size=71,
    batch_size=8,
    inner_size=0,
    droprate=0,
    augmented_copies=0,
    epochs=8,
    learning_rate=0.1,
    ema_epochs=0,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where vectors stay from test to test."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def material(
    prepared: Prepared, tiny_backbone: keras.Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Material:
    """Open the drawn photos through the tiny backbone."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    return open_material(CONFIG, prepared, cache)


def weights_of(config: Config, material: Material) -> list[np.ndarray]:
    return train(config, material).parts.head.get_weights()


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_same_seed_gives_the_same_weights_to_the_last_bit(material: Material) -> None:
    assert equal(weights_of(CONFIG, material), weights_of(CONFIG, material))


@pytest.mark.parametrize("knobs", [{"seed": 2}, {"augmented_copies": 0}, {"learning_rate": 0.02}])
def test_knobs_change_the_outcome(knobs: dict, material: Material) -> None:
    assert not equal(
        weights_of(CONFIG, material), weights_of(dataclasses.replace(CONFIG, **knobs), material)
    )


def test_training_lowers_the_loss(material: Material) -> None:
    history = train(WILD, material).history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_weights_of_the_best_epoch_come_back(material: Material) -> None:
    trained = train(WILD, material)
    losses = [row["val_loss"] for row in trained.history]
    assert trained.best == trained.history[losses.index(min(losses))]
    assert losses[-1] > min(losses)
    _, validation = training_batches(WILD, material)
    found = trained.parts.model.evaluate(validation, verbose="0", return_dict=True)
    assert found["loss"] == pytest.approx(trained.best["val_loss"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(trained.best["val_accuracy"], rel=1e-5)


def test_patience_ends_training_early(material: Material) -> None:
    trained = train(dataclasses.replace(WILD, epochs=40, patience=2), material)
    assert len(trained.history) == trained.best["epoch"] + 2 < 40


def test_history_has_one_row_of_six_columns_an_epoch(material: Material) -> None:
    history = train(CONFIG, material).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    columns = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(set(row) == columns and row["seconds"] > 0 for row in history)


def test_history_is_written_with_all_digits(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 0.25}]
    write_history(rows, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="", encoding="utf-8") as file:
        read = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    assert read == rows


def test_weights_saved_in_training_carry_the_state_of_adam(
    material: Material, tmp_path: Path
) -> None:
    model = train(dataclasses.replace(CONFIG, patience=50), material).parts.model
    model.save_weights(tmp_path / "trial.weights.h5")
    continued: Any = build_parts(CONFIG, material).model
    assert int(continued.optimizer.iterations) == 0
    continued.load_weights(tmp_path / "trial.weights.h5")
    assert int(continued.optimizer.iterations) in (5, 10, 15)  # 40 photos in batches of 8.
    trained: Any = model
    pairs = zip(continued.optimizer.variables, trained.optimizer.variables, strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_frozen_backbone_keeps_its_weights(material: Material) -> None:
    assert material.backbone is not None
    before = material.backbone.get_weights()
    assert train(CONFIG, material).parts.backbone is material.backbone
    assert equal(material.backbone.get_weights(), before)


def trainable(backbone: keras.Model) -> Callable[[str], keras.Model]:
    def build(weights: str) -> keras.Model:
        assert weights == "none"
        backbone.trainable = True
        return backbone

    return build


def test_random_backbone_is_trained_on_pixels(
    prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.training.build_backbone", trainable(tiny_backbone))
    config = dataclasses.replace(CONFIG, weights="none", epochs=1)
    before = tiny_backbone.get_weights()
    material = open_material(config, prepared, tmp_path)
    assert material == (prepared, None, None)
    parts = train(config, material).parts
    assert parts.backbone is tiny_backbone
    assert parts.model is not parts.head
    assert not equal(parts.backbone.get_weights(), before)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_had_end_the_run_at_once(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No weights file"):
        open_material(Config(weights=str(tmp_path / "gone.h5")), prepared, tmp_path)


def test_training_reads_each_view_and_validation_in_order(material: Material) -> None:
    batches, validation = training_batches(
        dataclasses.replace(CONFIG, augmented_copies=2), material
    )
    assert int(batches.cardinality()) == 5
    vectors, _ = next(validation.as_numpy_iterator())
    assert material.store is not None
    np.testing.assert_array_equal(vectors, material.store.vectors("validation"))


def test_weights_are_averaged_over_so_many_epochs(material: Material) -> None:
    optimizer: Any = build_parts(CONFIG, material).model.optimizer
    assert optimizer.use_ema
    assert optimizer.ema_momentum == pytest.approx(1 - 1 / (5 * 5))  # 5 epochs of 5 batches.
    optimizer = build_parts(dataclasses.replace(CONFIG, ema_epochs=0), material).model.optimizer
    assert not optimizer.use_ema


@pytest.mark.parametrize(
    ("epochs", "steps", "kept"), [(5.0, 4, 0.95), (0.5, 4, 0.5), (0.1, 4, 0.0), (0.0, 4, 0.0)]
)
def test_average_keeps_more_the_longer_it_is(epochs: float, steps: int, kept: float) -> None:
    assert average_momentum(Config(ema_epochs=epochs), steps) == pytest.approx(kept)


def test_validation_sees_the_averaged_weights(material: Material) -> None:
    averaged = train(dataclasses.replace(CONFIG, ema_epochs=2), material).history
    plain = train(dataclasses.replace(CONFIG, ema_epochs=0), material).history
    assert averaged[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    assert averaged[-1]["val_loss"] != pytest.approx(plain[-1]["val_loss"], rel=1e-3)


def test_smoothed_labels_raise_the_loss_of_sure_predictions(material: Material) -> None:
    sure = np.array([[30.0, 0.0]], "float32")
    for smoothing, expected in ((0.0, 0.0), (0.1, 1.5)):
        config = dataclasses.replace(CONFIG, label_smoothing=smoothing)
        model: Any = build_parts(config, material).model
        loss = float(model.compute_loss(y=np.array([[1.0, 0.0]], "float32"), y_pred=sure))
        assert loss == pytest.approx(expected, abs=1e-4)  # 0.1 / 2 classes * 30.
