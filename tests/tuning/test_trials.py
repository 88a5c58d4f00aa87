"""The loop around the oracle: the same trials whatever finishes first, each of them run once."""

import collections
import hashlib
import json
import random

import numpy as np
import pytest

from fashion_keras.artifacts import fingerprint
from fashion_keras.config import Config, InputError
from fashion_keras.training import HeadData
from tuning.oracle import Oracle
from tuning.space import HEAD
from tuning.trials import Outcome, Trainer, run_trials

BASE = Config(augmented_copies=1)
NO_DATA = HeadData([], np.zeros(0), np.zeros(0), np.zeros(0), [])


class Shuffled:
    """A pool of several workers that finish in an order of chance."""

    def __init__(self, size, seed=0):
        self.size, self.ran = size, []
        self._tasks, self._dice = collections.deque(), random.Random(seed)  # noqa: S311

    def share(self, value):  # noqa: D102
        return value

    def submit(self, *task):  # noqa: D102
        self._tasks.append(task)

    def next_done(self):
        """Run one of the tasks that workers would be at."""
        at = self._dice.randrange(min(self.size, len(self._tasks)))
        label, function, *arguments = self._tasks[at]
        del self._tasks[at]
        self.ran.append(label)
        return label, function(*arguments)


def key_of(config):
    return fingerprint(config=vars(config))


def play(data, base, values, epochs, state, keep_state):
    """Stand in for training: tied scores, and a state that depends on the parent's."""
    chain = state.decode().split() if state else []
    if len(chain) != len(epochs) - 1:  # Train as the parents were.
        chain = [str(epoch) for epoch in epochs[:-1]]
    chain.append(str(epochs[-1]))
    assert chain == [str(epoch) for epoch in epochs]
    text = json.dumps([values["droprate"], chain])
    number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
    row = {"epoch": epochs[-1], "val_accuracy": round(number * 3) / 3, "val_loss": round(number, 1)}
    return Outcome([row], 0.1), " ".join(chain).encode() if keep_state else None


def search(folder, workers, task=play, epochs=9):
    """Return the oracle after a search, its trainer, and what `run_trials` yielded."""
    oracle = Oracle(HEAD, BASE, epochs, 3, folder / "oracle")
    trainer = Trainer(NO_DATA, key_of, folder / "trials", workers)
    return oracle, trainer, list(run_trials(oracle, trainer, task))


def outcomes_of(found):
    """Return all that must not depend on who finishes first."""
    return [
        (trial.trial_id, trial.hyperparameters.values, outcome.rows) for trial, outcome, _ in found
    ]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_trials_do_not_depend_on_the_number_of_workers_or_the_order_of_ends(size, tmp_path):
    alone, _, expected = search(tmp_path / "alone", Shuffled(1))
    assert [trial.trial_id for trial, _, _ in expected] == [f"{n:04}" for n in range(23)]
    for seed in range(3):
        oracle, _, found = search(tmp_path / f"{seed}", Shuffled(size, seed))
        assert outcomes_of(found) == outcomes_of(expected)
        assert [one.trial_id for one in oracle.best()] == [one.trial_id for one in alone.best()]


def test_a_search_that_was_killed_goes_on_and_then_runs_nothing_again(tmp_path):
    _, _, expected = search(tmp_path / "undisturbed", Shuffled(2))
    ran = []

    def dying(*arguments):
        if len(ran) == 20:
            raise KeyboardInterrupt
        ran.append(arguments)
        return play(*arguments)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, Shuffled(2), dying)
    for left in (3, 0):
        workers = Shuffled(2)
        _, _, found = search(tmp_path, workers)
        assert len(workers.ran) == left
        assert outcomes_of(found) == outcomes_of(expected)
    assert all(in_cache for _, _, in_cache in found)


def test_states_go_when_they_are_not_needed_and_are_made_again_when_they_are(tmp_path):
    _, trainer, expected = search(tmp_path, Shuffled(1))
    states = list((tmp_path / "trials").glob("*.npz"))
    assert len(states) == 9 + 3 + 5  # All that were not of a last round.
    trainer.forget_states()
    assert not list((tmp_path / "trials").glob("*.npz"))
    # A longer search needs what some of these trials left.
    longer = search(tmp_path / "alone", Shuffled(1), epochs=27)[2]
    assert outcomes_of(search(tmp_path, Shuffled(1), epochs=27)[2]) == outcomes_of(longer)


def test_a_failed_trial_is_an_outcome_too(tmp_path):
    def failing(data, base, values, epochs, state, keep_state):
        if values["droprate"] > 0.5:
            return Outcome([], 0.1, "it diverged"), None
        return play(data, base, values, epochs, state, keep_state)

    _, _, found = search(tmp_path, Shuffled(3), failing)
    failed = [outcome for trial, outcome, _ in found if trial.status == "FAILED"]
    assert {outcome.reason for outcome in failed} == {"it diverged"}
    assert 0 < len(failed) < len(found)


def test_ten_failures_in_a_row_stop_the_search(tmp_path):
    tasks = Shuffled(4)
    with pytest.raises(InputError, match=r"10 trials failed one after the other: it diverged\."):
        search(tmp_path, tasks, lambda *_: (Outcome([], 0, "it diverged"), None), 30)
    assert len(tasks.ran) < 20
