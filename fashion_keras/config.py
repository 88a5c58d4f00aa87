"""Every hyperparameter and option of a run: the frozen dataclass `Config`, checked, as JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from fashion_keras.backbones import ARCHITECTURES


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what to do instead."""


RELEASED = Path(__file__).parent / "released" / "fashion.keras"
SEARCH_SIZE = 150  # Side in pixels of photos in a search, unless another one is asked for.
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


def _field(
    default: Any,
    help_text: str,
    limits: tuple[float, float] | None = None,
    decides: str = "",
    choices: tuple[str, ...] = (),
    later: bool = False,
) -> Any:
    """Return a field; `decides` has the kinds of artifacts that it decides (see `deciding`).

    Of `later` fields the default is part of no key, so that keys of earlier versions stay.
    """
    metadata = {"help": help_text, "limits": limits, "choices": choices, "decides": decides}
    metadata["later"] = later
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """All that decides what a run trains, as plain values.

    The defaults are those of `final`. Each field's meaning, unit and range are
    given with it; the options of the commands and `--help` are made from them.

    Raises:
        InputError: If a value has another type than its default or lies outside its range.
    """

    data: str = _field(
        "clothing",
        "photos: `clothing` (clothing-dataset-small, downloaded once), `sample` (drawn), or a "
        "folder with train/validation/test folders of class folders, or with class folders only, "
        "or a .csv file with a column of files and one of labels",
    )
    label_column: str = _field(
        "",
        "column of a .csv file that holds the labels, where it has another name than `label`, "
        "`class` or `category`",
        decides="photos",
    )
    label_pattern: str = _field(
        "",
        "regular expression whose first group is the label in a photo's path, such as "
        "'([^/]+)_[0-9]+[.]jpg$', in place of class folders",
        decides="photos",
    )
    review: str = _field(
        "",
        "decisions on single photos, as `python -m fashion_keras.check PHOTOS --review` writes "
        "them (photos.review.csv): dropped photos are not used, moved ones take the other class",
        decides="photos",
    )
    backbone: str = _field(
        "xception",
        "backbone, with the size of its weights and its top-1 accuracy on ImageNet: "
        + ", ".join(
            f"{name} ({known.megabytes} MB, {known.accuracy:.3f})"
            for name, known in ARCHITECTURES.items()
        ),
        choices=tuple(ARCHITECTURES),
        decides="features",
    )
    weights: str = _field(
        "imagenet",
        "initial weights of the backbone: `imagenet` (downloaded once; where that is not possible, "
        "set $FASHION_KERAS_WEIGHTS to a copy of the file), `released` (the model that comes with "
        "this package, an Xception), a weights file of the same backbone in Keras without its top, "
        "or a `.keras` file saved by this project",
    )
    image_size: int = _field(
        299, "side in pixels to which photos are resized", (71, 2000), "features"
    )
    predict_size: int = _field(
        0,
        "side in pixels to which the saved model resizes photos; 0: that of training, or one "
        "larger by 16 or 32 percent, if its loss on 100 photos for validation or more is clearly "
        "lower",
        (0, 2000),
    )
    augmented_copies: int = _field(
        1,
        "augmented copies of each training photo, in addition to the photo itself",
        (0, 64),
        "head",
    )
    rotation: float = _field(
        0.03, "largest random rotation of a copy, in turns", (0.0, 0.5), "copies"
    )
    zoom: float = _field(
        0.1, "largest random zoom of a copy, as a share of the side", (0.0, 0.9), "copies"
    )
    mirror: bool = _field(
        True,
        "no copy is mirrored: for hands, letters and whatever is another thing in a mirror",
        decides="copies",
    )
    inner_size: int = _field(
        167, "units of the head's inner layer; 0 for none", (0, 65536), "head fine_tuning"
    )
    droprate: float = _field(
        0.317, "share of inner units dropped while training", (0.0, 0.95), "head fine_tuning"
    )
    learning_rate: float = _field(
        0.001426, "learning rate of Adam for the head", (1e-8, 10.0), "head"
    )
    label_smoothing: float = _field(
        0.1, "label smoothing of the loss while training", (0.0, 0.9), "head fine_tuning"
    )
    class_weights: str = _field(
        "none",
        "weights of the classes in the loss while training: `none`, or `balanced`, by which the "
        "fewer photos a class has, the more each of them counts",
        decides="head fine_tuning",
        choices=("none", "balanced"),
        later=True,
    )
    ema_epochs: float = _field(
        5.0,
        "the head's weights are an exponential moving average over about this many epochs; "
        "0 for none",
        (0.0, 1e4),
        "head",
    )
    epochs: int = _field(50, "largest number of epochs of the head", (1, 100_000), "head")
    patience: int = _field(
        10, "stop after this many epochs without improvement", (1, 100_000), "head"
    )
    fine_tune_from: str = _field(
        "auto",
        "first trainable layer of the backbone while fine-tuning, or how its name begins: `block2` "
        "to `block14` of Xception (other backbones: see docs/backbones.md), `pixels` (all of it), "
        "or `auto` (`pixels` with a graphics card, else a block from the middle on: `block5` of "
        "Xception)",
        decides="fine_tuning",
    )
    fine_tune_on: str = _field(
        "auto",
        "what fine-tuning reads: `feature_maps` (the input of that block, computed once), `pixels` "
        "(photos, augmented anew in each epoch), or `auto` (`pixels` with a graphics card, or "
        "where all of the backbone is trained)",
        choices=("auto", "feature_maps", "pixels"),
        decides="fine_tuning",
    )
    fine_tuning_copies: int = _field(
        2,
        "augmented copies of each training photo to fine-tune on, in addition to the photo "
        "itself; on `pixels` copies are drawn again in each epoch, and 0 means none",
        (0, 64),
        "fine_tuning",
    )
    fine_tuning_epochs: int = _field(
        4, "epochs of fine-tuning; 0: the backbone stays frozen", (0, 1000), "fine_tuning"
    )
    fine_tuning_learning_rate: float = _field(
        0.0003,
        "peak learning rate of fine-tuning, reached by warm-up and followed by cosine decay",
        (1e-8, 10.0),
        "fine_tuning",
    )
    objective: str = _field(
        "accuracy",
        "validation score by which a search ranks: `accuracy` (for fine-tuning: log loss), or "
        "`balanced_accuracy`, the mean recall, in which every class counts the same",
        decides="head fine_tuning",  # Their histories hold it.
        choices=("accuracy", "balanced_accuracy"),
        later=True,
    )
    precision: str = _field(
        "auto",
        "precision in which the backbone computes: `auto` (`mixed_bfloat16` on graphics cards of "
        "compute capability 8.0 or more and on CPUs with AVX512-BF16 or AMX, else `float32`), "
        "`float32`, `mixed_float16` or `mixed_bfloat16`; where it gains nothing `float32` is used; "
        "the saved file is float32 in any case",
        choices=PRECISIONS,
        decides="features fine_tuning",
    )
    batch_size: int = _field(
        32, "photos (or features of photos) in a training step", (1, 65536), "head fine_tuning"
    )
    feature_batch_size: int = _field(
        32, "photos that go through the frozen backbone at once", (1, 65536), "features"
    )
    split_seed: int = _field(
        1,
        "seed of the split of photos that come without one, and of the drawn sample",
        (0, 1_000_000_000),
        "photos",
    )
    augmentation_seed: int = _field(1, "seed of augmented copies", (0, 1_000_000_000), "copies")
    # KerasTuner takes 0 for "draw a random seed", so 0 is refused here.
    seed: int = _field(
        1,
        "seed of initial weights, order of photos, dropout and search, 1 or more",
        (1, 1_000_000_000),
        "head fine_tuning",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        if 0 < self.predict_size < 71:
            received = f"Received: predict_size={self.predict_size}"
            raise InputError(f"`predict_size` must be 0, or 71 or more. {received}")


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """Return `value` in its field's type, or raise the error that says what is wrong."""
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    limits, choices = field.metadata["limits"], field.metadata["choices"]
    if type(value) is not kind:
        expected = f"be of type {kind.__name__}"
    elif choices and value not in choices:
        expected = f"be one of {', '.join(choices)}"
    elif limits and not limits[0] <= value <= limits[1]:
        expected = f"lie between {limits[0]} and {limits[1]}"
    else:
        return value
    raise InputError(f"`{field.name}` must {expected}. Received: {field.name}={value!r}")


def names() -> tuple[str, ...]:
    """Return the names of all fields, in the order of `Config`."""
    return tuple(field.name for field in dataclasses.fields(Config))


def deciding(config: Config, kind: str) -> dict[str, Any]:
    """Return the fields that decide the content of an artifact, for its key.

    `kind` is `photos` (which photo is in which split), `features`, `copies` (features of augmented
    copies, in addition to `features`), `head`, or `fine_tuning` (in addition to the head and the
    features that it starts from).
    """
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(Config)
        if kind in field.metadata["decides"].split()
        and not (field.metadata["later"] and getattr(config, field.name) == field.default)
    }


def to_json(config: Config) -> str:
    """Return `config` as JSON text that `read_config` turns into an equal `Config`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def with_whole_paths(config: Config) -> Config:
    """Return the configuration with paths of photos, review and weights that hold anywhere."""
    fields = ("data", "review", "weights")
    paths = {name: Path(getattr(config, name)).expanduser() for name in fields}
    whole = {name: str(path.resolve()) for name, path in paths.items() if path.exists()}
    known = ("", "clothing", "sample", "imagenet", "released")
    whole = {name: path for name, path in whole.items() if getattr(config, name) not in known}
    return dataclasses.replace(config, **whole)


def read_config(path: Path) -> Config:
    """Read a `Config` from a JSON file; fields that it does not name keep their defaults.

    Raises:
        InputError: If there is no such file, it holds no JSON object, or one with other fields.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise InputError(f"Expected a JSON object. Received: {str(values)[:60]}")
        if unknown := sorted(set(values) - set(names())):
            known = ", ".join(names())
            raise InputError(
                f"A configuration has the keys {known}. Received: {', '.join(unknown)}"
            )
        return Config(**values)
    except FileNotFoundError as error:
        raise InputError(
            f"No configuration file at {path}; `python -m tuning.search` writes one."
        ) from error
    except ValueError as error:  # No JSON, no text or an `InputError`.
        raise InputError(f"{path}: {error}") from error
