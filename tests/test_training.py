"""Tests of heads: determinism, the best epoch, stopping, copies, averages, real photos."""

import csv
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from fashion_keras.backend import keras
from fashion_keras.classifier import Classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.sample import LABELS
from fashion_keras.evaluate import labelled, predict_photos
from fashion_keras.model import build_classifier, build_head
from fashion_keras.training import (
    BalancedAccuracy,
    FusedAdam,
    HeadData,
    TrainedHead,
    build_compiled_head,
    compile_model,
    fit_head,
    head_data,
    head_datasets,
    prepare_datasets,
    read_state,
    restore,
    state_of,
    train_head,
    write_rows,
    write_state,
)
from tests.builders import opened, python

THREADS = "TF_NUM_INTRAOP_THREADS"
CPU = Path("/proc/cpuinfo")
AVX512 = CPU.exists() and "avx512f" in CPU.read_text(encoding="utf-8")
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


@pytest.fixture
def datasets(prepared, tiny_backbone, cache):
    """Open the drawn photos through the tiny backbone."""
    return opened(prepared, tiny_backbone, cache, CONFIG)


@pytest.fixture
def data(datasets):
    """Return features with one augmented copy."""
    return head_data(CONFIG, datasets)


def equal(first: TrainedHead, second: TrainedHead) -> bool:
    """Return whether two heads and their histories are the same, but for the seconds."""
    rows = [[{**row, "seconds": 0} for row in one.history] for one in (first, second)]
    weights = [one.head.get_weights() for one in (first, second)]
    return rows[0] == rows[1] and all(map(np.array_equal, *weights))


@pytest.mark.slow
def test_same_seed_gives_the_same_weights_to_the_last_bit(data):
    assert equal(fit_head(CONFIG, data), fit_head(CONFIG, data))


@pytest.mark.slow
def test_weights_of_the_best_epoch_are_kept(data):
    trained = fit_head(WILD, data)
    assert trained.history[-1]["loss"] < 0.8 * trained.history[0]["loss"]
    losses = [row["val_loss"] for row in trained.history]
    assert trained.best == trained.history[losses.index(min(losses))]
    assert losses[-1] > min(losses)
    probe: Any = build_compiled_head(WILD, 10, 40)
    probe.set_weights(trained.head.get_weights())
    found = probe.evaluate(head_datasets(WILD, data)[1], verbose="0", return_dict=True)
    assert found["loss"] == pytest.approx(trained.best["val_loss"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(trained.best["val_accuracy"], rel=1e-5)


def test_patience_ends_training_early(data):
    trained = fit_head(dataclasses.replace(WILD, epochs=40, patience=2), data)
    assert len(trained.history) == trained.best["epoch"] + 2 < 40


@pytest.mark.slow
def test_history_has_one_row_of_six_columns_an_epoch(data, tmp_path):
    history = fit_head(CONFIG, data).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert all(list(row) == columns and row["seconds"] > 0 for row in history)
    write_rows(history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="", encoding="utf-8") as file:
        read = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    assert read == history


@pytest.mark.slow
def test_a_finished_head_is_found_and_callbacks_see_epochs(datasets, tmp_path, monkeypatch, capsys):
    def listener(seen: list[Any]) -> keras.callbacks.Callback:
        return keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: seen.append("begin"),
            on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["val_loss"])),
            on_train_end=lambda logs: seen.append("end"),
        )

    first, again, before = [], [], datasets.backbone.get_weights()
    trained = train_head(CONFIG, datasets, tmp_path, [listener(first)])
    assert equal(trained, fit_head(CONFIG, head_data(CONFIG, datasets)))
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("it is trained again"))
    assert equal(train_head(CONFIG, datasets, tmp_path, [listener(again)]), trained)
    assert "found a head trained before: 3 epochs" in capsys.readouterr().out
    assert again == first
    assert (first[0], len(first), first[-1]) == ("begin", 5, "end")
    assert getattr(trained.head, "optimizer", None) is None
    assert all(map(np.array_equal, datasets.backbone.get_weights(), before))


def test_an_interrupted_head_leaves_nothing(datasets, tmp_path):
    def stop(epoch: int, logs: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(CONFIG, datasets, tmp_path, [keras.callbacks.LambdaCallback(on_epoch_end=stop)])
    assert not list(tmp_path.rglob("*.npz"))


def test_divergence_is_an_error(data):
    broken = data._replace(validation=np.full_like(data.validation, np.nan))
    with pytest.raises(InputError, match=r"diverged: the loss is nan.*`--learning-rate` than 0\.1"):
        fit_head(WILD, broken)


def test_state_of_adam_can_be_saved_and_loaded(data, tmp_path):
    first, second = (build_compiled_head(CONFIG, 10, 40) for _ in range(2))
    first.fit(head_datasets(CONFIG, data)[0], steps_per_epoch=5, verbose=0, shuffle=False)
    write_state(tmp_path / "state.npz", state_of(first), [{"epoch": 1.0}])
    arrays, history = read_state(tmp_path / "state.npz")
    restore(second, arrays)
    assert (int(second.optimizer.iterations), history) == (5, [{"epoch": 1.0}])
    assert all(map(np.array_equal, state_of(first), state_of(second)))


def test_batches_hold_each_copy_in_turn_and_validation_in_order(datasets):
    config = dataclasses.replace(CONFIG, augmented_copies=2)
    data = head_data(config, datasets)
    _, validation = head_datasets(config, data)
    assert len(data.copies) == 3
    features, labels = next(validation.as_numpy_iterator())
    np.testing.assert_array_equal(features, data.validation)
    np.testing.assert_array_equal(labels.argmax(axis=1), data.validation_classes)


@pytest.mark.parametrize(("epochs", "kept"), [(5.0, 0.95), (0.5, 0.5), (0.1, None), (0.0, None)])
def test_average_keeps_more_the_longer_it_is(epochs, kept):
    optimizer = build_compiled_head(Config(ema_epochs=epochs, batch_size=8), 2, photos=32).optimizer
    assert optimizer.use_ema == (kept is not None)
    if kept is not None:
        assert optimizer.ema_momentum == pytest.approx(kept)


@pytest.mark.slow
def test_validation_sees_the_averaged_weights(data):
    averaged = fit_head(dataclasses.replace(CONFIG, ema_epochs=2), data).history
    plain = fit_head(dataclasses.replace(CONFIG, ema_epochs=0), data).history
    assert averaged[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    assert averaged[-1]["val_loss"] != pytest.approx(plain[-1]["val_loss"], rel=1e-3)


def test_smoothed_labels_raise_the_loss_of_sure_predictions():
    sure = np.array([[30.0, 0.0]], "float32")
    for smoothing, expected in ((0.0, 0.0), (0.1, 1.5)):
        model = build_compiled_head(Config(label_smoothing=smoothing), 2, 1)
        loss = float(model.compute_loss(y=np.array([[1.0, 0.0]], "float32"), y_pred=sure))
        assert loss == pytest.approx(expected, abs=1e-4)  # 0.1 / 2 classes * 30.


def test_balanced_accuracy_is_that_of_scikit_learn():
    dice, rows = np.random.default_rng(1), np.eye(4, dtype="float32")
    true, logits = np.repeat([0, 1, 3], [30, 5, 2]), dice.random((37, 4), "float32")
    logits[:, 2] = -1  # scikit-learn warns of predictions of a class without photos.
    metric = BalancedAccuracy(4)
    for part in (slice(20), slice(20, 37)):
        metric.update_state(rows[true[part]], logits[part])
    expected = balanced_accuracy_score(true, logits.argmax(axis=1))
    assert float(metric.result()) == pytest.approx(expected)
    metric.reset_state()
    metric.update_state(rows[[0, 0]], rows[[0, 1]], np.array([3.0, 1.0], "float32"))
    assert float(metric.result()) == pytest.approx(0.75)


def test_the_objective_is_part_of_the_history(data):
    config = dataclasses.replace(CONFIG, epochs=1, objective="balanced_accuracy")
    (row,) = fit_head(config, data).history
    assert row["val_balanced_accuracy"] == pytest.approx(row["val_accuracy"])  # Even classes.


def digest_of_a_head() -> str:
    """Train a head on features that are large enough for several threads."""
    draws = np.random.default_rng(1)
    features = [draws.normal(size=(n, 2048)).astype("float32") for n in (700, 700, 100)]
    classes = [draws.integers(10, size=n).astype("int32") for n in (700, 100)]
    data = HeadData(features[:2], classes[0], features[2], classes[1], [*"abcdefghij"])
    weights = fit_head(Config(epochs=2), data).head.get_weights()
    return hashlib.sha256(b"".join(weight.tobytes() for weight in weights)).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(
    not AVX512, reason="without AVX-512 the order of sums depends on the number of threads"
)
def test_the_number_of_threads_changes_no_bit():
    # TensorFlow takes the number when it starts; this process has another one, usually 1, 2 or 4.
    program = "from tests.test_training import digest_of_a_head; print(digest_of_a_head())"
    ended = python("-c", program, **{THREADS: "3"})
    assert os.environ.get(THREADS) != "3"
    assert ended.stdout.split() == [digest_of_a_head()]


def test_fused_adam_is_the_adam_of_keras():
    dice = np.random.default_rng(1)
    batch = dice.random((8, 2048), "float32"), np.eye(4, dtype="float32")[np.arange(8) % 4]
    config = Config(inner_size=16, droprate=0.0)
    weights = []
    for kind in (FusedAdam, keras.optimizers.Adam):
        keras.utils.set_random_seed(1)
        head = build_head(config, 4)
        compile_model(head, kind(0.01, use_ema=True, ema_momentum=0.9), config)
        for _ in range(5):
            head.train_on_batch(*batch)
        weights.append(np.concatenate([array.ravel() for array in state_of(head)[:-1]]))
    assert np.abs(weights[0] - weights[1]).max() < 1e-5
    assert np.abs(weights[0]).max() > 0.1


@pytest.mark.real
@pytest.mark.slow
def test_few_real_photos_are_enough_for_a_good_classifier(real_data, real_weights, tmp_path):
    for split, count in {"train": 8, "validation": 2, "test": 3}.items():
        for class_folder in (real_data / split).iterdir():
            target = tmp_path / "photos" / split / class_folder.name
            target.mkdir(parents=True)
            for file in sorted(class_folder.iterdir())[:count]:
                (target / file.name).symlink_to(file)
    fields = {"image_size": 130, "augmented_copies": 0, "inner_size": 0, "learning_rate": 0.005}
    fields |= {"epochs": 10, "fine_tuning_epochs": 0}
    config = Config(data=str(tmp_path / "photos"), weights=str(real_weights), **fields)
    datasets = prepare_datasets(config, tmp_path / "cache")
    labels = datasets.prepared.labels
    assert labels == list(LABELS)  # The drawn sample has the same classes.
    trained = train_head(config, datasets, tmp_path / "cache")
    model = build_classifier(datasets.backbone, trained.head, config.image_size)
    classifier = Classifier(model, {"labels": labels, "image_size": config.image_size})
    found, _ = predict_photos(classifier, labelled(datasets.prepared, "test"), "testing")
    right = [prediction.category == photo.label for photo, prediction in found]
    assert len(right) == 30
    assert np.mean(right) >= 0.35  # Guessing gives 0.1.
