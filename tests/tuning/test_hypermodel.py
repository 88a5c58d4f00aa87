"""The adapter to Keras Tuner: fresh and reused models, and trials that go on from their parents."""

import dataclasses

import numpy as np
import pytest

from fashion_keras.config import Config
from fashion_keras.training import build_compiled_head, head_datasets, steps_per_epoch
from tests.builders import random_features
from tuning import hypermodel as hypermodel_module
from tuning.hypermodel import compiled_head, state_of
from tuning.trials import train_trial

BASE = Config(augmented_copies=1, batch_size=8, ema_epochs=0.0)
VALUES = {"learning_rate": 0.01, "inner_size": 16, "droprate": 0.3, "augmented": True}


@pytest.fixture(scope="module")
def data():
    return random_features()


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(hypermodel_module, "_COMPILED", {})


def fit(model, config, data, epochs=2):
    train, validation = head_datasets(config, data)
    options = {"steps_per_epoch": steps_per_epoch(config, 30), "epochs": epochs, "verbose": 0}
    fitted = model.fit(train, validation_data=validation, shuffle=False, **options)
    return fitted.history, state_of(model)


def assert_equal(one, other):
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("ema_epochs", [0.0, 1.0])
def test_a_model_that_is_used_again_trains_as_a_fresh_one(data, ema_epochs):
    first = dataclasses.replace(BASE, inner_size=16, ema_epochs=ema_epochs)
    second = dataclasses.replace(first, learning_rate=0.02, seed=5, augmented_copies=0)
    used = compiled_head(first, 3, 30)
    fit(used, first, data)
    again = compiled_head(second, 3, 30)
    assert again is used
    fresh = build_compiled_head(second, 3, 30)
    expected, state = fit(fresh, second, data)
    history, found = fit(again, second, data)
    assert history == expected
    assert_equal(found, state)


@pytest.mark.parametrize("field", ["inner_size", "droprate", "label_smoothing"])
def test_another_architecture_is_compiled_again(field):
    other = dataclasses.replace(BASE, **{field: 0})
    assert compiled_head(BASE, 3, 30) is not compiled_head(other, 3, 30)


def test_another_backbone_has_another_head():
    compiled_head(BASE, 3, 30)
    other = compiled_head(dataclasses.replace(BASE, backbone="efficientnetv2-b0"), 3, 30)
    assert other.input_shape == (None, 1280)


@pytest.mark.slow
def test_a_trial_that_goes_on_from_a_state_is_the_one_that_is_trained_as_its_parents_were(data):
    parent, state = train_trial(data, BASE, VALUES, [2], None, True)
    hypermodel_module._COMPILED.clear()
    child, _ = train_trial(data, BASE, VALUES, [2, 5], state, False)
    hypermodel_module._COMPILED.clear()
    again, kept = train_trial(data, BASE, VALUES, [2, 5], None, False)
    assert [row["epoch"] for row in parent.rows] == [1, 2]
    assert [row["epoch"] for row in child.rows] == [3, 4, 5]
    assert again.rows == child.rows
    assert kept is None
    hypermodel_module._COMPILED.clear()
    whole, _ = train_trial(data, BASE, VALUES, [5], None, False)
    assert whole.rows == parent.rows + child.rows  # The order of the photos goes on, too.


def test_a_loss_that_is_no_number_fails_the_trial(data):
    huge = data._replace(validation=np.full((30, 2048), 1e38, "float32"))
    outcome, state = train_trial(huge, BASE, VALUES, [1], None, True)
    assert outcome.rows == []
    assert outcome.reason == "the loss became infinite or no number"
    assert state is None
