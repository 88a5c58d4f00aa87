"""Tests of fine-tuning: what it trains, from what, its learning rates, and how it continues."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fashion_keras.backend import Card, keras
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import prepare
from fashion_keras.fine_tuning import (
    FineTuned,
    build_trainee,
    compile_trainee,
    fine_tune,
    fine_tuning_datasets,
    learning_rates,
)
from fashion_keras.model import build_head, build_top, chosen_fine_tune_from, precision_in_force
from fashion_keras.training import TrainedHead
from tests.builders import opened, python
from tests.conftest import normalised_backbone, small_backbone

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
def datasets(prepared, tiny_backbone, tmp_path):
    """Return the drawn photos with the tiny backbone."""
    return opened(prepared, tiny_backbone, tmp_path, CONFIG)


def new_head(config: Config = CONFIG) -> TrainedHead:
    """Return a head that was not trained, always the same."""
    keras.utils.set_random_seed(3)
    return TrainedHead(build_head(config, 10), [], {})


def weights_of(tuned: FineTuned) -> list[np.ndarray]:
    return [*tuned.backbone.get_weights(), *tuned.head.get_weights()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fine_tune_from", "on"), [("block13", "auto"), ("pixels", "auto"), ("block13", "pixels")]
)
def test_fine_tuning_lowers_the_loss_and_trains_copies(fine_tune_from, on, datasets, tmp_path):
    config = dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from, fine_tune_on=on)
    head = new_head()
    models = (datasets.backbone, head.head)
    before = [weight for model in models for weight in model.get_weights()]
    tuned = fine_tune(config, datasets, head, tmp_path)
    losses = [row["loss"] for row in tuned.history]
    assert losses[-1] < losses[0]
    moved = [not np.array_equal(*pair) for pair in zip(before, weights_of(tuned), strict=True)]
    # Kernel and bias below the only block, then those of block and head.
    assert moved == [*[fine_tune_from == "pixels"] * 2, True, True, True, True]
    after = [weight for model in models for weight in model.get_weights()]
    assert all(map(np.array_equal, before, after))
    best = min(tuned.history, key=lambda row: row["val_loss"])
    assert tuned.validation == {"loss": best["val_loss"], "accuracy": best["val_accuracy"]}
    assert [row["epoch"] for row in tuned.history] == [1, 2, 3]
    assert tuned.backbone.name == datasets.backbone.name


def test_rate_rises_then_falls_to_nothing():
    schedule = learning_rates(dataclasses.replace(CONFIG, fine_tuning_epochs=4), photos=40)
    rates = [float(schedule(step)) for step in range(21)]
    assert rates[0] == 0
    assert max(rates) == rates[2] == pytest.approx(0.01)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_interrupted_run_continues_and_ends_as_one_that_was_not(datasets, tmp_path, capsys):
    seen: list[int] = []

    def listen(epoch: int, logs: dict) -> None:
        seen.append(epoch + 1)
        if seen == [1, 2]:
            raise KeyboardInterrupt

    def run(folder: str) -> FineTuned:
        listener = keras.callbacks.LambdaCallback(on_epoch_end=listen)
        return fine_tune(config, datasets, new_head(config), tmp_path / folder, [listener])

    config = dataclasses.replace(CONFIG, droprate=0.5)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    # States but the best and the last one are removed.
    assert len(list((tmp_path / "parts").rglob("*.npz"))) <= 2
    parts, whole = run("parts"), run("whole")
    assert "continues after epoch 2" in capsys.readouterr().out
    assert all(map(np.array_equal, weights_of(parts), weights_of(whole)))
    assert seen == [1, 2, *[1, 2, 3] * 2]
    again = run("parts")
    assert again.history == parts.history  # Nothing is done again: seconds are the same, too.
    assert all(map(np.array_equal, weights_of(again), weights_of(parts)))


@pytest.mark.slow
def test_the_epoch_with_the_lowest_validation_loss_counts(datasets, tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            model: Any = self.model
            if epoch == 2:
                weights = model.get_weights()
                model.set_weights([*weights[:-1], weights[-1] + np.arange(10)])

    config = dataclasses.replace(CONFIG, fine_tuning_epochs=4)
    tuned = fine_tune(config, datasets, new_head(), tmp_path, [Spoil()])
    losses = [row["val_loss"] for row in tuned.history]
    assert min(losses) in losses[:2]
    _, validation = fine_tuning_datasets(config, datasets)
    model: Any = build_top(tuned.backbone, tuned.head, config.fine_tune_from)
    compile_trainee(model, config, 0.0)
    assert model.evaluate(validation, verbose=0)[0] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.slow
def test_order_of_photos_does_not_depend_on_what_was_drawn_before(datasets, tmp_path):
    config = dataclasses.replace(CONFIG, fine_tune_from="pixels", fine_tuning_epochs=1)
    found = []
    for seed in (1, 2):
        head = new_head()
        keras.utils.set_random_seed(seed)
        found.append(fine_tune(config, datasets, head, tmp_path / str(seed)).validation["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_divergence_is_said_and_not_kept(datasets, tmp_path):
    head = new_head()
    head.head.set_weights([np.full_like(weight, np.inf) for weight in head.head.get_weights()])
    with pytest.raises(InputError, match="diverged in epoch 1.*`--fine-tuning-learning-rate`"):
        fine_tune(CONFIG, datasets, head, tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_start_follows_the_machine_unless_it_is_given(monkeypatch):
    for cards, expected in (([], "block5"), ([Card("T4")], "pixels")):
        monkeypatch.setattr("fashion_keras.model.cards", lambda cards=cards: cards)
        assert chosen_fine_tune_from(Config()) == expected
        assert chosen_fine_tune_from(Config(fine_tune_from="block4")) == "block4"
        assert chosen_fine_tune_from(Config(fine_tune_on="feature_maps")) == "block5"


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_batch_normalisation_never_moves(fine_tune_from, prepared, tmp_path):
    backbone = normalised_backbone()
    backbone.trainable = False
    config = dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from, fine_tuning_epochs=1)
    datasets = opened(prepared, backbone, tmp_path, CONFIG)
    tuned = fine_tune(config, datasets, new_head(), tmp_path)
    both = (model.layers[-1].get_weights() for model in (backbone, tuned.backbone))
    assert all(map(np.array_equal, *both))


@pytest.fixture
def half_precision(monkeypatch):
    """Let half precision be in force."""
    precision_in_force.cache_clear()
    monkeypatch.setattr("fashion_keras.model.cards", lambda: [Card("T4")])
    yield
    precision_in_force.cache_clear()


@pytest.mark.slow
def test_fine_tuning_in_half_precision_gives_float32(half_precision, prepared, tmp_path):
    losses = []
    for precision in ("float32", "mixed_float16", "mixed_bfloat16"):
        config = dataclasses.replace(CONFIG, precision=precision, fine_tuning_epochs=1)
        datasets = opened(prepared, small_backbone(), tmp_path, CONFIG)
        tuned = fine_tune(config, datasets, new_head(config), tmp_path)
        assert {layer.compute_dtype for layer in tuned.backbone.layers} == {"float32"}
        losses.append(tuned.validation["loss"])
        model, *_ = build_trainee(config, datasets, new_head().head)
        compile_trainee(model, config, 0.001)
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (precision == "mixed_float16")
    assert len(set(losses)) == 3
    assert losses == pytest.approx(losses[:1] * 3, rel=0.01)


def losses_on(devices: int, sample_folder: Path, cache: Path) -> list[float]:
    """Fine-tune on parts of the CPU as devices."""
    (processor,) = tf.config.list_physical_devices("CPU")
    if devices > 1:  # Before TensorFlow starts.
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
        tf.config.set_logical_device_configuration(processor, parts)
    # Batches of nine cannot be shared evenly, and there is no order in the whole training set.
    config = dataclasses.replace(
        CONFIG, batch_size=9, droprate=0.0, fine_tuning_copies=0, fine_tuning_epochs=2
    )
    datasets = opened(
        prepare(Config(data=str(sample_folder)), cache), small_backbone(), cache, CONFIG
    )
    return [row["val_loss"] for row in fine_tune(config, datasets, new_head(), cache).history]


@pytest.mark.slow
def test_two_devices_train_like_one(sample_folder, tmp_path):
    program = "import sys; from pathlib import Path; from tests.test_fine_tuning import losses_on; "
    program += "print(*losses_on(2, *map(Path, sys.argv[1:])))"
    done = python("-c", program, str(sample_folder), str(tmp_path / "two"))
    assert "working on 2 devices" in done.stdout
    losses = [float(word) for word in done.stdout.splitlines()[-1].split()]
    assert losses == pytest.approx(losses_on(1, sample_folder, tmp_path), rel=0.02)
