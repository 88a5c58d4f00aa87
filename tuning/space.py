"""The search spaces alone: hyperparameters become a `Config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import Config
from fashion_keras.model import PIXELS

if TYPE_CHECKING:
    import keras_tuner

SEARCHED = ("learning_rate", "inner_size", "droprate", "augmented_copies")
TUNED = (
    *("fine_tuning_learning_rate", "fine_tune_from", "label_smoothing", "droprate"),
    *("rotation", "zoom"),
)
# On feature maps each strength needs copies of its own, so there are few.
STRENGTHS = {"half": 0.5, "usual": 1.0, "double": 2.0}


class Space(NamedTuple):
    """What a stage of the search varies, and the metric of validation that it makes best.

    Attributes:
        sample: Returns a configuration with the searched fields set from hyperparameters.
        fields: Names of these fields.
        objective: Name of the metric, in a row of an epoch.
        direction: `max` or `min`.
        limited: Returns a configuration that is trained for a number of epochs.
    """

    sample: Callable[[keras_tuner.HyperParameters, Config], Config]
    fields: tuple[str, ...]
    objective: str
    direction: str
    limited: Callable[[Config, int], Config]

    def judged_by(self, config: Config) -> Space:
        """Return the space with balanced accuracy as its metric if that is the objective."""
        if config.objective == "accuracy":
            return self
        return self._replace(objective=f"val_{config.objective}", direction="max")

    def best(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the row with the best objective, the first of several; None if there is none."""
        choose = max if self.direction == "max" else min
        return choose(rows, key=lambda row: row[self.objective], default=None)

    def values(self, config: Config) -> dict[str, Any]:
        """Return the searched fields, by name."""
        return {name: getattr(config, name) for name in self.fields}

    def ranges(self, base: Config) -> list[dict[str, Any]]:
        """Return the range of each hyperparameter: its `name`, `min`, `max` and `steps`."""
        import keras_tuner

        hp: Any = keras_tuner.HyperParameters()
        self.sample(hp, base)
        names = ("name", "min", "max", "steps")
        return [dict(zip(names, _range(one), strict=True)) for one in hp.space]


def _range(one: Any) -> tuple[str, Any, Any, str]:
    if hasattr(one, "min_value"):
        return one.name, one.min_value, one.max_value, one.sampling
    if hasattr(one, "values") and len(one.values) > 1 and isinstance(one.values[0], str):
        return one.name, one.values[0], one.values[-1], "one of " + ", ".join(one.values)
    return one.name, "no", "yes", "either"


def sample_head(hp: keras_tuner.HyperParameters, base: Config) -> Config:
    """Return `base` with the fields of the head set from `hp`.

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


# Nothing stops early, so patience does not matter.
HEAD = Space(
    *(sample_head, SEARCHED, "val_accuracy", "max"),
    lambda config, epochs: dataclasses.replace(config, epochs=epochs, patience=1),
)


def starts(backbone: str, on_pixels: bool) -> tuple[str, ...]:
    """Return where fine-tuning may start: on pixels in four places, on feature maps in two."""
    known = ARCHITECTURES[backbone]
    if on_pixels:
        count = len(known.blocks)
        return PIXELS, *(known.blocks[count * part // 3] for part in range(3))
    at = known.blocks.index(known.block)
    other = at + 3 if at + 3 < len(known.blocks) else at - 1
    return tuple(known.blocks[place] for place in sorted((at, other)))


def stronger(config: Config, strength: float) -> Config:
    """Return a configuration whose augmentation is so many times as strong."""
    rotation, zoom = min(0.5, config.rotation * strength), min(0.9, config.zoom * strength)
    return dataclasses.replace(config, rotation=rotation, zoom=zoom)


def _augments(config: Config) -> bool:
    return bool(config.fine_tuning_copies and (config.rotation or config.zoom))


def on_feature_maps(base: Config) -> Iterator[Config]:
    """Yield a configuration for each of the feature maps that trials of fine-tuning may read."""
    for place in starts(base.backbone, False):
        for strength in STRENGTHS.values() if _augments(base) else [1.0]:
            yield stronger(dataclasses.replace(base, fine_tune_from=place), strength)


def fine_tuning(on_pixels: bool) -> Space:
    """Return the space of fine-tuning: on pixels, or on feature maps that are computed once."""

    def sample(hp: Any, base: Config) -> Config:
        rate, places = base.fine_tuning_learning_rate, starts(base.backbone, on_pixels)
        if not _augments(base):
            strength = 1.0
        elif on_pixels:
            strength = hp.Float("augmentation", 0.25, 4.0, sampling="log", default=1.0)
        else:
            strength = STRENGTHS[hp.Choice("augmentation", list(STRENGTHS), default="usual")]
        return dataclasses.replace(
            stronger(base, strength),
            fine_tuning_learning_rate=hp.Float(
                "fine_tuning_learning_rate", 1e-4, 2e-3, sampling="log", default=rate
            ),
            fine_tune_from=hp.Choice("fine_tune_from", list(places)),
            label_smoothing=hp.Float("label_smoothing", 0.0, 0.2, default=base.label_smoothing),
            droprate=hp.Float("droprate", 0.0, 0.8, default=base.droprate),
        )

    return Space(
        *(sample, TUNED, "val_log_loss", "min"),
        lambda config, epochs: dataclasses.replace(config, fine_tuning_epochs=epochs),
    )
