"""Training again outside Hyperband."""

import dataclasses

import pytest

from fashion_keras.config import Config
from fashion_keras.features import FeatureStore
from fashion_keras.training import Datasets, TrainedHead, fit_head, head_data
from tuning import compare

CONFIG = Config(image_size=71, augmented_copies=0, batch_size=8, epochs=2)


@pytest.fixture
def material(prepared, tiny_backbone, tmp_path):
    return Datasets(
        prepared, tiny_backbone, FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    )


def test_mean_and_spread_of_a_finalist():
    finalist = compare.Finalist(CONFIG, [0.8, 0.9, 1.0])
    assert finalist.mean == pytest.approx(0.9)
    assert finalist.spread == pytest.approx(0.1)


def test_the_best_mean_comes_first(material, monkeypatch, tmp_path):
    # Accuracy by learning rate and seed: the second has the best run, the first the best mean.
    outcomes = {
        (0.1, 1): 0.7,
        (0.1, 2): 0.7,
        (0.1, 3): 0.7,
        (0.2, 1): 0.9,
        (0.2, 2): 0.5,
        (0.2, 3): 0.5,
    }

    trained = []

    def train(config, data):
        trained.append(config)
        accuracy = outcomes[config.learning_rate, config.seed]
        rows = [{"val_loss": 1.0, "val_accuracy": accuracy}, {"val_loss": 2.0, "val_accuracy": 1.0}]
        return TrainedHead(None, rows, rows[0])  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "fit_head", train)
    configs = [dataclasses.replace(CONFIG, learning_rate=rate) for rate in (0.2, 0.1)]
    finalists = compare.rerun(configs, material, tmp_path)
    assert [finalist.config.learning_rate for finalist in finalists] == [0.1, 0.2]
    assert finalists[1].accuracies == [0.9, 0.5, 0.5]
    assert len(trained) == 6
    assert compare.rerun(configs, material, tmp_path) == finalists
    assert len(trained) == 6  # None was trained again.


def test_a_damaged_outcome_is_said_and_made_anew(material, tmp_path, capsys):
    first = compare._history(CONFIG, material, tmp_path)
    (kept,) = tmp_path.glob("*.json")
    kept.write_bytes(kept.read_bytes()[:-9])
    again = compare._history(CONFIG, material, tmp_path)
    assert [row["val_loss"] for row in again] == [row["val_loss"] for row in first]
    assert f"{kept} is damaged" in capsys.readouterr().out


def test_curves_have_each_value_and_epoch(material, monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "CURVES", {"droprate": (0.0, 0.5)})
    rows = list(compare.knob_curves(CONFIG, material, tmp_path))
    assert [(row["knob"], row["value"], row["epoch"]) for row in rows] == [
        ("droprate", 0.0, 1),
        ("droprate", 0.0, 2),
        ("droprate", 0.5, 1),
        ("droprate", 0.5, 2),
    ]
    assert all(0 <= row["val_accuracy"] <= 1 for row in rows)


def test_answers_are_those_of_the_kept_epoch(material, prepared):
    tested = compare.validation_answers(CONFIG, material)
    assert tested.names == [photo.file for photo in prepared.split("validation")]
    assert tested.probabilities.sum(axis=1) == pytest.approx(1)
    best = fit_head(CONFIG, head_data(CONFIG, material)).best
    assert tested.correct.mean() == pytest.approx(best["val_accuracy"])
