"""The search space: names, ranges, defaults, and what each hyperparameter changes."""

import keras_tuner
import pytest

from fashion_keras.config import Config
from tuning.space import sample_config, searched_values, space_of


def test_defaults_are_those_of_the_configuration():
    assert sample_config(keras_tuner.HyperParameters(), Config()) == Config()


def test_names_and_ranges_of_the_space():
    ranges = {row.pop("name"): tuple(row.values()) for row in space_of(Config())}
    assert ranges == {
        "augmented": ("no", "yes", "either"),
        "learning_rate": (1e-4, 1e-1, "log"),
        "inner_size": (16, 1024, "log"),
        "droprate": (0.0, 0.8, "linear"),
    }


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("learning_rate", 0.02, "learning_rate", 0.02),
        ("inner_size", 64, "inner_size", 64),
        ("droprate", 0.7, "droprate", 0.7),
        ("augmented", False, "augmented_copies", 0),
        ("augmented", True, "augmented_copies", 1),
    ],
)
def test_each_hyperparameter_sets_its_field(name, value, field, expected):
    hp = keras_tuner.HyperParameters()
    hp.values[name] = value
    config = sample_config(hp, Config())
    assert getattr(config, field) == expected
    assert searched_values(config)[field] == expected


def test_without_copies_there_is_nothing_to_switch():
    hp = keras_tuner.HyperParameters()
    assert sample_config(hp, Config(augmented_copies=0)).augmented_copies == 0
    assert "augmented" not in hp.values
