"""Training again outside Hyperband."""

import dataclasses
import json

import numpy as np
import pytest

from fashion_keras.artifacts import fingerprint
from fashion_keras.config import Config
from fashion_keras.parallel import pool
from tests.builders import random_features
from tuning import finalists, hyperband
from tuning.finalists import Finalist, curves, rerun
from tuning.trials import Outcome, Trainer

CONFIG = Config(batch_size=8, epochs=2, inner_size=16, augmented_copies=0)


@pytest.fixture
def data():
    return random_features(12)


@pytest.fixture
def trainer(data, tmp_path):
    with pool(1) as workers:
        yield Trainer(data, lambda config: fingerprint(config=vars(config)), tmp_path, workers)


def test_the_best_mean_comes_first_and_nothing_is_trained_twice(trainer, monkeypatch):
    # Accuracy by learning rate and seed: the second has the best run, the first the best mean.
    accuracies = {0.1: (0.7, 0.7, 0.7), 0.2: (0.9, 0.5, 0.0)}
    trained = []

    def train_history(data, config):
        trained.append(config)
        if (config.learning_rate, config.seed) == (0.2, 3):
            return Outcome([], 0.1, "Training diverged"), None
        kept = accuracies[config.learning_rate][config.seed - 1]
        rows = [{"val_loss": 1.0, "val_accuracy": kept}, {"val_loss": 2.0, "val_accuracy": 1.0}]
        return Outcome(rows, 0.1), None

    monkeypatch.setattr(finalists, "train_history", train_history)
    configs = [dataclasses.replace(CONFIG, learning_rate=rate) for rate in (0.2, 0.1)]
    found = rerun(configs, trainer)
    assert [finalist.config.learning_rate for finalist in found] == [0.1, 0.2]
    assert [tuple(finalist.scores) for finalist in found] == list(accuracies.values())
    assert rerun(configs, trainer) == found
    assert len(trained) == 6


@pytest.mark.slow
def test_curves_have_each_value_and_epoch(trainer, monkeypatch):
    monkeypatch.setattr(finalists, "CURVES", {"droprate": (0.0, 0.5)})
    rows = curves(CONFIG, trainer)
    assert [(row["hyperparameter"], row["value"], row["epoch"]) for row in rows] == [
        ("droprate", 0.0, 1),
        ("droprate", 0.0, 2),
        ("droprate", 0.5, 1),
        ("droprate", 0.5, 2),
    ]
    assert all(0 <= row["val_accuracy"] <= 1 for row in rows)


@pytest.mark.slow
def test_a_training_that_diverges_has_a_reason(data):
    huge = data._replace(validation=np.full((12, 2048), 1e38, "float32"))
    outcome, _ = finalists.train_history(huge, CONFIG)
    assert outcome.rows == []
    assert "Training diverged" in outcome.reason


def test_finalists_less_than_one_photo_apart_are_counted(capsys):
    three = [Finalist(CONFIG, [score] * 3) for score in (0.9, 0.895, 0.8)]
    said, classes = "the winner's validation accuracy: 0.9000", np.repeat([0, 1], [95, 5])
    assert hyperband._best_of(three, classes) is three[0]
    close = "less than one photo of validation behind the winner: 1 of the finalists"
    assert capsys.readouterr().out.splitlines() == [close, said]
    hyperband._best_of(three, np.tile(classes, 10))
    assert capsys.readouterr().out.splitlines() == [said]
    hyperband._best_of(three, classes[:99])
    optimistic = "it is optimistic, as the winner was chosen on these 99 photos"
    assert capsys.readouterr().out.splitlines() == [close, f"{said}; {optimistic}"]


def test_a_photo_of_a_small_class_counts_more_for_balanced_accuracy(capsys):
    balanced = dataclasses.replace(CONFIG, objective="balanced_accuracy")
    three = [Finalist(balanced, [score] * 3) for score in (0.9, 0.81, 0.79)]
    hyperband._best_of(three, np.repeat([0, 1], [95, 5]))  # One of five: a tenth.
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(": 1 of the finalists")
    assert second == "the winner's validation balanced accuracy: 0.9000"


@pytest.mark.parametrize(
    ("accuracy", "photos", "kept"), [(0.8, "same", True), (0.9, "same", False), (0.8, "new", False)]
)
def test_an_earlier_winner_that_is_better_is_kept(accuracy, photos, kept, tmp_path):
    (tmp_path / "best_config.json").write_text("before")
    summary = {"validation_accuracy": 0.85, "fingerprint": "same"}
    (tmp_path / "search.json").write_text(json.dumps(summary))
    hyperband._keep_better(tmp_path, "validation_accuracy", accuracy, photos)
    found = [file.read_text() for file in tmp_path.glob("best_config_0.8500.json")]
    assert found == ["before"] * kept
