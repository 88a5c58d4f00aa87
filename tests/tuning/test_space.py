"""The search space: names, ranges, defaults, and what each hyperparameter changes."""

import dataclasses

import keras_tuner
import pytest

from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import Config
from tuning.space import HEAD, STRENGTHS, fine_tuning, on_feature_maps, starts


def test_defaults_are_those_of_the_configuration():
    assert HEAD.sample(keras_tuner.HyperParameters(), Config()) == Config()


def test_names_and_ranges_of_the_space():
    ranges = {row.pop("name"): tuple(row.values()) for row in HEAD.ranges(Config())}
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
    config = HEAD.sample(hp, Config())
    assert getattr(config, field) == expected
    assert HEAD.values(config)[field] == expected


def test_without_copies_there_is_nothing_to_switch():
    hp = keras_tuner.HyperParameters()
    assert HEAD.sample(hp, Config(augmented_copies=0)).augmented_copies == 0
    assert "augmented" not in hp.values


def test_defaults_of_fine_tuning_are_those_of_the_configuration_but_for_its_start():
    for on_pixels, place in ((True, "pixels"), (False, "block5")):
        found = fine_tuning(on_pixels).sample(keras_tuner.HyperParameters(), Config())
        assert found == dataclasses.replace(Config(), fine_tune_from=place)


def test_trials_on_feature_maps_read_three_strengths_from_two_places():
    found = set()
    for place in starts("xception", False):
        for strength in STRENGTHS:
            hp = keras_tuner.HyperParameters()
            hp.values |= {"fine_tune_from": place, "augmentation": strength}
            config = fine_tuning(False).sample(hp, Config())
            found.add((config.fine_tune_from, config.rotation, config.zoom))
    made = {(one.fine_tune_from, one.rotation, one.zoom) for one in on_feature_maps(Config())}
    assert found == made
    assert len(made) == 6


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_every_backbone_has_two_places_to_start_from(backbone):
    first, second = starts(backbone, False)
    blocks = ARCHITECTURES[backbone].blocks
    assert blocks.index(first) < blocks.index(second)
    assert ARCHITECTURES[backbone].block in (first, second)
    everything, *others = starts(backbone, True)
    assert (everything, len(others)) == ("pixels", 3)
    assert set(others) <= set(blocks)


def test_strength_has_a_range_on_pixels():
    (found,) = (row for row in fine_tuning(True).ranges(Config()) if row["name"] == "augmentation")
    assert (found["min"], found["max"], found["steps"]) == (0.25, 4.0, "log")


def test_the_best_row_has_the_highest_accuracy_or_the_lowest_log_loss():
    rows = [{"val_accuracy": x, "val_log_loss": y} for x, y in ((0.5, 0.3), (0.7, 0.4), (0.7, 0.2))]
    assert HEAD.best(rows) is rows[1]
    assert fine_tuning(False).best(rows) is rows[2]
    assert HEAD.best([]) is None


def test_balanced_accuracy_is_the_objective_of_both_stages_if_it_is_asked_for():
    asked = Config(objective="balanced_accuracy")
    for one in (HEAD, fine_tuning(False)):
        assert one.judged_by(Config()) is one
        changed = one.judged_by(asked)
        assert (changed.objective, changed.direction) == ("val_balanced_accuracy", "max")
