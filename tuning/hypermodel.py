"""The adapter between Keras Tuner and the training of `fashion_keras`."""

import gc
import math
from typing import Any

from fashion_keras.backend import keras
from fashion_keras.config import Config, deciding
from fashion_keras.training import (
    HeadData,
    build_compiled_head,
    head_datasets,
    restore,
    state_of,
    steps_per_epoch,
)
from tuning.space import sample_head

# isort: split
import keras_tuner  # After TensorFlow, which it imports, too, but not quietly.

# To trace a training step takes a second, longer than a short trial: models are used again, but
# few of them, as each takes some 10 MB.
_COMPILED: dict[tuple, Any] = {}
_MAX_COMPILED = 8
# Fields that a compiled model does not depend on: they decide variables, or data and callbacks.
_VARIABLE = ("learning_rate", "seed", "augmented_copies", "epochs", "patience")


class FashionHyperModel(keras_tuner.HyperModel):
    """Builds and fits the model of one trial: `base` has the fields that are not searched."""

    def __init__(self, base: Config, data: HeadData) -> None:
        super().__init__()
        self.base = base
        self.data = data

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`: always the same for the same values."""
        config = sample_head(hp, self.base)
        return compiled_head(config, len(self.data.labels), len(self.data.classes))

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; see `fit_trial`."""
        config = sample_head(hp, self.base)
        data = head_datasets(config, self.data, kwargs.get("initial_epoch", 0))
        return fit_trial(model, data, steps_per_epoch(config, len(self.data.classes)), **kwargs)


def fit_trial(
    model: keras.Model, data: tuple[Any, Any], steps: int, **kwargs: Any
) -> keras.callbacks.History:
    """Fit a model on batches for training, without end, and for validation.

    `steps` are those of an epoch; `epochs`, `initial_epoch` and others arrive in `kwargs`.

    Raises:
        FailedTrialError: If the validation loss is not a number in any epoch.
    """
    train, validation = data
    options: Any = {"steps_per_epoch": steps, "shuffle": False}  # They are shuffled already.
    fitted = model.fit(train, validation_data=validation, **options, **kwargs)
    if not all(map(math.isfinite, fitted.history["val_loss"])):
        raise keras_tuner.errors.FailedTrialError("the loss became infinite or no number")
    return fitted


def compiled_head(config: Config, classes: int, photos: int) -> Any:
    """Return what `build_compiled_head` does; it may be an earlier model that was set back."""
    gc.collect()  # Earlier models and copies of the features are freed by nothing else.
    if not _COMPILED:
        gc.freeze()  # What is in use now need not be looked at each time.
    fresh = build_compiled_head(config, classes, photos)
    architecture = deciding(config, "head")
    for name in _VARIABLE:
        del architecture[name]
    key = (config.backbone, *architecture.values(), classes, photos)
    model = _COMPILED.pop(key, fresh)
    if model is not fresh:
        restore(model, state_of(fresh))
    _COMPILED[key] = model  # The last one is the one used last.
    if len(_COMPILED) > _MAX_COMPILED:
        del _COMPILED[next(iter(_COMPILED))]
    return model
