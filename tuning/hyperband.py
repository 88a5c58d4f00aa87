"""Keras Tuner's Hyperband with a plan before it starts and one line for each trial."""

import contextlib
import functools
import gc
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial

from fashion_keras import stopwatch
from fashion_keras.cli import duration
from fashion_keras.config import InputError
from fashion_keras.disk import check_room, told_of_disk
from fashion_keras.report.tensor_board import Curves
from tuning.hypermodel import FashionHyperModel
from tuning.oracle import Oracle, rank
from tuning.plan import Plan, plan_of
from tuning.snapshot import keep, put_back
from tuning.trials import (
    append_row,
    folder_name,
    number,
    reason,
    show_earlier,
    show_trial,
    trial_row,
)

OBJECTIVE = "val_accuracy"
_START_COST = 3  # Starting a trial on vectors takes about as long as so many epochs.


class HopelessError(InputError, keras_tuner.errors.FatalError):
    """What the user has to mend before any trial can go well."""


class TrialRunner(keras_tuner.Hyperband):
    """Runs trials of Hyperband: what a search on its own and a worker of one have in common.

    Args:
        hypermodel: Builds and fits one trial's model.
        folder: Where the state is kept; a search that finds its own state there goes on.
        max_epochs: Epochs of the longest trials.
        factor: One in so many trials is trained on.
        seed: Seed of the sampling, 1 or more (Keras Tuner takes 0 for a random one).
    """

    def __init__(
        self, hypermodel: FashionHyperModel, folder: Path, max_epochs: int, factor: int, seed: int
    ) -> None:
        oracle = Oracle(
            OBJECTIVE,
            max_epochs=max_epochs,
            factor=factor,
            seed=seed,
            # Rates at the upper end may make a few trials in a row diverge.
            max_consecutive_failed_trials=10,
        )
        oracle.verbose = 0
        places = {"directory": folder.parent, "project_name": folder.name}
        with contextlib.redirect_stdout(io.StringIO()):  # What was found is said in `run`.
            # Not Hyperband's own start, which makes Keras Tuner's oracle.
            super(keras_tuner.Hyperband, self).__init__(oracle, hypermodel, **places)
        self.oracle: Any  # Keras Tuner's, or its stand-in that asks the chief.
        self._adapter = hypermodel
        self.base = hypermodel.base
        self.folder = folder
        self.board: Path | None = None  # Where to write for TensorBoard.

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Run a trial; a full disk ends the search, for it is not the trial's fault.

        Raises:
            FatalError: If the disk is full or read-only, or memory does not suffice for one photo;
                Keras Tuner lets no other error through.
        """
        run = functools.partial(super().run_trial, trial, *args, **kwargs)
        try:
            return self._adapter.in_pieces(run)
        except InputError as error:
            raise HopelessError(str(error)) from error
        except Exception as error:
            if told := told_of_disk(error):
                raise keras_tuner.errors.FatalError(told) from error
            raise

    def on_epoch_end(self, trial: Trial, model: Any, epoch: int, logs: Any = None) -> None:
        """Show the epoch in TensorBoard; the next thing Keras Tuner does is to save weights."""
        super().on_epoch_end(trial, model, epoch, logs)
        check_room(Path(self._get_checkpoint_fname(trial.trial_id)), _size_of(model))
        if self.board:
            Curves(self.board / folder_name(number(trial))).on_epoch_end(epoch, logs)


def _size_of(model: Any) -> int:
    """Return the bytes of a compiled model's weights and of its optimizer's state."""
    return sum(4 * math.prod(one.shape) for one in [*model.variables, *model.optimizer.variables])


class Hyperband(TrialRunner):
    """Hyperband that reports each trial in one line and in `trials.csv` of its folder.

    Args:
        hypermodel: See `TrialRunner`.
        folder: See `TrialRunner`.
        max_epochs: See `TrialRunner`.
        factor: See `TrialRunner`.
        seed: See `TrialRunner`.
    """

    def __init__(
        self, hypermodel: FashionHyperModel, folder: Path, max_epochs: int, factor: int, seed: int
    ) -> None:
        super().__init__(hypermodel, folder, max_epochs, factor, seed)
        self.plan: Plan = plan_of(self.oracle)
        self.table = folder / "trials.csv"
        self.found = len(self.finished())
        self.after_trial: Callable[[], None] = lambda: None
        self._begun: dict[str, float] = {}

    def start_clock(self) -> None:
        """Start the clock by which the time left is told."""
        self._start = time.monotonic()
        self._cost_before = self._cost_done()

    def on_trial_begin(self, trial: Trial) -> None:
        """Start the trial's clock."""
        super().on_trial_begin(trial)
        self._begun[trial.trial_id] = time.monotonic()

    def on_trial_end(self, trial: Trial) -> None:
        """Save the trial's outcome and show it.

        Raises:
            InputError: If it is the one failure too many.
        """
        super().on_trial_end(trial)
        seconds = time.monotonic() - self._begun.pop(trial.trial_id)
        # The oracle holds the trial as it was judged; `trial` may be an older copy.
        row = trial_row(self.oracle.get_trial(trial.trial_id), self.base, seconds)
        append_row(self.table, row)
        keep(self.folder)
        if self.board:
            show_trial(row, self.base, self.board)
        print(self._line(row), flush=True)
        self.after_trial()
        if self.oracle.gave_up:
            raise InputError(f"The search stopped: {_failures(self)}")

    def _line(self, row: dict) -> str:
        head = f"trial {row['trial']}/{self.plan.trials}"
        left = duration(self._seconds_left())
        if row["status"] != "COMPLETED":
            return f"{head}  failed: {row['reason']}  {left} left"
        best = max(trial.score or 0 for trial in self.finished() if trial.status == "COMPLETED")
        return (
            f"{head}  {OBJECTIVE} {row[OBJECTIVE]:.4f}  best {best:.4f}  "
            f"to epoch {row['last_epoch']}  {row['seconds']:.1f} s  {left} left"
        )

    def finished(self) -> list[Trial]:
        """Return all trials that have ended, well or not."""
        return [
            trial
            for trial in self.oracle.trials.values()
            if trial.status in ("COMPLETED", "FAILED")
        ]

    def epochs_done(self) -> int:
        """Return the epochs of all finished trials."""
        values = [trial.hyperparameters.values for trial in self.finished()]
        return sum(row["tuner/epochs"] - row["tuner/initial_epoch"] for row in values)

    def _cost_done(self) -> float:
        return self.epochs_done() + _START_COST * len(self.finished())

    def _seconds_left(self) -> float:
        done = self._cost_done()
        rate = (time.monotonic() - self._start) / max(done - self._cost_before, 1)
        return max(self.plan.epochs + _START_COST * self.plan.trials - done, 0) * rate


def open_hyperband(
    hypermodel: FashionHyperModel, folder: Path, max_epochs: int, factor: int, seed: int
) -> Hyperband:
    """Return a search that goes on from the state in `folder`, if there is any.

    What was under way when an earlier run was stopped is dropped, and done again.
    """
    put_back(folder)
    return Hyperband(hypermodel, folder, max_epochs, factor, seed)


def run_here(tuner: Hyperband) -> None:
    """Run all trials that are left, one after the other, in this process."""
    tuner.search(verbose=0)


@stopwatch.stage("trials")
def run(tuner: Hyperband, run_trials: Callable[[Hyperband], None] = run_here) -> list[Trial]:
    """Run all trials that are left and return the completed ones, the best first.

    Args:
        tuner: The search.
        run_trials: Runs them: here, or elsewhere.

    Raises:
        InputError: If trials failed one after the other, or no trial was completed.
    """
    if tuner.found:
        print(
            f"found {tuner.found} finished trials in {tuner.folder}; the search goes on after them"
        )
    if tuner.board:
        show_earlier(tuner.finished(), tuner.base, tuner.board)
    tuner.start_clock()
    gc.freeze()  # Keras Tuner looks for garbage before each trial; what exists now is none.
    try:
        run_trials(tuner)
    finally:
        gc.unfreeze()
    completed = [trial for trial in tuner.finished() if trial.status == "COMPLETED"]
    if not completed:
        raise InputError(f"Every trial failed: {_failures(tuner)}")
    failed = len(tuner.finished()) - len(completed)
    if failed:
        print(f"{failed} trials failed: {_failures(tuner)}")
    for checkpoint in tuner.folder.glob("trial_*/checkpoint.weights.h5"):
        checkpoint.unlink()  # No trial will be promoted any more.
    return sorted(completed, key=rank)


def _failures(tuner: Hyperband) -> str:
    reasons = [reason(trial) for trial in tuner.finished() if trial.status != "COMPLETED"]
    return "; ".join(sorted(set(reasons))) or "no trial was run"
