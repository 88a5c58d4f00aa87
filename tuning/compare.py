"""Trains configurations again outside Hyperband: the finalists, and one knob at a time."""

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from fashion_keras.cli import progress
from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers
from fashion_keras.files import whole_file
from fashion_keras.report.outcome import Predictions as Tested
from fashion_keras.stopwatch import stage
from fashion_keras.training import MONITOR, Datasets, fit_head, head_data, head_datasets

FINALISTS = 5
SEEDS = 3
# The course's pictures: accuracy over epochs for a few values of one knob, the others fixed.
CURVES: dict[str, tuple] = {
    "learning_rate": (0.0001, 0.001, 0.01, 0.1),
    "inner_size": (16, 128, 1024),
    "droprate": (0.0, 0.2, 0.5, 0.8),
}


class Finalist(NamedTuple):
    """A configuration that was trained with several seeds.

    Attributes:
        config: The configuration.
        accuracies: Validation accuracy with each seed, at the epoch that `final` would keep.
    """

    config: Config
    accuracies: list[float]

    @property
    def mean(self) -> float:
        """Mean validation accuracy over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation of the validation accuracy over the seeds."""
        return statistics.stdev(self.accuracies)


@stage("finalists")
def rerun(configs: Sequence[Config], material: Datasets, folder: Path) -> list[Finalist]:
    """Train each configuration with several seeds; return them by mean accuracy, best first.

    Args:
        configs: The configurations.
        material: What to train from.
        folder: Where finished trainings are kept; what is there is not trained again.
    """
    seeded = [
        dataclasses.replace(config, seed=config.seed + number)
        for config in configs
        for number in range(SEEDS)
    ]
    accuracies = [
        min(_history(config, material, folder), key=lambda row: row[MONITOR])["val_accuracy"]
        for config in progress(seeded, len(seeded), f"the best {len(configs)}, {SEEDS} seeds each")
    ]
    finalists = [
        Finalist(config, accuracies[number * SEEDS : (number + 1) * SEEDS])
        for number, config in enumerate(configs)
    ]
    return sorted(finalists, key=lambda finalist: -finalist.mean)


def knob_curves(winner: Config, material: Datasets, folder: Path) -> Iterator[dict]:
    """Yield the validation accuracy of each epoch while one knob of the winner takes other values.

    Args:
        winner: The configuration.
        material: What to train from.
        folder: See `rerun`.

    Yields:
        Rows with `knob`, `value`, `epoch` and `val_accuracy`; nothing stops early.
    """
    variants = [(knob, value) for knob, values in CURVES.items() for value in values]
    for knob, value in progress(variants, len(variants), "one knob at a time"):
        config = dataclasses.replace(winner, patience=winner.epochs, **{knob: value})
        for row in _history(config, material, folder):
            yield {
                "knob": knob,
                "value": value,
                "epoch": row["epoch"],
                "val_accuracy": row["val_accuracy"],
            }


def _history(config: Config, material: Datasets, folder: Path) -> list[dict[str, float]]:
    """Return the epochs of a training, which is made unless it was finished before."""
    knobs = dataclasses.asdict(config) | {"data": "", "weights": ""}  # The folder tells them.
    key = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:20]
    finished = folder / f"{key}.json"
    history = _kept(finished)
    if history is None:
        history = fit_head(config, head_data(config, material)).history
        with whole_file(finished) as unfinished:
            unfinished.write_text(json.dumps(history), encoding="utf-8")
    return history


def _kept(file: Path) -> list[dict[str, float]] | None:
    """Return what was kept of a finished training; None if there is none, or it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"{file} is damaged ({error}): what it held is trained anew", flush=True)
        return None


def validation_answers(winner: Config, material: Datasets) -> Tested:
    """Train the winner once more, and return what it says of the validation photos."""
    data = head_data(winner, material)
    model: Any = fit_head(winner, data).head
    _, validation = head_datasets(winner, data)
    logits = model.predict(validation, verbose=0)
    prepared = material.prepared
    return Tested(
        [photo.file for photo in prepared.split("validation")],
        class_numbers(prepared, "validation"),
        np.asarray(keras.ops.softmax(logits)),
        prepared.labels,
    )
