"""Runs the trials of a search, each of them once: what was trained is kept as an artifact."""

import collections
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.artifacts import fingerprint, whole_file
from fashion_keras.config import Config, InputError
from fashion_keras.parallel import Pool
from fashion_keras.training import restore, state_of
from tuning.hypermodel import FashionHyperModel
from tuning.oracle import Oracle

# isort: split
import keras_tuner
from keras_tuner.engine.trial import Trial

MAX_FAILURES = 10  # High learning rates may make a few trials in a row diverge.
_LAYOUT = 1  # Raise it when outcomes of older versions must not be used any more.


class Outcome(NamedTuple):
    """What a training gave, or why it failed."""

    rows: list[dict[str, float]]  # By epoch: epoch, loss, accuracy, val_loss, val_accuracy.
    seconds: float
    reason: str = ""


class Trainer:
    """Trains models, each of them once, here or by workers.

    Outcomes are kept for good, states from which others train on until `forget_states`.

    Args:
        data: What they are trained on, the first argument of each task.
        key_of: Returns the key of all that decides a model (see `training.head_key`).
        folder: Where outcomes and states are kept.
        workers: Run the tasks.
    """

    def __init__(
        self, data: Any, key_of: Callable[[Config], str], folder: Path, workers: Pool
    ) -> None:
        self._data = workers.share(data)
        self._key_of = key_of
        self._folder = folder
        self._workers = workers
        self._keys: dict[Any, str] = {}  # By label.
        self._found: collections.deque[Any] = collections.deque()  # Labels.

    def begin(
        self, label: Any, config: Config, rounds: Sequence[int], task: Callable, *arguments: Any
    ) -> None:
        """Begin a task, unless its outcome is in the cache.

        `config` and `rounds`, the last epochs of a trial's rounds, decide the outcome. The task
        takes the data and `arguments`; it returns an outcome, and a state or None.
        """
        key = fingerprint(head=self._key_of(config), rounds=list(rounds), layout=_LAYOUT)
        self._keys[label] = key
        if self._file(label, "json").exists():
            self._found.append(label)
        else:
            self._workers.submit(label, task, self._data, *arguments)

    def next_done(self) -> tuple[Any, Outcome, bool]:
        """Wait for any task; return its label, its outcome, and whether it was in the cache."""
        if self._found:
            label = self._found.popleft()
            text = self._file(label, "json").read_text(encoding="utf-8")
            return label, Outcome(**json.loads(text)), True
        label, (outcome, state) = self._workers.next_done()
        if state is not None:
            with whole_file(self._file(label, "npz")) as unfinished:
                unfinished.write_bytes(state)
        with whole_file(self._file(label, "json")) as unfinished:
            unfinished.write_text(json.dumps(outcome._asdict()), encoding="utf-8")
        return label, outcome, False

    def state(self, label: Any) -> bytes | None:
        """Return the state that a task left; None if it is gone."""
        file = self._file(label, "npz")
        return file.read_bytes() if file.exists() else None

    def forget_states(self) -> None:
        """Delete the states that tasks left."""
        for label in self._keys:
            self._file(label, "npz").unlink(missing_ok=True)

    def _file(self, label: Any, kind: str) -> Path:
        return self._folder / f"{self._keys[label]}.{kind}"


def train_trial(
    data: Any,
    base: Config,
    values: dict[str, Any],
    rounds: Sequence[int],
    state: bytes | None,
    keep_state: bool,
    build: Callable[..., keras_tuner.HyperModel] = FashionHyperModel,
) -> tuple[Outcome, bytes | None]:
    """Train one trial: from its parent's state, or as its parents were trained if that is gone.

    `rounds` has the last epoch of each round that led to the trial, its own last; with
    `keep_state` the state after the trial is returned, too. `build` makes the hypermodel of `base`
    and `data`.
    """
    start = time.monotonic()
    hypermodel: Any = build(base, data)
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    model = hypermodel.build(hp)
    if state:
        restore(model, list(np.load(io.BytesIO(state)).values()))
    stages = list(zip([0, *rounds], rounds, strict=False))
    try:
        *_, fitted = [
            hypermodel.fit(hp, model, initial_epoch=first, epochs=last, verbose=0)
            for first, last in (stages[-1:] if state else stages)
        ]
    except keras_tuner.errors.FailedTrialError as error:
        return Outcome([], time.monotonic() - start, str(error)), None
    names, columns = list(fitted.history), zip(*fitted.history.values(), strict=True)
    rows = [
        {"epoch": epoch + 1} | dict(zip(names, values, strict=True))
        for epoch, values in zip(fitted.epoch, columns, strict=True)
    ]
    content = io.BytesIO()
    if keep_state:
        np.savez(content, *state_of(model))
    return Outcome(rows, time.monotonic() - start), content.getvalue() or None


def run_trials(
    oracle: Oracle, trainer: Trainer, task: Callable = train_trial, end: float = math.inf
) -> Iterator[tuple[Trial, Outcome, bool]]:
    """Run all trials of a search; yield each with its outcome, and whether that was in the cache.

    Which trials these are depends on outcomes alone: all that can begin do so at once, and the
    oracle learns of their ends in the order in which they began, whichever was done first. From the
    time `end`, of `time.monotonic`, on no other one begins.

    Raises:
        InputError: If too many trials failed one after the other.
    """
    waiting: collections.deque[Trial] = collections.deque()
    done: dict[str, Any] = {}
    failures = 0
    while True:
        for trial in oracle.ready():
            if waiting and time.monotonic() > end:
                break
            _begin(trial, oracle, trainer, task)
            waiting.append(trial)
        if not waiting:
            return
        trial = waiting.popleft()
        while trial.trial_id not in done:
            label, *result = trainer.next_done()
            done[label] = result
        outcome, found = done.pop(trial.trial_id)
        oracle.end(trial, outcome.rows)
        yield trial, outcome, found
        failures = failures + 1 if outcome.reason else 0
        if failures == MAX_FAILURES:
            raise InputError(f"{failures} trials failed one after the other: {outcome.reason}.")


def _begin(trial: Trial, oracle: Oracle, trainer: Trainer, task: Callable) -> None:
    values, rounds = trial.hyperparameters.values, oracle.epochs_of(trial)
    config = oracle.space.limited(oracle.config_of(trial), rounds[-1])
    state = trainer.state(values["tuner/trial_id"]) if len(rounds) > 1 else None
    keep_state = values["tuner/round"] < values["tuner/bracket"]  # It may be promoted.
    arguments = (oracle.base, values, rounds, state, keep_state)
    trainer.begin(trial.trial_id, config, rounds, task, *arguments)
