"""The adapter between Keras Tuner and the training of `fashion_keras`."""

import math
from typing import Any

import keras
import keras_tuner

from fashion_keras.config import Config
from fashion_keras.stopwatch import spent
from fashion_keras.training import Material, build_parts, training_batches
from tuning.space import sample_config


class FashionHyperModel(keras_tuner.HyperModel):
    """Builds and fits the model of one trial.

    Args:
        base: Knobs that are not searched for.
        material: What to train from.
    """

    def __init__(self, base: Config, material: Material) -> None:
        super().__init__()
        self.base = base
        self.material = material

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`: always the same for the same values."""
        return build_parts(sample_config(hp, self.base), self.material).model

    @spent("head")
    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; Hyperband's epochs, first epoch and checkpoints arrive in `kwargs`.

        Raises:
            FailedTrialError: If the validation loss is not a number in any epoch.
        """
        train, validation = training_batches(sample_config(hp, self.base), self.material)
        fitted = model.fit(train, *args, validation_data=validation, shuffle=False, **kwargs)
        if not all(map(math.isfinite, fitted.history["val_loss"])):
            raise keras_tuner.errors.FailedTrialError("the loss became infinite or no number")
        return fitted
