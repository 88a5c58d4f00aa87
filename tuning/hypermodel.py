"""The adapter between Keras Tuner and the training of `fashion_keras`."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import keras_tuner

from fashion_keras.config import Config
from fashion_keras.devices import shared
from fashion_keras.memory import new_backbone_in_parts
from fashion_keras.stopwatch import spent
from fashion_keras.training import Material, build_parts, training_batches
from tuning.space import sample_config

Result = TypeVar("Result")


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
        self._pieces = 1  # In which each batch goes through a backbone of the trial's own.

    def in_pieces(self, run: Callable[[], Result]) -> Result:
        """Run a trial; if memory does not suffice, once more with batches in smaller pieces."""
        if self.material.backbone is not None:  # Vectors are small.
            return run()

        def work(pieces: int) -> Result:
            self._pieces = pieces
            return run()

        return new_backbone_in_parts(work, self.base)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`: always the same for the same values."""
        return build_parts(sample_config(hp, self.base), self.material, self._pieces).model

    @spent("head")
    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; Hyperband's epochs, first epoch and checkpoints arrive in `kwargs`.

        Raises:
            FailedTrialError: If the validation loss is not a number in any epoch.
        """
        batches = training_batches(sample_config(hp, self.base), self.material)
        train, validation = (shared(one, self._pieces) for one in batches)
        fitted = model.fit(train, *args, validation_data=validation, shuffle=False, **kwargs)
        if not all(map(math.isfinite, fitted.history["val_loss"])):
            raise keras_tuner.errors.FailedTrialError("the loss became infinite or no number")
        return fitted
