"""How long a run takes: the speed of this machine, measured once, and what is still to be done."""

import dataclasses
import functools
import json
import time
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import model as models
from fashion_keras.artifacts import fingerprint, made_once
from fashion_keras.cli import duration, stage
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import arrays, class_numbers, load_split, one_hot
from fashion_keras.engine import measured
from fashion_keras.features import training_arrays
from fashion_keras.fine_tuning import STAGE, build_trainee, compile_trainee
from fashion_keras.model import chosen_fine_tune_from, prediction_sides, tunes_on_pixels
from fashion_keras.training import Datasets, HeadData, fit_head, head_file

FEATURES, HEAD, TEST = "features", "head", "validation and test"
FIXED_SECONDS = 30.0  # For compiling, saving and pictures.
_PLANNED_SHARE = 0.9  # Of a budget: speeds vary.
_TRUSTED = 10.0  # Seconds of work that correct what was expected by half.
_STEPS = 3  # That are timed.
_MOST_PHOTOS = 4096  # That a head is timed on.
# A step of training is the forward pass, twice as much backwards, and an engine that is slower.
_TRAINING_COSTS = 4


def corrected(left: float, done: float, took: float) -> float:
    """Return the seconds that are left, from expected ones, and how long took what is done."""
    return left * (_TRUSTED + took) / (_TRUSTED + done)


class Left:
    """Prints how long a run takes, from the expected seconds of its stages, in their order."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._start = seconds, time.monotonic()

    def show(self, begun: str = "") -> None:
        """Print what all stages take; or those from one on, which begins."""
        names, took = list(self._seconds), time.monotonic() - self._start
        first = names.index(begun) if begun else 0
        done = sum(self._seconds[name] for name in names[:first])
        left = {name: corrected(self._seconds[name], done, took) for name in names[first:]}
        parts = ", ".join(f"{name} {duration(left[name])}" for name in left if left[name] >= 1)
        word = " left" if begun else ""
        print(f"about {duration(sum(left.values()))}{word} in all ({parts})", flush=True)


@stage("plan")
def plan(
    config: Config, datasets: Datasets, budget: float, start: float, cache: Path
) -> tuple[Config, dict[str, Any]]:
    """Return a configuration that fits into a budget, and the plan, as `training.json` has it.

    The budget is in minutes for the whole run, which began at `start`, a `time.monotonic()`.
    Copies and epochs of fine-tuning are reduced evenly; in the end the copies of the head, too.
    What is in the cache takes no time. The plan is kept in the cache: the same command follows it
    after an interruption, because another one could not use what was finished.

    Raises:
        InputError: If even a head on frozen features takes longer.
    """
    chosen = {"fine_tune_from": chosen_fine_tune_from(config)}
    wanted = dataclasses.asdict(config) | chosen | {"fine_tune_on": tunes_on_pixels(config)}
    features = [datasets.store.key(split) for split in ("train", "validation")]
    key = fingerprint(config=wanted, budget=budget, features=features)
    file = cache / "plans" / f"{key}.json"
    if file.exists():
        print(f"following the plan made earlier for this budget ({file})", flush=True)

    def make(unfinished: Path) -> None:
        made = _planned(config, datasets, budget, start, cache)
        unfinished.write_text(json.dumps(made), encoding="utf-8")

    fields, made = json.loads(made_once(file, make).read_text(encoding="utf-8"))
    print(f"the run should take {made['expected_minutes']:g} minutes", flush=True)
    for line in made["left_out"] or ["nothing"]:
        print(f"left out for the budget: {line}", flush=True)
    return dataclasses.replace(config, **fields), made


def _planned(
    config: Config, datasets: Datasets, budget: float, start: float, cache: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    speed = measure(config, datasets, cache)
    spent, seconds = time.monotonic() - start, 0.0
    for fields in _candidates(config):
        candidate = dataclasses.replace(config, **fields)
        seconds = spent + sum(expected_seconds(candidate, datasets, cache, speed).values())
        if seconds <= _PLANNED_SHARE * budget * 60:
            wanted = {name: getattr(config, name) for name in fields}
            return fields, {
                "budget_minutes": budget,
                "expected_minutes": round(seconds / 60, 1),
                "photos_per_second": {name: round(rate, 1) for name, rate in speed.items()},
                "left_out": [
                    f"{name}: {value} instead of {wanted[name]}"
                    for name, value in fields.items()
                    if value != wanted[name]
                ],
            }
    raise InputError(  # For the last candidate.
        f"Even a head on frozen features takes about {seconds / 60 / _PLANNED_SHARE:.1f} minutes "
        f"on this machine. Received: --budget {budget:g}. Give more, or a smaller `--image-size`."
    )


def _candidates(config: Config) -> Iterator[dict[str, int]]:
    """Yield the fields of ever cheaper configurations."""
    copies, epochs = config.fine_tuning_copies, config.fine_tuning_epochs
    free = tunes_on_pixels(config)  # There copies take no time.
    for tenths in range(10, 0, -1):
        if fewer := round(epochs * tenths / 10):
            kept = copies if free else round(copies * tenths / 10)
            yield {"fine_tuning_copies": kept, "fine_tuning_epochs": fewer}
    yield {"fine_tuning_epochs": 0}
    yield {"fine_tuning_epochs": 0, "augmented_copies": 0}


def expected_seconds(
    config: Config, datasets: Datasets, cache: Path, speed: dict[str, float]
) -> dict[str, float]:
    """Return how long each stage of `final` should take on a machine of this speed."""
    prepared, store, block = datasets.prepared, datasets.store, chosen_fine_tune_from(config)
    train, held_out = len(prepared.split("train")), len(prepared.split("validation"))
    mapped = config.fine_tuning_epochs and not tunes_on_pixels(config)
    arrays = training_arrays(config.fine_tuning_copies) if mapped else []
    missing = sum(store.missing(*array, block) for array in arrays)
    others = set(training_arrays(config.augmented_copies)).difference(arrays)
    missing += sum(store.missing(*array) for array in others)
    # Photos go once more through the whole classifier: to calibrate it, at each side, and to test.
    size = config.image_size
    tested = sum(held_out * (side / size) ** 2 for side in prediction_sides(config, held_out))
    tested += len(prepared.photos) - train - held_out
    tested += min(train, 300) + len(prepared.others)  # To know what is none of these.
    trained = head_file(config, datasets, cache).exists()
    # An epoch of fine-tuning includes validation, without gradients: a third of the work.
    epochs = config.fine_tuning_epochs * (train + held_out / 3)
    return {
        FEATURES: missing / speed["forward"],
        HEAD: 0.0 if trained else config.epochs * train / speed["head"],
        STAGE: epochs / speed["fine_tuning"],
        TEST: FIXED_SECONDS + tested / speed["forward"],
    }


def announced(config: Config, datasets: Datasets, cache: Path, fine_tuning: bool) -> Left:
    """Print how long `final` should take; for `fine_tuning` see `measure`."""
    speed = measure(config, datasets, cache, fine_tuning)
    left = Left(expected_seconds(config, datasets, cache, speed))
    left.show()
    return left


def measure(
    config: Config, datasets: Datasets, cache: Path, fine_tuning: bool = True
) -> dict[str, float]:
    """Return photos per second: `forward`, `fine_tuning` and `head`; each is measured once.

    Without `fine_tuning` that is estimated: to measure it takes a minute on a CPU. `head_start`
    has the seconds that a head takes before its first step.
    """
    on_pixels, place = tunes_on_pixels(config), chosen_fine_tune_from(config)
    block = place if config.fine_tuning_epochs and not on_pixels else None
    features, names = datasets.store.key("train"), ("batch_size", "precision")
    facts = {"features": features} | {name: getattr(config, name) for name in names}
    forward = datasets.store.photos_per_second(block)
    head = measured(cache, facts | {"stage": HEAD}, lambda: _time_head(config, datasets))
    found = {"forward": forward, "fine_tuning": forward / _TRAINING_COSTS} | head
    if fine_tuning:
        facts |= {"stage": STAGE, "from": place, "on_pixels": on_pixels}
        found |= measured(cache, facts, lambda: _time_fine_tuning(config, datasets))
    return found


def _time_head(config: Config, datasets: Datasets) -> dict[str, float]:
    """Train a head on random features; `head_start` has the seconds before the first step."""
    numbers = class_numbers(datasets.prepared, "train")[:_MOST_PHOTOS]
    channels: Any = datasets.backbone.output.shape[-1]
    noise = np.random.default_rng(1).random((len(numbers), channels), "float32")
    data = HeadData([noise], numbers, noise, numbers, datasets.prepared.labels)
    short = Config(batch_size=config.batch_size, augmented_copies=0, epochs=1 + _STEPS)
    start = time.monotonic()
    history = fit_head(short, data).history
    epochs = [row["seconds"] for row in history[1:]]
    epoch = max(sum(epochs) / len(epochs), 1e-3)
    started = time.monotonic() - start - (1 + _STEPS) * epoch
    return {"head": len(numbers) / epoch, "head_start": max(started, 0.0)}


def _time_fine_tuning(config: Config, datasets: Datasets) -> dict[str, float]:
    """Train the top of the backbone for some steps."""
    classes, on_pixels = len(datasets.prepared.labels), tunes_on_pixels(config)
    batches = load_split(datasets.prepared, "train", config.image_size, config.batch_size)
    inputs, labels = next(arrays(one_hot(batches, classes)))
    if not on_pixels:
        inputs = datasets.store.run(chosen_fine_tune_from(config))(inputs)["feature_maps"]
    head: Any = models.build_head(config, classes)
    trainee, *_ = build_trainee(config, datasets, head)
    compile_trainee(trainee, config, 0.0)
    step = functools.partial(trainee.train_on_batch, inputs, labels)
    step()  # Compiles.
    return {"fine_tuning": len(labels) * _STEPS / timeit.timeit(step, number=_STEPS)}
