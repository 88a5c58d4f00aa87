"""Plans how much of a training fits into a given time, from the speed of this machine."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.artifacts import fingerprint, made_once
from fashion_keras.cli import stage
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import load_split, one_hot
from fashion_keras.fine_tuning import (
    PIXELS,
    build_trainee,
    chosen_fine_tune_from,
    compile_trainee,
)
from fashion_keras.model import build_augmentation, build_feature_model, copied, precision_in_force
from fashion_keras.training import Datasets, build_compiled_head

_SHARE = 0.9  # Of the budget is planned for: speeds vary.
_FIXED = 30.0  # Seconds for compiling, saving and pictures.
_FIELDS = ("fine_tuning_copies", "fine_tuning_epochs", "augmented_copies")  # May be reduced.
_STEPS = 3  # Timed steps of each kind, after one that compiles.


class Speed(NamedTuple):
    """Photos a second of this machine.

    Attributes:
        forward: Photos augmented and turned into features and feature maps.
        fine_tuning: Photos in fine-tuning.
        head: Features in the training of a head.
    """

    forward: float
    fine_tuning: float
    head: float


class Plan(NamedTuple):
    """What is done within a budget.

    Attributes:
        budget_minutes: The budget.
        expected_minutes: How long the run should take, from its start.
        photos_per_second: See `Speed`.
        left_out: One line for each thing that does not fit.
    """

    budget_minutes: float
    expected_minutes: float
    photos_per_second: dict[str, float]
    left_out: list[str]


@stage("plan")
def plan(
    config: Config, datasets: Datasets, budget: float, start: float, cache: Path
) -> tuple[Config, Plan]:
    """Reduce copies and epochs of fine-tuning evenly until the run fits into the budget.

    What is in the cache already takes no time. If no fine-tuning fits, the augmented copies of the
    head are left out, too. The plan is kept: the same command follows it after an interruption,
    because another one could not use what was finished.

    Args:
        config: All that is wanted.
        datasets: See `training.open_datasets`.
        budget: Minutes for the whole run.
        start: `time.monotonic()` when the run began.
        cache: Folder for the plan.

    Returns:
        The configuration that fits, and the plan.

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
    spent = time.monotonic() - start
    seconds = 0.0
    for candidate in _candidates(config):
        seconds = spent + expected_seconds(candidate, datasets, speed)
        if seconds <= _SHARE * budget * 60:
            fields = {name: getattr(candidate, name) for name in _FIELDS}
            left_out = [
                f"{name}: {value} instead of {getattr(config, name)}"
                for name, value in fields.items()
                if value != getattr(config, name)
            ]
            rates = {name: round(value, 1) for name, value in speed._asdict().items()}
            return fields, Plan(budget, round(seconds / 60, 1), rates, left_out)
    raise InputError(
        f"The least that can be done takes about {seconds / 60 / _SHARE:.0f} minutes on this "
        f"machine. Received: --budget {budget:g}. Give more, or a smaller `--image-size`."
    )


def _candidates(config: Config) -> Iterator[Config]:
    """Yield ever cheaper configurations."""
    copies, epochs = config.fine_tuning_copies, config.fine_tuning_epochs
    free = chosen_fine_tune_from(config) == PIXELS  # There copies take no time.
    for tenths in range(10, 0, -1):
        if fewer := round(epochs * tenths / 10):
            kept = copies if free else round(copies * tenths / 10)
            yield dataclasses.replace(config, fine_tuning_copies=kept, fine_tuning_epochs=fewer)
    yield dataclasses.replace(config, fine_tuning_epochs=0)
    yield dataclasses.replace(config, fine_tuning_epochs=0, augmented_copies=0)


def expected_seconds(config: Config, datasets: Datasets, speed: Speed) -> float:
    """Return how long a run should take on a machine of this speed."""
    photos = {
        split: len(datasets.prepared.split(split)) for split in ("train", "validation", "test")
    }
    block = chosen_fine_tune_from(config) if config.fine_tuning_epochs else PIXELS
    mapped = -1 if block == PIXELS else config.fine_tuning_copies  # The last copy with maps.
    arrays = [("train", copy) for copy in range(max(config.augmented_copies, mapped) + 1)]
    missing = sum(
        datasets.store.missing(split, copy, block if copy <= mapped else None)
        for split, copy in [*arrays, ("validation", 0)]
    )
    # Once more through the whole classifier, to calibrate it and to test it.
    predicted = photos["validation"] + photos["test"]
    head = config.epochs * photos["train"] / speed.head
    # An epoch of fine-tuning includes validation, without gradients: a third of the work.
    epochs = config.fine_tuning_epochs * (photos["train"] + photos["validation"] / 3)
    return _FIXED + (missing + predicted) / speed.forward + head + epochs / speed.fine_tuning


def measure(config: Config, datasets: Datasets) -> Speed:
    """Time a few steps of each kind on the first photos; no weight changes."""
    classes, block = len(datasets.prepared.labels), chosen_fine_tune_from(config)
    batches = load_split(datasets.prepared, "train", config.image_size, config.batch_size)
    pixels, labels = next(iter(one_hot(batches, classes)))
    augmentation = build_augmentation(config, config.augmentation_seed)
    backbone = copied(datasets.backbone, precision_in_force(config.precision))
    features = build_feature_model(backbone, None if block == PIXELS else block)
    found = features.predict_on_batch(pixels)
    head = build_compiled_head(config, classes, steps=1)
    trainee = build_trainee(config, datasets, head).model
    compile_trainee(trainee, config, 0.0)
    inputs = pixels if block == PIXELS else found["feature_maps"]
    steps = (
        lambda: features.predict_on_batch(augmentation(pixels, training=True)),
        lambda: trainee.train_on_batch(inputs, labels),
        lambda: head.train_on_batch(found["features"], labels),
    )
    return Speed(*(_rate(step, len(pixels)) for step in steps))


def _rate(step: Callable[[], Any], photos: int) -> float:
    """Return how many photos a step gets through in a second."""
    step()
    start = time.monotonic()
    for _ in range(_STEPS):
        step()
    return photos * _STEPS / (time.monotonic() - start)
