"""Trains the top of the backbone further, together with the head that was trained before.

First the head alone, then both (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"):
a trained head does not distort the features of the backbone.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras import model as models
from fashion_keras.artifacts import fingerprint, made_once, one_at_a_time, whole_file
from fashion_keras.backend import keras
from fashion_keras.cli import duration, stage
from fashion_keras.config import Config, InputError, deciding
from fashion_keras.data.batches import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.features import Array
from fashion_keras.model import PIXELS, chosen_fine_tune_from, copied, precision_in_force, strategy
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
_WARM_UP = 0.1  # Share of all steps in which the learning rate rises.
_PLANNED_SHARE = 0.9  # Of a budget: speeds vary.
_FIXED_SECONDS = 30.0  # For compiling, saving and pictures.
_STEPS = 3  # That are timed of each kind.
_LAYOUT = 1  # Raise it when epochs of older versions must not be used any more.


class FineTuned(NamedTuple):
    """New models after fine-tuning, one row an epoch, `loss` and `accuracy` on validation."""

    backbone: keras.Model
    head: keras.Model
    history: History
    validation: dict[str, float]


class Trainee(NamedTuple):
    """The model that is fitted, from feature maps or pixels to logits, and its two parts."""

    model: Any
    backbone: keras.Model
    head: keras.Model


def build_trainee(
    config: Config, datasets: Datasets, head: keras.Model, first_epoch: int = 0
) -> Trainee:
    """Return copies of backbone and trained head in a model that trains them, not compiled.

    After `first_epoch` epochs other random draws follow.
    """
    keras.utils.set_random_seed(config.seed + first_epoch)
    block = chosen_fine_tune_from(config)
    # The head stays float32: it is a thousandth of the work.
    backbone = copied(datasets.backbone, precision_in_force(config.precision))
    head = copied(head)
    models.unfreeze(backbone)
    if block != PIXELS:
        return Trainee(models.build_top(backbone, head, block), backbone, head)
    seed = config.augmentation_seed + 1000 * first_epoch if config.fine_tuning_copies else None
    return Trainee(models.build_trainer(config, backbone, head, seed), backbone, head)


def compile_trainee(model: keras.Model, config: Config, rate: Any) -> None:
    """Compile a model for fine-tuning at a learning rate that is a number or a schedule."""
    optimizer: Any = keras.optimizers.Adam(rate)
    if precision_in_force(config.precision) == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # Small gradients would be 0.
    compile_model(model, optimizer, config)


def learning_rates(config: Config, steps: int) -> Any:
    """Return the schedule, for `steps` an epoch: a rise to the peak, then a fall along a cosine."""
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

    Missing feature maps are computed; only `FeatureStore.make_feature_maps` asks whether the disk
    has room for them. After `first_epoch` epochs feature maps come in the order in which they
    would have continued, pixels in another one.
    """
    prepared, store, block = datasets.prepared, datasets.store, chosen_fine_tune_from(config)
    size, seed, classes = config.batch_size, config.seed, len(prepared.labels)
    if block == PIXELS:
        keras.utils.set_random_seed(seed + first_epoch)  # Decides the order, too.
        train = load_split(prepared, "train", config.image_size, size, seed + first_epoch)
        validation = load_split(prepared, "validation", config.image_size, size)
    else:
        store.make(_arrays(config), block)
        *copies, held_out = (store.feature_maps(*array, block) for array in _arrays(config))
        numbers, held_out_numbers = (
            class_numbers(prepared, one) for one in ("train", "validation")
        )
        train = feature_batches(copies, numbers, size, seed, first_epoch)
        validation = feature_batches([held_out], held_out_numbers, size)
    return one_hot(train, classes), one_hot(validation, classes)


def _arrays(config: Config) -> list[Array]:
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
        augmented = bool(config.fine_tuning_copies)  # How many makes no difference.
        fields |= {"fine_tuning_copies": augmented}
        fields |= deciding(config, "copies") if augmented else {}
        features = [store.key("train"), store.key("validation")]
    else:
        features = [store.key(*array, block) for array in _arrays(config)]
    return fingerprint(
        fields=fields,
        features=features,
        head=models.weights_digest(head),
        labels=labels_key(datasets.prepared),
        versions=models.versions(),
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

    The state after each epoch is kept until the next one is: an interrupted run continues there
    and, on feature maps, on one kind of CPU, ends with the same weights to the last bit. Several
    graphics cards share each batch; they add up sums in another order each time.

    Args:
        config: The configuration.
        datasets: See `training.open_datasets`; missing feature maps are computed.
        trained: The trained head.
        cache: Folder for the states.
        callbacks: For Keras; they see the epochs of an earlier run first.

    Raises:
        InputError: If a loss is not a number any more, or memory does not suffice.
    """
    key = fine_tuning_key(config, datasets, trained.head)
    states = cache / "fine-tuning" / key  # The epoch and a suffix are added to this name.
    with one_at_a_time(states.with_suffix(".lock"), "this fine-tuning"), strategy().scope():
        trainee, history = _fit(config, datasets, trained.head, states, callbacks)
    backbone = copied(datasets.backbone)  # It computes in float32 whatever the trainee did.
    backbone.set_weights(trainee.backbone.get_weights())
    validation = {name: history[-1][f"val_{name}"] for name in ("loss", "accuracy")}
    return FineTuned(backbone, copied(trainee.head), history, validation)


def _fit(
    config: Config,
    datasets: Datasets,
    head: keras.Model,
    states: Path,
    callbacks: Sequence[keras.callbacks.Callback],
) -> tuple[Trainee, History]:
    arrays, history = read_state(_files(states)[-1]) if _files(states) else ([], [])
    batches = fine_tuning_datasets(config, datasets, len(history))
    train, validation = (models.divisible(one, strategy().num_replicas_in_sync) for one in batches)
    trainee = build_trainee(config, datasets, head, len(history))
    steps = steps_per_epoch(config, len(datasets.prepared.split("train")))
    compile_trainee(trainee.model, config, learning_rates(config, steps))
    if history:
        print(f"fine-tuning continues after epoch {len(history)}, found in the cache", flush=True)
        for variable, value in zip(_variables(trainee.model), arrays, strict=True):
            variable.assign(value)
        show_epochs(history, trainee.model, callbacks)
    keeper = _Keeper(history, states, config.fine_tuning_epochs)
    with models.memory_advice("--batch-size", config.batch_size):
        trainee.model.fit(
            train,
            validation_data=validation,
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


def _files(states: Path) -> list[Path]:
    return sorted(states.parent.glob(f"{states.name}-*.npz"))


class _Keeper(Recorder):
    """Records, shows and keeps each epoch; stops where a loss is not a number."""

    def __init__(self, history: History, states: Path, epochs: int) -> None:
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
        superseded = _files(self._states)
        with whole_file(Path(f"{self._states}-{epoch + 1:04d}.npz")) as unfinished:
            arrays = map(keras.ops.convert_to_numpy, _variables(self.model))
            write_state(unfinished, arrays, self.history)
        for file in superseded:
            file.unlink()
        left = duration((self._epochs - epoch - 1) * row["seconds"])
        print(
            f"fine-tuning: epoch {epoch + 1} of {self._epochs}, loss {row['loss']:.4f}, validation "
            f"accuracy {row['val_accuracy']:.4f}, {duration(row['seconds'])} an epoch, {left} left",
            flush=True,
        )


class Plan(NamedTuple):
    """What is done within a budget; there is a line for all that is left out."""

    budget_minutes: float
    expected_minutes: float
    photos_per_second: dict[str, float]
    left_out: list[str]


@stage("plan")
def plan(
    config: Config, datasets: Datasets, budget: float, start: float, cache: Path
) -> tuple[Config, Plan]:
    """Return a configuration that fits into a budget of minutes, and the plan.

    Copies and epochs of fine-tuning are reduced evenly; in the end the copies of the head, too.
    What is in the cache takes no time. The plan is kept: the same command follows it after an
    interruption, because another one could not use what was finished.

    Args:
        config: All that is wanted.
        datasets: See `training.open_datasets`.
        budget: Minutes for the whole run.
        start: `time.monotonic()` when the run began.
        cache: Folder for the plan.

    Raises:
        InputError: If even a head on frozen features takes longer.
    """
    wanted = dataclasses.asdict(config) | {"fine_tune_from": chosen_fine_tune_from(config)}
    features = [datasets.store.key(split) for split in ("train", "validation")]
    key = fingerprint(config=wanted, budget=budget, features=features)
    file = cache / "plans" / f"{key}.json"
    if file.exists():
        print(f"the plan made for this budget before is followed ({file})", flush=True)

    def make(unfinished: Path) -> None:
        fields, made = _planned(config, datasets, budget, start)
        unfinished.write_text(json.dumps([fields, made._asdict()]), encoding="utf-8")

    fields, made = json.loads(made_once(file, make).read_text(encoding="utf-8"))
    return dataclasses.replace(config, **fields), Plan(**made)


def _planned(
    config: Config, datasets: Datasets, budget: float, start: float
) -> tuple[dict[str, int], Plan]:
    speed = measure(config, datasets)
    spent, seconds = time.monotonic() - start, 0.0
    for fields in _candidates(config):
        candidate = dataclasses.replace(config, **fields)
        seconds = spent + expected_seconds(candidate, datasets, speed)
        if seconds <= _PLANNED_SHARE * budget * 60:
            left_out = [
                f"{name}: {value} instead of {getattr(config, name)}"
                for name, value in fields.items()
                if value != getattr(config, name)
            ]
            rates = {name: round(value, 1) for name, value in speed.items()}
            return fields, Plan(budget, round(seconds / 60, 1), rates, left_out)
    raise InputError(  # For the last candidate.
        f"The least that can be done takes about {seconds / 60 / _PLANNED_SHARE:.0f} minutes on "
        f"this machine. Received: --budget {budget:g}. Give more, or a smaller `--image-size`."
    )


def _candidates(config: Config) -> Iterator[dict[str, int]]:
    """Yield the fields of ever cheaper configurations."""
    copies, epochs = config.fine_tuning_copies, config.fine_tuning_epochs
    free = chosen_fine_tune_from(config) == PIXELS  # There copies take no time.
    for tenths in range(10, 0, -1):
        if fewer := round(epochs * tenths / 10):
            kept = copies if free else round(copies * tenths / 10)
            yield {"fine_tuning_copies": kept, "fine_tuning_epochs": fewer}
    yield {"fine_tuning_epochs": 0}
    yield {"fine_tuning_epochs": 0, "augmented_copies": 0}


def expected_seconds(config: Config, datasets: Datasets, speed: dict[str, float]) -> float:
    """Return how long a run should take on a machine of this speed."""
    prepared, block = datasets.prepared, chosen_fine_tune_from(config)
    train, held_out = len(prepared.split("train")), len(prepared.split("validation"))
    mapped = _arrays(config) if config.fine_tuning_epochs and block != PIXELS else []
    arrays = {("train", copy) for copy in range(config.augmented_copies + 1)} | {("validation", 0)}
    missing = sum(datasets.store.missing(*array) for array in arrays.difference(mapped))
    missing += sum(datasets.store.missing(*array, block) for array in mapped)
    # The rest of the photos go once more through the whole classifier, to calibrate and to test it.
    missing += len(prepared.photos) - train
    head = config.epochs * train / speed["head"]
    # An epoch of fine-tuning includes validation, without gradients: a third of the work.
    epochs = config.fine_tuning_epochs * (train + held_out / 3)
    return _FIXED_SECONDS + missing / speed["forward"] + head + epochs / speed["fine_tuning"]


def measure(config: Config, datasets: Datasets) -> dict[str, float]:
    """Time steps through the backbone, of fine-tuning and of a head, in photos a second."""
    classes, block = len(datasets.prepared.labels), chosen_fine_tune_from(config)
    batches = load_split(datasets.prepared, "train", config.image_size, config.batch_size)
    pixels, labels = next(iter(one_hot(batches, classes)))
    augmentation = models.build_augmentation(config, config.augmentation_seed)
    cut = None if block == PIXELS else block
    features = models.build_feature_model(datasets.backbone, cut, config.precision)
    found = features.predict_on_batch(pixels)
    head: Any = models.build_head(config, classes)
    trainee = build_trainee(config, datasets, head).model
    for model in (head, trainee):
        compile_trainee(model, config, 0.0)
    inputs = pixels if block == PIXELS else found["feature_maps"]
    steps = {
        "forward": lambda: features.predict_on_batch(augmentation(pixels, training=True)),
        "fine_tuning": lambda: trainee.train_on_batch(inputs, labels),
        "head": lambda: head.train_on_batch(found["features"], labels),
    }
    return {name: _rate(step, len(pixels)) for name, step in steps.items()}


def _rate(step: Callable[[], Any], photos: int) -> float:
    step()  # Compiles.
    start = time.monotonic()
    for _ in range(_STEPS):
        step()
    return photos * _STEPS / (time.monotonic() - start)
