"""Hyperband's plan, and the choice between equally good trials."""

import random

import pytest

from fashion_keras.config import Config
from tuning.oracle import Oracle, Stage


@pytest.fixture
def oracle(tmp_path):
    return Oracle(Config(), 9, 3, tmp_path)


def metrics_of(trial):
    """Many trials are equally good, and some of these have the same loss, too."""
    x = trial.hyperparameters.values["droprate"]
    return {"val_accuracy": round(x * 2) / 2, "val_loss": round(x * 4) / 4}


def test_plan_of_the_default_search(tmp_path):
    plan = Oracle(Config(), 30, 3, tmp_path).plan()
    assert (plan.trials, plan.epochs) == (90, 576)
    assert plan.stages[:2] == [Stage(3, 34, 0, 2), Stage(3, 12, 2, 4)]
    assert str(plan).startswith("plan: 90 trials, 576 epochs in all\n  bracket 3: 34 to epoch 2")


def test_all_first_rounds_can_begin_at_once_and_all_trials_are_those_of_the_plan(oracle):
    waiting = list(oracle.ready())
    assert len(waiting) == 9 + 5 + 3
    while waiting:
        trial = waiting.pop(0)
        oracle.end(trial, metrics_of(trial))
        waiting.extend(oracle.ready())
    rows = [one.hyperparameters.values for one in oracle.trials.values()]
    stages = [(row["tuner/bracket"], row["tuner/epochs"]) for row in rows]
    sizes = {stage: stages.count(stage) for stage in set(stages)}
    stages = oracle.plan().stages
    assert sizes == {(stage.bracket, stage.last_epoch): stage.trials for stage in stages}


def test_trials_that_are_trained_on_do_not_depend_on_the_order_of_ends(tmp_path):
    found = []
    for seed in range(5):
        oracle, dice = Oracle(Config(), 9, 3, tmp_path / str(seed)), random.Random(seed)  # noqa: S311
        waiting = list(oracle.ready())
        while waiting:
            trial = waiting.pop(dice.randrange(len(waiting)))
            oracle.end(trial, metrics_of(trial))
            waiting.extend(oracle.ready())
        values = [one.hyperparameters.values for one in oracle.trials.values()]
        rows = sorted(
            (one["droprate"], one["tuner/bracket"], one["tuner/epochs"]) for one in values
        )
        best = oracle.best()[0].hyperparameters.values
        found.append((rows, best["droprate"], best["tuner/epochs"]))
    assert len(found[0][0]) == 23
    assert all(one == found[0] for one in found)


def test_rounds_that_led_to_a_trial(oracle):
    waiting, seen = list(oracle.ready()), set()
    while waiting:
        trial = waiting.pop(0)
        rounds = oracle.epochs_of(trial)
        seen.add(tuple(rounds))
        assert trial.hyperparameters.values["tuner/epochs"] == rounds[-1]
        oracle.end(trial, metrics_of(trial))
        waiting.extend(oracle.ready())
    assert seen == {(1,), (1, 3), (1, 3, 9), (3,), (3, 9), (9,)}


def test_failed_trials_are_not_trained_on(oracle):
    waiting = list(oracle.ready())
    failing = waiting[:4]
    while waiting:
        trial = waiting.pop(0)
        oracle.end(trial, None if trial in failing else metrics_of(trial))
        waiting.extend(oracle.ready())
    assert [trial.status for trial in failing] == ["FAILED"] * 4
    parents = {one.hyperparameters.values.get("tuner/trial_id") for one in oracle.trials.values()}
    assert not parents & {trial.trial_id for trial in failing}
