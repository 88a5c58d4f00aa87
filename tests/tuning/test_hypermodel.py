"""The adapter to Keras Tuner."""

import keras
import keras_tuner
import numpy as np
import pytest

from fashion_keras.config import Config
from fashion_keras.features import FeatureStore
from fashion_keras.training import Datasets
from tuning.hypermodel import FashionHyperModel

CONFIG = Config(image_size=71, augmented_copies=1, batch_size=8)


@pytest.fixture
def hypermodel(prepared, tiny_backbone, tmp_path):
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    return FashionHyperModel(CONFIG, Datasets(prepared, tiny_backbone, store))


def test_build_gives_the_same_model_for_the_same_values(hypermodel):
    first, second = (hypermodel.build(keras_tuner.HyperParameters()) for _ in range(2))
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fit_hands_on_what_hyperband_says(hypermodel):
    class Recorder:
        def fit(self, *args, **kwargs):
            self.args, self.kwargs = args, kwargs
            return type("History", (), {"history": {"val_loss": losses}})

    losses = [1.0, 0.9]
    model, callback = Recorder(), keras.callbacks.Callback()
    hypermodel.fit(
        keras_tuner.HyperParameters(), model, epochs=9, initial_epoch=3, callbacks=[callback]
    )
    assert model.kwargs["epochs"] == 9
    assert model.kwargs["initial_epoch"] == 3
    assert model.kwargs["callbacks"] == [callback]
    assert len(model.args) == 1


def test_a_promoted_model_goes_on_with_its_optimizer_state(hypermodel, tmp_path):
    hp = keras_tuner.HyperParameters()
    parent = hypermodel.build(hp)
    hypermodel.fit(hp, parent, epochs=2, verbose=0)
    parent.save_weights(tmp_path / "parent.weights.h5")
    child = hypermodel.build(hp)
    child.load_weights(tmp_path / "parent.weights.h5")
    assert int(child.optimizer.iterations) == 2 * 5  # 40 photos in batches of 8.


def test_a_loss_that_is_no_number_fails_the_trial(hypermodel):
    class Diverging:
        def fit(self, *args, **kwargs):
            return type("History", (), {"history": {"val_loss": [1.0, float("nan")]}})

    with pytest.raises(keras_tuner.errors.FailedTrialError, match="infinite or no number"):
        hypermodel.fit(keras_tuner.HyperParameters(), Diverging())
