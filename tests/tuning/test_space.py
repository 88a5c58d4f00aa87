"""The search space: names, ranges, defaults."""

import dataclasses

import keras_tuner
import pytest

from fashion_keras.config import Config
from tuning.space import sample_config, searched_values


def test_defaults_are_those_of_the_configuration():
    assert sample_config(keras_tuner.HyperParameters(), Config()) == Config()


def test_names_and_ranges_of_the_space():
    hp = keras_tuner.HyperParameters()
    sample_config(hp, Config())
    ranges = {entry.name: entry.get_config() for entry in hp.space}
    assert set(ranges) == {"augmented_views", "learning_rate", "inner_size", "droprate"}
    bounds = {
        name: (entry["min_value"], entry["max_value"], entry["sampling"])
        for name, entry in ranges.items()
        if name != "augmented_views"
    }
    assert bounds == {
        "learning_rate": (1e-4, 1e-1, "log"),
        "inner_size": (16, 1024, "log"),
        "droprate": (0.0, 0.8, "linear"),
    }


@pytest.mark.parametrize(
    ("name", "value", "knob", "expected"),
    [
        ("learning_rate", 0.02, "learning_rate", 0.02),
        ("inner_size", 64, "inner_size", 64),
        ("droprate", 0.7, "droprate", 0.7),
        ("augmented_views", False, "augmented_copies", 0),
        ("augmented_views", True, "augmented_copies", 1),
    ],
)
def test_each_hyperparameter_sets_its_knob(name, value, knob, expected):
    hp = keras_tuner.HyperParameters()
    hp.values[name] = value
    assert getattr(sample_config(hp, Config()), knob) == expected


def test_without_views_there_is_nothing_to_switch():
    hp = keras_tuner.HyperParameters()
    config = sample_config(hp, dataclasses.replace(Config(), augmented_copies=0))
    assert config.augmented_copies == 0
    assert "augmented_views" not in hp.values


def test_searched_values_are_the_knobs_of_the_space():
    config = dataclasses.replace(
        Config(), learning_rate=0.1, inner_size=16, droprate=0.4, augmented_copies=3
    )
    assert searched_values(config) == {
        "learning_rate": 0.1,
        "inner_size": 16,
        "droprate": 0.4,
        "augmented_copies": 3,
    }
