"""Every knob of a run: the frozen flat dataclass `Config`, its checks and its JSON form."""

import dataclasses
import json
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what to do instead."""


PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def _knob(
    default: Any,
    help_text: str,
    least: float | None = None,
    most: float | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    limits = {"least": least, "most": most, "words": words}
    return dataclasses.field(default=default, metadata={"help": help_text} | limits)


@dataclasses.dataclass(frozen=True)
class Config:
    """All that decides what a run trains, as plain values.

    Each field's meaning, unit and range stand beside it; the commands' options and `--help`
    are made from them.

    Raises:
        InputError: If a value has another type than its default or lies outside its range.
    """

    data: str = _knob(
        "clothing",
        "photos: `clothing` (clothing-dataset-small, downloaded once), `sample` (drawn), or a "
        "folder with train/validation/test folders of class folders, or with class folders only",
    )
    weights: str = _knob(
        "imagenet",
        "what the backbone starts from: `imagenet` (downloaded once; where that is not possible, "
        "set $FASHION_KERAS_WEIGHTS to a copy of the file), a weights file of Keras' "
        "Xception without its top, a `.keras` file saved by this project, or `none` (random: "
        "the backbone is trained too)",
    )
    image_size: int = _knob(299, "side in pixels to which photos are resized", 71, 2000)
    augmented_copies: int = _knob(
        1, "augmented copies of each training photo beside the photo itself", 0, 64
    )
    rotation: float = _knob(0.03, "largest random rotation of a view, in turns", 0.0, 0.5)
    zoom: float = _knob(0.1, "largest random zoom of a view, as a share of the side", 0.0, 0.9)
    inner_size: int = _knob(100, "units of the head's inner layer; 0 for none", 0, 65536)
    droprate: float = _knob(0.2, "share of inner units dropped while training", 0.0, 0.95)
    learning_rate: float = _knob(0.0005, "learning rate of Adam", 1e-8, 10.0)
    label_smoothing: float = _knob(
        0.1, "share of each label that is spread over all classes while training", 0.0, 0.9
    )
    ema_epochs: float = _knob(
        5.0, "the head's weights are averaged over about so many last epochs; 0 for none", 0.0, 1e4
    )
    heads: int = _knob(
        5,
        "heads that are trained with different seeds and averaged in the end; one if the backbone "
        "is trained too",
        1,
        1000,
    )
    epochs: int = _knob(50, "most passes over the training photos", 1, 100_000)
    patience: int = _knob(10, "stop after so many epochs without improvement", 1, 100_000)
    fine_tune_from: str = _knob(
        "auto",
        "where fine-tuning cuts the backbone: `block2` to `block14` of Xception are trained from "
        "this one on, on maps that are made once; `pixels`: all of it is trained, on freshly "
        "augmented photos; `auto`: `pixels` with a graphics card, else `block11`",
    )
    fine_tuning_copies: int = _knob(
        4,
        "augmented copies of each training photo to fine-tune on, beside the photo itself; with "
        "`--fine-tune-from pixels` copies are made anew in each pass, and 0 means none",
        0,
        64,
    )
    fine_tuning_epochs: int = _knob(
        8, "passes over the training photos to fine-tune the backbone; 0: it stays frozen", 0, 1000
    )
    fine_tuning_learning_rate: float = _knob(
        0.0003, "highest learning rate while fine-tuning; it rises to it and falls", 1e-8, 10.0
    )
    precision: str = _knob(
        "float32",
        "what the backbone computes in: `float32`, or, faster with a graphics card, "
        "`mixed_float16` or `mixed_bfloat16` (this also on CPUs with AMX); where it gains nothing "
        "`float32` is used; the saved file is float32 in any case",
        words=PRECISIONS,
    )
    batch_size: int = _knob(32, "photos (or vectors) in one step", 1, 65536)
    # KerasTuner takes 0 for "draw a random seed", so 0 is refused everywhere.
    seed: int = _knob(1, "seed of everything random, 1 or more", 1, 1_000_000_000)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """Return `value` in its field's type, or raise the error that names what is wrong."""
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InputError(
            f"`{field.name}` must be of type {kind.__name__}. Received: {field.name}={value!r}"
        )
    least, most, words = (field.metadata[limit] for limit in ("least", "most", "words"))
    if words and value not in words:
        raise InputError(
            f"`{field.name}` must be one of {', '.join(words)}. Received: {field.name}={value!r}"
        )
    if least is not None and not least <= value <= most:
        raise InputError(
            f"`{field.name}` must lie between {least} and {most}. Received: {field.name}={value!r}"
        )
    return value


def names() -> tuple[str, ...]:
    """Return the names of all knobs, in the order of `Config`."""
    return tuple(field.name for field in dataclasses.fields(Config))


def to_json(config: Config) -> str:
    """Return `config` as JSON text that `from_json` turns into an equal `Config`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Read a `Config` from JSON text; knobs that it does not name keep their defaults.

    Raises:
        InputError: If the text is not a JSON object, or names a knob that does not exist.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"Expected a configuration as a JSON object. Received: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"Expected a configuration as a JSON object. Received: {text[:60]!r}")
    unknown = sorted(set(values) - set(names()))
    if unknown:
        raise InputError(
            f"A configuration has the keys {', '.join(names())}. Received: {', '.join(unknown)}"
        )
    return Config(**values)


def read_config(path: Path) -> Config:
    """Read a `Config` from a JSON file.

    Raises:
        InputError: If there is no such file, or it holds no configuration.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"No configuration file at {path}; `python -m tuning.search` writes one."
        ) from error
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
