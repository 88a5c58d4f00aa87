"""Tests of what is shown while a search runs."""

import pytest

from fashion_keras.config import Config
from tuning.oracle import Oracle
from tuning.results import Cost, Report
from tuning.space import HEAD
from tuning.trials import Outcome

ROW = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}


def test_the_time_left_is_what_was_expected_until_trials_took_another(
    tmp_path, monkeypatch, capsys
):
    oracle = Oracle(HEAD, Config(), 2, 2, tmp_path)
    report = Report(oracle, tmp_path, tmp_path, None, None, Cost(1.0, 2.0, later=100.0))
    monkeypatch.setattr(report, "_write_page", lambda file: None)
    trials, epochs = oracle.plan().trials, oracle.plan().epochs
    assert report.left() == trials + 2 * epochs + 100
    # One from the cache, the first one that is trained, and one that took 36 s in place of 5 s.
    ends = (0.0, True), (50.0, False), (86.0, False)
    for trial, (now, found) in zip(oracle.ready(), ends, strict=False):
        monkeypatch.setattr("tuning.results.time.monotonic", lambda now=now: now)
        report.add(trial, Outcome([ROW], 1.0), found)
    left = (trials - 3 + 2 * (epochs - 4) + 100) * (10 + 36) / (10 + 5)
    assert report.left() == pytest.approx(left)
    assert capsys.readouterr().out.endswith(f"  1.0 s  {left / 60:.0f} min left in all\n")
    report.end = 86.0 + 40  # By `--max-minutes`.
    assert report.left() == 40
