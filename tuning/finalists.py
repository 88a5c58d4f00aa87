"""Trains configurations again outside Hyperband: the finalists, and one field at a time."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from fashion_keras.cli import progress
from fashion_keras.config import Config, InputError
from fashion_keras.training import MONITOR, HeadData, fit_head
from tuning.hypermodel import compiled_head
from tuning.trials import Outcome, Trainer

FINALISTS = 5
SEEDS = 3
# The course's pictures: accuracy over epochs for a few values of one field, the others fixed.
CURVES: dict[str, tuple] = {
    "learning_rate": (0.0001, 0.001, 0.01, 0.1),
    "inner_size": (16, 128, 1024),
    "droprate": (0.0, 0.2, 0.5, 0.8),
}


class Finalist(NamedTuple):
    """A configuration that was trained with several seeds, and its scores by the objective.

    They are those of the epochs that `final` would keep; 0 where the training diverged.
    """

    config: Config
    scores: list[float]

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return statistics.mean(self.scores)

    @property
    def spread(self) -> float:
        """Standard deviation of the scores."""
        return statistics.stdev(self.scores)


def rerun(configs: Sequence[Config], trainer: Trainer) -> list[Finalist]:
    """Train each configuration with several seeds; return them by mean score, best first."""
    seeds = range(SEEDS)
    seeded = [dataclasses.replace(one, seed=one.seed + seed) for one in configs for seed in seeds]
    histories = _histories(seeded, trainer, f"the best {len(configs)}, {SEEDS} seeds each")
    kept = [min(rows, key=lambda row: row[MONITOR], default=None) for rows in histories]
    name = f"val_{configs[0].objective}"
    scores = [row[name] if row else 0.0 for row in kept]
    starts = range(0, len(scores), SEEDS)
    of_each = [scores[start : start + SEEDS] for start in starts]
    return sorted(map(Finalist, configs, of_each), key=lambda finalist: -finalist.mean)


def curves(winner: Config, trainer: Trainer) -> list[dict]:
    """Train the winner with other values of one field at a time.

    Returns:
        Rows with `hyperparameter`, `value`, `epoch` and `val_accuracy`; nothing stops early.
    """
    variants = [(name, value) for name, values in CURVES.items() for value in values]
    winner = dataclasses.replace(winner, patience=winner.epochs)
    configs = [dataclasses.replace(winner, **{name: value}) for name, value in variants]
    histories = _histories(configs, trainer, "one hyperparameter at a time")
    return [
        {"hyperparameter": name, "value": value}
        | {column: row[column] for column in ("epoch", "val_accuracy")}
        for (name, value), rows in zip(variants, histories, strict=True)
        for row in rows
    ]


def _histories(configs: Sequence[Config], trainer: Trainer, what: str) -> list[list[dict]]:
    """Return the rows of the epochs of each training."""
    for number, config in enumerate(configs):
        trainer.begin((what, number), config, (), train_history, config)
    results = (trainer.next_done() for _ in configs)
    done = {label: outcome for label, outcome, _ in progress(results, len(configs), what)}
    return [done[what, number].rows for number in range(len(configs))]


def train_history(data: HeadData, config: Config) -> tuple[Outcome, None]:
    """Train a head until it does not get better."""
    start = time.monotonic()
    try:
        rows, reason = fit_head(config, data, build=compiled_head).history, ""
    except InputError as error:  # It diverged.
        rows, reason = [], str(error)
    return Outcome(rows, time.monotonic() - start, reason), None
