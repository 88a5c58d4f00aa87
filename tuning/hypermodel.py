"""The adapter between Keras Tuner and the training of `fashion_keras`."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import keras_tuner

from fashion_keras.config import Config
from fashion_keras.training import (
    Datasets,
    build_compiled_head,
    head_data,
    head_datasets,
    steps_per_epoch,
)
from tuning.space import sample_config

Result = TypeVar("Result")


class FashionHyperModel(keras_tuner.HyperModel):
    """Builds and fits the model of one trial.

    Args:
        base: Knobs that are not searched for.
        material: What to train from.
    """

    def __init__(self, base: Config, material: Datasets) -> None:
        super().__init__()
        self.base = base
        self.material = material

    def in_pieces(self, run: Callable[[], Result]) -> Result:
        """Run a trial."""
        return run()

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`: always the same for the same values."""
        config, prepared = sample_config(hp, self.base), self.material.prepared
        steps = steps_per_epoch(config, len(prepared.split("train")))
        return build_compiled_head(config, len(prepared.labels), steps)

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; Hyperband's epochs, first epoch and checkpoints arrive in `kwargs`.

        Raises:
            FailedTrialError: If the validation loss is not a number in any epoch.
        """
        config = sample_config(hp, self.base)
        train, validation = head_datasets(config, head_data(config, self.material))
        fitted = model.fit(train, *args, validation_data=validation, shuffle=False, **kwargs)
        if not all(map(math.isfinite, fitted.history["val_loss"])):
            raise keras_tuner.errors.FailedTrialError("the loss became infinite or no number")
        return fitted
