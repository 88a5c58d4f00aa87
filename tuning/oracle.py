"""Keras Tuner's Hyperband oracle, made to choose the same in whatever order trials end."""

import json
import math
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.metrics_tracking import MetricsTracker
from keras_tuner.src.engine.trial import TrialStatus

_NOBODY = "nobody"  # In place of a worker's name.


class Oracle(keras_tuner.oracles.HyperbandOracle):
    """Hands trials out, and chooses those that are trained on.

    Keras Tuner lets the order in which trials began decide between equally good ones. With many
    workers that order is chance, and with a few hundred validation photos many trials are equally
    good; so the validation loss decides here, and after it the values themselves.

    Attributes:
        gave_up: Whether too many trials failed one after the other.
    """

    gave_up = False

    def create_trial(self, tuner_id: str) -> Trial:
        """Return a trial to run from its start, or one whose status says to wait or to stop."""
        trial = super().create_trial(tuner_id)
        trial.metrics = MetricsTracker()  # It may have been run, and given back at its end.
        return trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Draw or choose the values of a new trial."""
        for bracket in self._brackets:
            for entries in bracket["rounds"]:  # Of equally good trials the first one is chosen.
                entries.sort(key=lambda entry: _among_equals(self.trials[entry["id"]]))
        chosen: dict[str, Any] = super().populate_space(trial_id)
        if chosen["status"] == TrialStatus.RUNNING:
            # Keras Tuner names the bracket that was begun last.
            chosen["values"]["tuner/bracket"] = self._bracket_of(trial_id)
        return chosen

    def _bracket_of(self, trial_id: str) -> int:
        return next(
            bracket["bracket_num"]
            for bracket in self._brackets
            if any(entry["id"] == trial_id for entries in bracket["rounds"] for entry in entries)
        )

    def give_back(self, tuner_id: str) -> Trial | None:
        """Let the next worker that asks run the trial of one that is gone; this is no failure.

        Returns:
            The trial; None if the worker had none.
        """
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial:
            self._retry_queue.append(trial.trial_id)
        return trial

    def over(self) -> bool:
        """Tell whether no trial is under way, and none is left to be run."""
        if self.ongoing_trials or self._retry_queue:
            return False
        if self.create_trial(_NOBODY).status == TrialStatus.STOPPED:
            return True
        self.give_back(_NOBODY)
        return False

    def _check_consecutive_failures(self) -> None:
        try:
            super()._check_consecutive_failures()
        except RuntimeError:  # It would leave the oracle locked, and the last failure unsaved.
            self.gave_up = True


def rank(trial: Trial) -> tuple:
    """Return what sorts completed trials, the best first, whatever the order they were run in."""
    score = -math.inf if trial.score is None else trial.score
    return (-score, *_among_equals(trial))


def _among_equals(trial: Trial) -> tuple[float, str, int]:
    known = trial.metrics.exists("val_loss")
    loss = trial.metrics.get_best_value("val_loss") if known else None
    values = trial.hyperparameters.values
    searched = {name: values[name] for name in values if not name.startswith("tuner/")}
    text = json.dumps(searched, sort_keys=True)
    return (math.inf if loss is None else loss, text, values.get("tuner/epochs", 0))
