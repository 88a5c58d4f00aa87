"""Trains the top of the backbone further, together with the head that was trained before.

First the head alone, then both (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"):
a trained head does not distort the features of the backbone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.artifacts import fingerprint, one_at_a_time, whole_file
from fashion_keras.backend import keras
from fashion_keras.cli import duration, stage
from fashion_keras.config import Config, InputError, deciding
from fashion_keras.data.batches import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.model import (
    BLOCKS,
    build_top,
    build_trainer,
    copied,
    divisible,
    memory_advice,
    precision_in_force,
    strategy,
    unfreeze,
    versions,
    weights_digest,
)
from fashion_keras.training import (
    Datasets,
    History,
    Recorder,
    TrainedHead,
    compile_model,
    labels_key,
    read_state,
    show_epochs,
    steps_per_epoch,
    write_state,
)

STAGE = "fine-tuning"  # Name of its rows in a history.
PIXELS = "pixels"
_CPU_DEFAULT = "block11"
_WARM_UP = 0.1  # Share of all steps in which the learning rate rises.
_LAYOUT = 1  # Raise it when epochs of older versions must not be used any more.


class FineTuned(NamedTuple):
    """A backbone and a head after fine-tuning.

    Attributes:
        backbone: A new one; that of `Datasets` stays as it is.
        head: A new one, not compiled.
        history: One row an epoch: epoch, loss, accuracy, val_loss, val_accuracy, seconds.
        validation: `loss` (with smoothed labels) and `accuracy` on validation.
    """

    backbone: keras.Model
    head: keras.Model
    history: History
    validation: dict[str, float]


def check_fine_tune_from(config: Config) -> None:
    """Raise the error for a block that does not exist, before anything slow is done.

    Raises:
        InputError: If `config.fine_tune_from` is neither a block nor one of the words.
    """
    if config.fine_tune_from not in ("auto", PIXELS, *BLOCKS):
        raise InputError(
            f"`fine_tune_from` must be `auto`, `{PIXELS}` or one of {', '.join(BLOCKS)}. "
            f"Received: fine_tune_from={config.fine_tune_from!r}"
        )


def chosen_fine_tune_from(config: Config) -> str:
    """Return `config.fine_tune_from` with `auto` replaced by what suits this machine."""
    if config.fine_tune_from != "auto":
        return config.fine_tune_from
    return PIXELS if keras.distribution.list_devices("gpu") else _CPU_DEFAULT


class Trainee(NamedTuple):
    """What is fine-tuned: `model`, from feature maps or pixels to logits, shares its weights."""

    model: Any
    backbone: keras.Model
    head: keras.Model


def build_trainee(
    config: Config, datasets: Datasets, head: keras.Model, first_epoch: int = 0
) -> Trainee:
    """Return copies of backbone and head, and the model that trains them, not compiled.

    Args:
        config: The fields that decide `fine_tuning` are used, and, from pixels, `copies`.
        datasets: Supplies the backbone.
        head: The trained head.
        first_epoch: Epochs made before; other random draws follow them.
    """
    keras.utils.set_random_seed(config.seed + first_epoch)
    block = chosen_fine_tune_from(config)
    # The head stays float32: it is a thousandth of the work.
    backbone = copied(datasets.backbone, precision_in_force(config.precision))
    head = copied(head)
    unfreeze(backbone)
    if block != PIXELS:
        return Trainee(build_top(backbone, head, block), backbone, head)
    seed = config.augmentation_seed + 1000 * first_epoch if config.fine_tuning_copies else None
    return Trainee(build_trainer(config, backbone, head, seed), backbone, head)


def compile_trainee(model: keras.Model, config: Config, rate: Any) -> None:
    """Compile a model for fine-tuning at a learning rate that is a number or a schedule."""
    optimizer: Any = keras.optimizers.Adam(rate)
    if precision_in_force(config.precision) == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # Small gradients would be 0.
    compile_model(model, optimizer, config)


def learning_rates(config: Config, steps: int) -> Any:
    """Return the schedule: the rate rises to its peak, then falls along a cosine.

    Args:
        config: Peak and number of epochs are used.
        steps: Batches in an epoch.
    """
    total = steps * config.fine_tuning_epochs
    warm_up = max(1, round(_WARM_UP * total))
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total - warm_up),
        warmup_target=config.fine_tuning_learning_rate,
        warmup_steps=warm_up,
    )


def fine_tuning_datasets(
    config: Config, datasets: Datasets, first_epoch: int = 0
) -> tuple[Any, Any]:
    """Return batches and one-hot labels for training and validation: feature maps, or pixels.

    Feature maps that are missing are computed; whether the disk has room for them, only
    `FeatureStore.make_feature_maps` asks. After `first_epoch` epochs feature maps come in the
    order in which they would have continued, pixels in another one.
    """
    prepared, store, block = datasets.prepared, datasets.store, chosen_fine_tune_from(config)
    classes, size = len(prepared.labels), config.batch_size
    if block == PIXELS:
        pixels = (config.image_size, size)
        keras.utils.set_random_seed(config.seed + first_epoch)  # Decides the order, too.
        train = load_split(prepared, "train", *pixels, seed=config.seed + first_epoch)
        validation = load_split(prepared, "validation", *pixels)
    else:
        arrays = _arrays(config)
        store.make(arrays, block)
        *copies, held_out = (store.feature_maps(*array, block) for array in arrays)
        numbers = class_numbers(prepared, "train")
        train = feature_batches(copies, numbers, size, config.seed, first_epoch)
        validation = feature_batches([held_out], class_numbers(prepared, "validation"), size)
    return one_hot(train, classes), one_hot(validation, classes)


def _arrays(config: Config) -> list[tuple[str, int]]:
    copies = range(config.fine_tuning_copies + 1)
    return [*(("train", copy) for copy in copies), ("validation", 0)]


def fine_tuning_key(config: Config, datasets: Datasets, head: keras.Model) -> str:
    """Return the key of all that decides a fine-tuning that starts from a trained head."""
    store, block = datasets.store, chosen_fine_tune_from(config)
    fields = deciding(config, "fine_tuning") | {
        "fine_tune_from": block,
        "precision": precision_in_force(config.precision),
    }
    if block == PIXELS:
        copies = bool(config.fine_tuning_copies)  # They are drawn again in each epoch.
        fields |= (deciding(config, "copies") if copies else {}) | {"fine_tuning_copies": copies}
        features = [store.key(split) for split in ("train", "validation")]
    else:
        features = [store.key(*array, block) for array in _arrays(config)]
    return fingerprint(
        fields=fields,
        features=features,
        head=weights_digest(head),
        labels=labels_key(datasets.prepared),
        versions=versions(),
        layout=_LAYOUT,
    )


@stage(STAGE)
def fine_tune(
    config: Config,
    datasets: Datasets,
    trained: TrainedHead,
    cache: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuned:
    """Train the backbone from `config.fine_tune_from` on, and the head, for a number of epochs.

    The state after each epoch is kept until the next one is: a run that was interrupted continues
    there and, on feature maps, on one kind of CPU, ends with the same weights to the last bit.
    (On pixels photos come in another order than they would have.) Several graphics cards share
    each batch; they add up sums in another order each time.

    Args:
        config: The configuration.
        datasets: See `training.open_datasets`; missing feature maps are computed.
        trained: The trained head.
        cache: Folder for the states.
        callbacks: Callbacks for Keras; they see the epochs of an earlier run first.

    Raises:
        InputError: If a loss is not a number any more, or memory does not suffice.
    """
    states = _States(cache / "fine-tuning", fine_tuning_key(config, datasets, trained.head))
    with one_at_a_time(states.lock, "this fine-tuning"), strategy().scope():
        trainee, history = _fit(config, datasets, trained.head, states, callbacks)
    backbone = copied(datasets.backbone)  # It computes in float32 whatever the trainee did.
    backbone.set_weights(trainee.backbone.get_weights())
    validation = {name: history[-1][f"val_{name}"] for name in ("loss", "accuracy")}
    return FineTuned(backbone, copied(trainee.head), history, validation)


def _fit(
    config: Config,
    datasets: Datasets,
    head: keras.Model,
    states: "_States",
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[Trainee, History]:
    arrays, history = states.newest()
    train, validation = fine_tuning_datasets(config, datasets, len(history))
    trainee = build_trainee(config, datasets, head, len(history))
    steps = steps_per_epoch(config, len(datasets.prepared.split("train")))
    compile_trainee(trainee.model, config, learning_rates(config, steps))
    if history:
        print(f"fine-tuning continues after epoch {len(history)}, found in the cache", flush=True)
        for variable, value in zip(_variables(trainee.model), arrays, strict=True):
            variable.assign(value)
        show_epochs(history, trainee.model, callbacks)
    keeper = _Keeper(history, states, config.fine_tuning_epochs)
    devices = strategy().num_replicas_in_sync
    with memory_advice("--batch-size", config.batch_size):
        trainee.model.fit(
            divisible(train, devices),
            validation_data=divisible(validation, devices),
            initial_epoch=len(history),
            epochs=config.fine_tuning_epochs,
            shuffle=False,  # The batches are shuffled already.
            verbose=1 if sys.stdout.isatty() else 0,
            callbacks=[keeper, *callbacks],
        )
    return trainee, keeper.history


def _variables(model: Any) -> list[Any]:
    """Return all that decides how a training continues, the seeds of its random layers, too."""
    return [*model.variables, *model.optimizer.variables]


class _States:
    """The states of one fine-tuning: a file after each epoch, of which only the newest is kept."""

    def __init__(self, folder: Path, key: str) -> None:
        self.lock = folder / f".{key}.lock"
        self._folder = folder
        self._key = key

    def newest(self) -> tuple[list[np.ndarray], History]:
        """Return variables and history after the last finished epoch, or nothing."""
        files = self._files()
        return read_state(files[-1]) if files else ([], [])

    def keep(self, model: Any, history: History) -> None:
        """Write the state after an epoch, and remove earlier ones."""
        earlier = self._files()
        file = self._folder / f"{self._key}-{len(history):04d}.npz"
        with whole_file(file) as unfinished:
            write_state(unfinished, map(keras.ops.convert_to_numpy, _variables(model)), history)
        for superseded in earlier:
            superseded.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._key}-*.npz"))


class _Keeper(Recorder):
    """Records, shows and keeps each epoch; stops where a loss is not a number."""

    def __init__(self, history: History, states: _States, epochs: int) -> None:
        super().__init__(history)
        self._states = states
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the epoch, keep its state, say how long the rest takes."""
        super().on_epoch_end(epoch, logs)
        row = self.history[-1]
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            raise InputError(
                f"Fine-tuning diverged in epoch {epoch + 1}: the loss is {row['loss']}, that of "
                f"validation {row['val_loss']}. Try a smaller `--fine-tuning-learning-rate`."
            )
        self._states.keep(self.model, self.history)
        left = duration((self._epochs - epoch - 1) * row["seconds"])
        print(
            f"fine-tuning: epoch {epoch + 1} of {self._epochs}, loss {row['loss']:.4f}, validation "
            f"accuracy {row['val_accuracy']:.4f}, {duration(row['seconds'])} an epoch, {left} left",
            flush=True,
        )
