"""Hyperband's plan, and the choice between equally good trials."""

import collections
import random

from fashion_keras.config import Config
from tuning.oracle import Oracle, Round
from tuning.space import HEAD


def rows_of(trial):
    """Many trials are equally good, and some of these have the same loss, too."""
    x = trial.hyperparameters.values["droprate"]
    return [{"val_accuracy": round(x * 2) / 2, "val_loss": round(x * 4) / 4}]


def play(oracle, failing=(), dice=None):
    """Run all trials, the first of those that wait first or one of them by chance."""
    waiting = list(oracle.ready())
    while waiting:
        trial = waiting.pop(dice.randrange(len(waiting)) if dice else 0)
        oracle.end(trial, [] if trial.trial_id in failing else rows_of(trial))
        waiting.extend(oracle.ready())
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def test_plan_of_the_default_search(tmp_path):
    plan = Oracle(HEAD, Config(), 30, 3, tmp_path).plan()
    assert (plan.trials, plan.epochs) == (90, 576)
    assert plan.rounds[:2] == [Round(3, 34, 0, 2), Round(3, 12, 2, 4)]
    assert str(plan).startswith("plan: 90 trials, 576 epochs in all\n  bracket 3: 34 to epoch 2")


def test_all_trials_are_those_of_the_plan_and_first_rounds_can_begin_at_once(tmp_path):
    oracle = Oracle(HEAD, Config(), 9, 3, tmp_path)
    counts = collections.Counter(
        (row["tuner/bracket"], row["tuner/epochs"]) for row in play(oracle)
    )
    rounds = oracle.plan().rounds
    assert counts == {(one.bracket, one.last_epoch): one.trials for one in rounds}
    assert len(list(Oracle(HEAD, Config(), 9, 3, tmp_path / "other").ready())) == 9 + 5 + 3


def test_trials_that_are_trained_on_do_not_depend_on_the_order_of_ends(tmp_path):
    found = []
    for seed in range(5):
        oracle = Oracle(HEAD, Config(), 9, 3, tmp_path / str(seed))
        values = play(oracle, dice=random.Random(seed))  # noqa: S311
        rows = sorted(
            (one["droprate"], one["tuner/bracket"], one["tuner/epochs"]) for one in values
        )
        best = oracle.best()[0].hyperparameters.values
        found.append((rows, best["droprate"], best["tuner/epochs"]))
    assert len(found[0][0]) == 23
    assert all(one == found[0] for one in found)


def test_failed_trials_are_not_trained_on(tmp_path):
    oracle = Oracle(HEAD, Config(), 9, 3, tmp_path)
    failing = {f"{number:04}" for number in range(4)}
    parents = {values.get("tuner/trial_id") for values in play(oracle, failing)}
    assert {oracle.trials[one].status for one in failing} == {"FAILED"}
    assert not parents & failing
