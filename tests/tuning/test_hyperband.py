"""Hyperband with a plan, a line a trial, and failures that are said."""

import csv
import errno
import types

import pytest
from keras_tuner import HyperParameters, errors

from fashion_keras.config import Config, InputError
from fashion_keras.features import FeatureStore
from fashion_keras.training import Datasets
from tuning import hypermodel as hypermodel_module
from tuning.hyperband import _size_of, open_hyperband, run
from tuning.hypermodel import FashionHyperModel
from tuning.plan import Stage

CONFIG = Config(image_size=71, augmented_copies=1, batch_size=8)


@pytest.fixture
def hypermodel(prepared, tiny_backbone, tmp_path):
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "cache")
    return FashionHyperModel(CONFIG, Datasets(prepared, tiny_backbone, store))


def fail_when(monkeypatch, condition):
    """Make each trial whose number fulfils the condition raise an error."""
    real, count = hypermodel_module.head_data, iter(range(1000))

    def training_batches(*args):
        if condition(next(count)):
            raise MemoryError("no room for the batch")
        return real(*args)

    monkeypatch.setattr(hypermodel_module, "head_data", training_batches)


def test_plan_of_the_default_search(hypermodel, tmp_path):
    plan = open_hyperband(hypermodel, tmp_path / "search", 30, 3, 1).plan
    assert (plan.trials, plan.epochs) == (90, 576)
    assert plan.stages[:2] == [Stage(3, 34, 0, 2), Stage(3, 12, 2, 4)]
    assert str(plan).startswith("plan: 90 trials, 576 epochs in all\n  bracket 3: 34 to epoch 2")


def test_all_trials_run_and_are_written(hypermodel, tmp_path, capsys):
    tuner = open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1)
    trials = run(tuner)
    scores = [trial.score or 0 for trial in trials]
    assert len(trials) == tuner.plan.trials == 5
    assert scores == sorted(scores, reverse=True)
    with tuner.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["COMPLETED"] * 5
    assert float(rows[0]["val_accuracy"]) == pytest.approx(tuner.oracle.trials["0000"].score)
    assert not list((tmp_path / "search").rglob("*.h5"))
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "trial " in line]
    assert shown == [f"{row['trial']}/5" for row in rows] == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_a_second_run_goes_on_and_has_nothing_left_to_do(hypermodel, tmp_path, capsys):
    first = run(open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1))
    capsys.readouterr()
    second = run(open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1))
    output = capsys.readouterr().out
    assert "found 5 finished trials" in output
    assert "trial 1/5" not in output
    assert [trial.trial_id for trial in first] == [trial.trial_id for trial in second]


def test_a_search_that_was_killed_and_torn_ends_as_an_undisturbed_one(
    hypermodel, tmp_path, monkeypatch, capsys
):
    expected = run(open_hyperband(hypermodel, tmp_path / "quiet", 2, 2, 1))
    with monkeypatch.context() as patch:
        kill_in_trial(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1))
    for torn in ("oracle.json", "tuner0.json", "trial_0001/trial.json", "trials.csv"):
        (tmp_path / "search" / torn).write_text('{"ongoing_tr')
    capsys.readouterr()
    tuner = open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1)
    trials = run(tuner)
    assert "found 2 finished trials" in capsys.readouterr().out
    assert [(one.trial_id, one.score) for one in trials] == [
        (one.trial_id, one.score) for one in expected
    ]
    with tuner.table.open(newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


def kill_in_trial(monkeypatch, number):
    """Interrupt the trial with this number, counted from 0."""
    real, count = hypermodel_module.head_data, iter(range(1000))

    def training_batches(*args):
        if next(count) == number:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(hypermodel_module, "head_data", training_batches)


def test_one_failed_trial_is_shown_with_its_reason(hypermodel, tmp_path, monkeypatch, capsys):
    fail_when(monkeypatch, lambda number: number == 1)
    trials = run(open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1))
    output = capsys.readouterr().out
    assert "failed: MemoryError: no room for the batch" in output
    assert "1 trials failed: MemoryError: no room for the batch" in output
    assert all(trial.status == "COMPLETED" for trial in trials)


def test_room_for_weights_is_asked_for_before_they_are_saved(hypermodel, tmp_path, monkeypatch):
    tuner = open_hyperband(hypermodel, tmp_path / "search", 1, 2, 1)
    smallest = HyperParameters()
    smallest.Fixed("inner_size", 0)
    free = 1_000_000 + _size_of(hypermodel.build(smallest)) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda place: types.SimpleNamespace(free=free))
    with pytest.raises(errors.FatalError, match=r"trial_0000 is full \(\d\.\d MB are needed"):
        tuner.search(verbose=0)
    assert not list(tuner.folder.glob("trial_*/*.h5"))


def test_too_little_memory_for_one_photo_ends_the_search(hypermodel, tmp_path, monkeypatch):
    def in_pieces(*args):
        raise InputError("Out of memory")

    monkeypatch.setattr(FashionHyperModel, "in_pieces", in_pieces)
    tuner = open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1)
    with pytest.raises(InputError, match="Out of memory"):
        run(tuner)
    assert not tuner.finished()


def test_a_full_disk_is_no_fault_of_a_trial(hypermodel, tmp_path, monkeypatch):
    def training_batches(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "/c/one.h5")

    monkeypatch.setattr(hypermodel_module, "head_data", training_batches)
    tuner = open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1)
    with pytest.raises(errors.FatalError, match=r"The disk of /c/one\.h5 is full"):
        run(tuner)
    assert not tuner.finished()


def test_a_search_in_which_all_trials_fail_fails(hypermodel, tmp_path, monkeypatch):
    fail_when(monkeypatch, lambda number: True)
    with pytest.raises(InputError, match="Every trial failed: MemoryError: no room"):
        run(open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1))


def test_ten_failures_in_a_row_stop_the_search_and_all_are_shown(
    hypermodel, tmp_path, monkeypatch, capsys
):
    fail_when(monkeypatch, lambda number: True)
    tuner = open_hyperband(hypermodel, tmp_path / "search", 30, 3, 1)
    with pytest.raises(InputError, match="The search stopped: MemoryError: no room"):
        run(tuner)
    assert "trial 10/90  failed: MemoryError" in capsys.readouterr().out
    assert tuner.table.read_text().count("FAILED") == 10


def test_errors_of_another_kind_are_not_renamed(hypermodel, tmp_path, monkeypatch):
    tuner = open_hyperband(hypermodel, tmp_path / "search", 2, 2, 1)

    def search(**options):
        raise RuntimeError("something else")

    monkeypatch.setattr(tuner, "search", search)
    with pytest.raises(RuntimeError, match="something else"):
        run(tuner)
