"""The search space alone: hyperparameters become a `Config`."""

import dataclasses

import keras_tuner

from fashion_keras.config import Config


def sample_config(hp: keras_tuner.HyperParameters, base: Config) -> Config:
    """Return `base` with the searched knobs set from `hp`.

    Defaults are those of `Config`. Whether augmented copies are used is searched for only if
    `base` has any.
    """
    defaults = Config()
    use_views = bool(base.augmented_copies) and hp.Boolean("augmented_views", default=True)
    return dataclasses.replace(
        base,
        learning_rate=hp.Float(
            "learning_rate", 1e-4, 1e-1, sampling="log", default=defaults.learning_rate
        ),
        inner_size=hp.Int("inner_size", 16, 1024, sampling="log", default=defaults.inner_size),
        droprate=hp.Float("droprate", 0.0, 0.8, default=defaults.droprate),
        augmented_copies=base.augmented_copies if use_views else 0,
    )


def searched_values(config: Config) -> dict[str, float]:
    """Return the knobs that the search sets, by name."""
    return {
        name: getattr(config, name)
        for name in ("learning_rate", "inner_size", "droprate", "augmented_copies")
    }
