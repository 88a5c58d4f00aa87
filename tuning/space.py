"""The search space alone: hyperparameters become a `Config`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fashion_keras.config import Config

if TYPE_CHECKING:
    import keras_tuner

SEARCHED = ("learning_rate", "inner_size", "droprate", "augmented_copies")


def sample_config(hp: keras_tuner.HyperParameters, base: Config) -> Config:
    """Return `base` with the searched fields set from `hp`.

    Defaults are those of `Config`. Whether augmented copies are used is searched only if `base`
    has any.
    """
    defaults = Config()
    use_copies = bool(base.augmented_copies) and hp.Boolean("augmented", default=True)
    return dataclasses.replace(
        base,
        learning_rate=hp.Float(
            "learning_rate", 1e-4, 1e-1, sampling="log", default=defaults.learning_rate
        ),
        inner_size=hp.Int("inner_size", 16, 1024, sampling="log", default=defaults.inner_size),
        droprate=hp.Float("droprate", 0.0, 0.8, default=defaults.droprate),
        augmented_copies=base.augmented_copies if use_copies else 0,
    )


def searched_values(config: Config) -> dict[str, float]:
    """Return the fields that the search sets, by name."""
    return {name: getattr(config, name) for name in SEARCHED}


def space_of(base: Config) -> list[dict[str, Any]]:
    """Return the range of each hyperparameter: its `name`, `min`, `max` and `steps`."""
    import keras_tuner

    hp: Any = keras_tuner.HyperParameters()
    sample_config(hp, base)
    ranges = [
        (one.name, one.min_value, one.max_value, one.sampling)
        if hasattr(one, "min_value")
        else (one.name, "no", "yes", "either")
        for one in hp.space
    ]
    return [dict(zip(("name", "min", "max", "steps"), one, strict=True)) for one in ranges]
