"""Keras Tuner's Hyperband oracle: its plan, and choices that depend on outcomes alone."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before Keras Tuner, which imports TensorFlow: this import hides TensorFlow's start-up messages.
from fashion_keras import backend  # noqa: F401

# isort: split
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from fashion_keras.config import Config
from tuning.space import Space


class Round(NamedTuple):
    """Trials of one bracket that are trained from one epoch to another."""

    bracket: int
    trials: int
    first_epoch: int
    last_epoch: int


class Plan(NamedTuple):
    """All that Hyperband is going to do, and the number of trials and epochs in it."""

    rounds: list[Round]
    trials: int
    epochs: int

    def __str__(self) -> str:
        """Return the plan in a few lines for people."""
        text = f"plan: {self.trials} trials, {self.epochs} epochs in all"
        for one in self.rounds:
            text += ", the best " if one.first_epoch else f"\n  bracket {one.bracket}: "
            text += f"{one.trials} to epoch {one.last_epoch}"
        return text


class Oracle(keras_tuner.oracles.HyperbandOracle):
    """Chooses trials; the same ones, with the same numbers, whichever finishes first.

    Keras Tuner lets the order in which trials began decide between equally good ones. Here the
    validation loss decides, and after it the values themselves.

    Args:
        space: What is searched.
        base: Fields that are not searched; `seed` is that of the sampling.
        max_epochs: Epochs of the longest trials.
        factor: One in this many trials is trained longer.
        folder: For files of Keras Tuner, which are never read again.
    """

    def __init__(
        self, space: Space, base: Config, max_epochs: int, factor: int, folder: Path
    ) -> None:
        hp = keras_tuner.HyperParameters()
        space.sample(hp, base)
        self.space, self.base = space, base
        super().__init__(
            keras_tuner.Objective(space.objective, space.direction),
            max_epochs=max_epochs,
            factor=factor,
            seed=base.seed,
            hyperparameters=hp,
            max_consecutive_failed_trials=-1,  # `run_trials` counts them.
        )
        self.verbose = 0
        self._set_project_dir(str(folder), "oracle")

    def ready(self) -> Iterator[Trial]:
        """Yield new trials until the next choice depends on trials that have not ended."""
        while True:
            trial = self.create_trial(f"worker of trial {len(self.trials)}")
            if trial.status != TrialStatus.RUNNING:
                return
            yield trial

    def config_of(self, trial: Trial) -> Config:
        """Return the configuration of a trial."""
        return self.space.sample(trial.hyperparameters, self.base)

    def end(self, trial: Trial, rows: Sequence[dict[str, float]]) -> None:
        """End a trial that `ready` yielded, with the rows of its epochs; none if it failed."""
        metrics = self.space.best(rows)
        if metrics:
            names = {self.space.objective, "val_accuracy", "val_loss", "val_log_loss"}
            scores = {name: metrics[name] for name in names & metrics.keys()}
            self.update_trial(trial.trial_id, scores)
        trial.status = TrialStatus.COMPLETED if metrics else TrialStatus.FAILED
        self.end_trial(trial)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Draw or choose the values of a new trial."""
        for bracket in self._brackets:
            for entries in bracket["rounds"]:  # Of equally good trials the first one is chosen.
                entries.sort(key=lambda entry: _among_equals(self.trials[entry["id"]]))
        chosen: dict[str, Any] = super().populate_space(trial_id)
        if parent := chosen.get("values", {}).get("tuner/trial_id"):
            # Keras Tuner gives the bracket that was begun last.
            values = self.trials[parent].hyperparameters.values
            chosen["values"]["tuner/bracket"] = values["tuner/bracket"]
        return chosen

    def epochs_of(self, trial: Trial) -> list[int]:
        """Return the last epoch of each round that led to a trial, its own last."""
        values = trial.hyperparameters.values
        rounds = range(values["tuner/round"] + 1)
        return [self._get_epochs(values["tuner/bracket"], number) for number in rounds]

    def plan(self) -> Plan:
        """Return all trials that are going to be run."""
        rounds, epochs = [], 0
        for bracket in reversed(range(self._get_num_brackets())):
            first = 0
            for number in range(self._get_num_rounds(bracket)):
                size, last = self._get_size(bracket, number), self._get_epochs(bracket, number)
                rounds.append(Round(bracket, size, first, last))
                epochs += size * (last - first)
                first = last
        return Plan(rounds, sum(one.trials for one in rounds), epochs)

    def best(self) -> list[Trial]:
        """Return the completed trials, the best first."""
        trials = [one for one in self.trials.values() if one.status == TrialStatus.COMPLETED]
        sign = -1 if self.space.direction == "max" else 1
        return sorted(trials, key=lambda trial: (sign * (trial.score or 0), *_among_equals(trial)))


def _among_equals(trial: Trial) -> tuple[float, str, int]:
    """Return what sorts trials of one score."""
    done, values = trial.metrics.exists("val_loss"), trial.hyperparameters.values
    loss = trial.metrics.get_best_value("val_loss") if done else None
    searched = {name: values[name] for name in values if not name.startswith("tuner/")}
    text = json.dumps(searched, sort_keys=True)
    return (math.inf if loss is None else loss, text, values["tuner/epochs"])
