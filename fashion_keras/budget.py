"""Plans how much of a training run fits into a given time, from this machine's own speed."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import load_split, one_hot
from fashion_keras.devices import copied, precision_in_force
from fashion_keras.files import whole_file
from fashion_keras.fine_tuner import PIXELS, build_fine_tuner, chosen_fine_tune_from, compile_at
from fashion_keras.model import build_augmentation, build_feature_model, build_head
from fashion_keras.optimizer import compile_model
from fashion_keras.stopwatch import stage
from fashion_keras.training import Material

_SHARE = 0.9  # Of the budget is planned for: speeds vary.
_FIXED = 30.0  # Seconds for compiling, saving and pictures.
_KNOBS = ("fine_tuning_copies", "fine_tuning_epochs", "augmented_copies")  # What a plan may reduce.
_STEPS = 3  # Timed steps of each kind, after one that compiles.


class Speed(NamedTuple):
    """What this machine does in a second, in photos.

    Attributes:
        forward: Photos augmented and turned into vectors and maps.
        tuned: Photos in fine-tuning; None if none is wanted.
        head: Vectors in the training of a head.
    """

    forward: float
    tuned: float | None
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
    photos_per_second: dict[str, float | None]
    left_out: list[str]


@stage("plan")
def plan(
    config: Config, material: Material, budget: float, start: float, cache: Path
) -> tuple[Config, Plan]:
    """Reduce copies and passes of fine-tuning evenly until the run fits into the budget.

    What lies in the cache already costs nothing. If no fine-tuning fits, the augmented copies of
    the heads go, too. The plan is kept: the same command, given again after an interruption,
    follows it, because another one could not use what was finished.

    Args:
        config: All that is wanted.
        material: See `training.open_material`.
        budget: Minutes in which all should be done.
        start: `time.monotonic()` when the run began.
        cache: Folder for the plan.

    Returns:
        The configuration that fits, and the plan.

    Raises:
        InputError: If even the heads on frozen vectors take longer.
    """
    file = cache / "plans-1" / f"{_key(config, material, budget)}.json"
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        print(f"the plan made for this budget before is followed ({file})", flush=True)
        return dataclasses.replace(config, **kept["knobs"]), Plan(**kept["plan"])
    speed = measure(config, material)
    spent = time.monotonic() - start
    seconds = math.inf
    for candidate in _candidates(config):
        seconds = spent + expected_seconds(candidate, material, speed)
        if seconds <= _SHARE * budget * 60:
            rates = {name: value and round(value, 1) for name, value in speed._asdict().items()}
            left_out = _left_out(config, candidate)
            found = Plan(budget, round(seconds / 60, 1), rates, left_out)
            _keep(file, candidate, found)
            return candidate, found
    raise InputError(
        f"The least that can be done takes about {seconds / 60 / _SHARE:.0f} minutes on this "
        f"machine. Received: --budget {budget:g}. Give more, or a smaller `--image-size`."
    )


def _key(config: Config, material: Material, budget: float) -> str:
    _, store = material.frozen()
    asked = dataclasses.asdict(config) | {"fine_tune_from": chosen_fine_tune_from(config)}
    facts = [asked, budget, store.key("train"), store.key("validation")]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def _keep(file: Path, planned: Config, found: Plan) -> None:
    knobs = {name: getattr(planned, name) for name in _KNOBS}
    text = json.dumps({"knobs": knobs, "plan": found._asdict()})
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _candidates(config: Config) -> list[Config]:
    """Return ever cheaper configurations."""
    augmented_copies, passes = config.fine_tuning_copies, config.fine_tuning_epochs
    pixels = chosen_fine_tune_from(config) == PIXELS  # There, copies cost nothing.
    tuned = [
        dataclasses.replace(
            config,
            fine_tuning_copies=augmented_copies if pixels else round(augmented_copies * share / 10),
            fine_tuning_epochs=round(passes * share / 10),
        )
        for share in range(10, 0, -1)
        if round(passes * share / 10)
    ]
    frozen = dataclasses.replace(config, fine_tuning_epochs=0)
    return [*tuned, frozen, dataclasses.replace(frozen, augmented_copies=0)]


def _left_out(wanted: Config, planned: Config) -> list[str]:
    return [
        f"{name}: {getattr(planned, name)} instead of {getattr(wanted, name)}"
        for name in _KNOBS
        if getattr(planned, name) != getattr(wanted, name)
    ]


def expected_seconds(config: Config, material: Material, speed: Speed) -> float:
    """Return how long a run should take on a machine of this speed."""
    photos = {split: len(material.prepared.split(split)) for split in ("train", "validation")}
    fine_tune_from = chosen_fine_tune_from(config) if config.fine_tuning_epochs else None
    fine_tune_from = None if fine_tune_from == PIXELS else fine_tune_from
    augmented_copies = max(
        config.augmented_copies, config.fine_tuning_copies if fine_tune_from else 0
    )
    passes = [("train", view) for view in range(augmented_copies + 1)] + [("validation", 0)]
    missing = sum(
        photos[split]
        for split, view in passes
        if _is_missing(config, material, split, view, fine_tune_from)
    )
    # Once more through the whole classifier, to calibrate it and to test it.
    predicted = photos["validation"] + len(material.prepared.split("test"))
    heads = config.heads * config.epochs * photos["train"] / speed.head
    # A pass of fine-tuning looks at validation, too, without gradients: a third of the work.
    work = config.fine_tuning_epochs * (photos["train"] + photos["validation"] / 3)
    tuned = work / speed.tuned if speed.tuned else 0.0
    return _FIXED + (missing + predicted) / speed.forward + heads + tuned


def _is_missing(
    config: Config, material: Material, split: str, view: int, fine_tune_from: str | None
) -> bool:
    """Tell whether a view has to be computed, as vectors, or as maps if fine-tuning uses it."""
    _, store = material.frozen()
    mapped = fine_tune_from if fine_tune_from and view <= config.fine_tuning_copies else None
    return store.missing(split, view, mapped)


def measure(config: Config, material: Material) -> Speed:
    """Time a few steps of each kind on the first photos; no weight changes."""
    prepared, (backbone, _) = material.prepared, material.frozen()
    classes = len(prepared.labels)
    batches = load_split(prepared, "train", config.image_size, config.batch_size)
    pixels, labels = next(iter(one_hot(batches, classes)))
    augmentation = build_augmentation(config, config.seed)
    fine_tune_from = chosen_fine_tune_from(config)
    precise = copied(backbone, precision_in_force(config.precision))
    features = build_feature_model(precise, None if fine_tune_from == PIXELS else fine_tune_from)
    found = features.predict_on_batch(pixels)
    head = build_head(config, classes)
    compile_model(head, config)
    forward = _rate(
        lambda: features.predict_on_batch(augmentation(pixels, training=True)), len(pixels)
    )
    rate = _rate(lambda: head.train_on_batch(found["vectors"], labels), len(pixels))
    if not config.fine_tuning_epochs:
        return Speed(forward, None, rate)
    tuner = build_fine_tuner(config, material, build_head(config, classes)).model
    compile_at(0.0, tuner, config)
    inputs = pixels if fine_tune_from == PIXELS else found["maps"]
    tuned = _rate(lambda: tuner.train_on_batch(inputs, labels), len(pixels))
    return Speed(forward, tuned, rate)


def _rate(step: Callable[[], Any], photos: int) -> float:
    """Return how many photos a step gets through in a second."""
    step()
    start = time.monotonic()
    for _ in range(_STEPS):
        step()
    return photos * _STEPS / (time.monotonic() - start)
