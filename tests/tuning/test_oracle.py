"""The choice of trials: the same in whatever order trials end, and no trial is lost."""

import random

import keras_tuner
import pytest
from keras_tuner.src.engine.trial import TrialStatus

from tuning.oracle import Oracle, rank


@pytest.fixture
def new_oracle(tmp_path, monkeypatch):
    """Return a function that makes an oracle with a folder of its own."""
    count = iter(range(1000))

    def make():
        hp = keras_tuner.HyperParameters()
        hp.Float("x", 0.0, 1.0)
        oracle = Oracle("val_accuracy", max_epochs=9, factor=3, seed=1, hyperparameters=hp)
        oracle._set_project_dir(str(tmp_path), str(next(count)))
        oracle.verbose = 0
        monkeypatch.setattr(oracle, "save", lambda: None)  # Most of the time goes into files.
        monkeypatch.setattr(oracle, "_save_trial", lambda trial: None)
        return oracle

    return make


def end(oracle, trial, status=TrialStatus.COMPLETED):
    """End a trial; many are equally good, and some of these have the same loss, too."""
    x = trial.hyperparameters.values["x"]
    metrics = {"val_accuracy": round(x * 2) / 2, "val_loss": round(x * 4) / 4}
    oracle.update_trial(trial.trial_id, metrics)
    trial.status = status
    oracle.end_trial(trial)


def play(oracle, workers, seed):
    """Let workers run all trials; now and then one is gone, and comes back under another name."""
    dice = random.Random(seed)  # noqa: S311
    running, names = {}, [f"{number}" for number in range(workers)]
    while True:
        for name in set(names) - set(running):
            trial = oracle.create_trial(name)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.RUNNING:
                running[name] = trial
        name = dice.choice(sorted(running))
        if dice.random() < 0.1:
            assert oracle.give_back(name) is running.pop(name)
            names[names.index(name)] += "'"
        else:
            end(oracle, running.pop(name))


def outcome(oracle):
    """Return all trials without the numbers that tell their order."""
    kept = ("x", "tuner/bracket", "tuner/round", "tuner/initial_epoch", "tuner/epochs")
    rows = [[one.hyperparameters.values[name] for name in kept] for one in oracle.trials.values()]
    best = min(oracle.trials.values(), key=rank).hyperparameters.values
    return sorted(rows), (best["x"], best["tuner/epochs"])


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_same_trials_in_whatever_order_they_end(new_oracle, workers):
    alone = new_oracle()
    play(alone, 1, 0)
    for seed in range(10):
        oracle = new_oracle()
        play(oracle, workers, seed)
        assert outcome(oracle) == outcome(alone)
        assert {trial.status for trial in oracle.trials.values()} == {TrialStatus.COMPLETED}


def test_brackets_are_those_of_the_plan(new_oracle):
    oracle = new_oracle()
    play(oracle, 3, 1)
    rows = [one.hyperparameters.values for one in oracle.trials.values()]
    stages = [(row["tuner/bracket"], row["tuner/epochs"]) for row in rows]
    sizes = {stage: stages.count(stage) for stage in set(stages)}
    expected = {(2, 1): 9, (2, 3): 3, (2, 9): 1, (1, 3): 5, (1, 9): 2, (0, 9): 3}
    assert sizes == expected


def test_a_trial_given_back_is_run_again_from_its_start_and_did_not_fail(new_oracle):
    oracle = new_oracle()
    first = oracle.create_trial("1")
    oracle.update_trial(first.trial_id, {"val_accuracy": 1.0, "val_loss": 0.0})
    assert oracle.give_back("1") is first
    assert oracle.give_back("1") is None
    again = oracle.create_trial("2")
    assert (again.trial_id, again.status) == (first.trial_id, TrialStatus.RUNNING)
    assert not again.metrics.exists("val_accuracy")
    end(oracle, again)
    assert again.status == TrialStatus.COMPLETED
    assert oracle.create_trial("2").trial_id != first.trial_id


def test_a_worker_that_asks_twice_gets_the_same_trial(new_oracle):
    oracle = new_oracle()
    assert oracle.create_trial("1").trial_id == oracle.create_trial("1").trial_id == "0000"


def test_it_is_over_when_none_is_under_way_and_none_is_left(new_oracle):
    oracle = new_oracle()
    assert not oracle.over()
    assert oracle.create_trial("1").trial_id == "0000"
    assert not oracle.over()
    oracle.give_back("1")
    assert not oracle.over()
    play(oracle, 2, 1)
    assert oracle.over()
    assert len(oracle.trials) == 23


def test_too_many_failures_are_saved_and_leave_it_unlocked(new_oracle):
    oracle = new_oracle()
    oracle.max_consecutive_failed_trials = 2
    for _ in range(2):
        assert not oracle.gave_up
        end(oracle, oracle.create_trial("1"), TrialStatus.FAILED)
    assert oracle.gave_up
    assert oracle.ongoing_trials == {}
    assert oracle.create_trial("1").status == TrialStatus.RUNNING
