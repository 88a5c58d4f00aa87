"""The search of fine-tuning on drawn photos: on feature maps, and on pixels."""

import dataclasses
import functools
import io
import json
from typing import Any

import numpy as np
import pytest

from fashion_keras.config import Config, InputError, read_config, to_json
from tests.builders import opened, rows_of
from tests.report.html_page import Page
from tuning import fine_tuning, space
from tuning import search as search_module
from tuning.fine_tuning import FineTuningHyperModel
from tuning.trials import train_trial

WORDS = ["--stage", "fine-tuning", "--image-size", "71", "--batch-size", "8"]
WORDS += ["--fine-tuning-copies", "1", "--max-epochs", "2", "--factor", "2"]
SPEED = {"forward": 0.5, "fine_tuning": 1.0, "head": 0.1}  # Photos in a second.
FOUND = Config(inner_size=8, learning_rate=0.01, epochs=2, ema_epochs=0.0, fine_tuning_epochs=5)


@pytest.fixture
def run(sample_folder, tiny_backbone, tmp_path, monkeypatch):
    """Return what searches after a head was found, and returns its results folder."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda config: tiny_backbone)
    places = {True: ("pixels", "block13"), False: ("block13",)}  # The backbone has one block.
    monkeypatch.setattr(space, "starts", lambda backbone, on_pixels: places[on_pixels])
    folder = tmp_path / "results" / "search"
    folder.mkdir(parents=True)
    (folder / "best_config.json").write_text(to_json(FOUND))

    def search(*words):
        data = ["--data", str(sample_folder), "--cache", str(tmp_path / "cache")]
        search_module.main([*WORDS, *data, "--results", str(folder.parent), *words])
        return folder

    return search


@pytest.mark.slow
def test_the_best_fine_tuning_is_found_written_and_found_again(run, capsys, tmp_path):
    folder = run()
    output = capsys.readouterr().out
    best, trials = (
        read_config(folder / "best_config.json"),
        rows_of(folder / "fine_tuning" / "trials.csv"),
    )
    summary = json.loads((folder / "fine_tuning" / "search.json").read_text())
    assert output.index("plan: 5 trials, ") < output.index("frozen features should take")
    losses = [float(row["val_log_loss"]) for row in trials]
    assert summary["validation_log_loss"] == pytest.approx(min(losses), abs=1e-4)
    rate = float(trials[losses.index(min(losses))]["fine_tuning_learning_rate"])
    kept = {name: getattr(best, name) for name in space.TUNED}
    assert summary["winner"] == kept
    assert best.fine_tuning_learning_rate == rate
    # What is not searched stays; `final` trains at the side that was given.
    assert (best.inner_size, best.fine_tuning_epochs, best.image_size) == (8, 5, 71)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert f"a log loss of {min(losses):.4f}" in page.words
    assert not list((tmp_path / "cache" / "trials").glob("*.npz"))

    run()
    assert capsys.readouterr().out.count("found in the cache") >= 5
    assert read_config(folder / "best_config.json") == best


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("--augmented-copies", "4", "1"), ("--objective", "balanced_accuracy", "accuracy")],
)
def test_what_the_head_search_found_is_not_for_options_to_change(option, value, known, run):
    with pytest.raises(InputError, match=rf"has `{option} {known}`\. Received: {value}\. Leave"):
        run(option, value)


def test_the_time_of_fine_tuning_is_known_before_it_begins(
    run, sample_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(fine_tuning, "measure", lambda *call: SPEED)
    config = dataclasses.replace(FOUND, data=str(sample_folder), image_size=71)
    # 300 photos and copies; 75 epochs with 20 photos of validation; 17 heads of two epochs.
    seconds = 300 / 0.5 + 75 * (40 + 20 / 3) + 17 * (2 * 40 / 0.1 + 10)
    found = fine_tuning.expected_seconds(config, 9, 3, tmp_path / "cache")
    assert found == pytest.approx(seconds)


def test_feature_maps_that_need_all_the_time_are_refused_before_they_are_made(run, monkeypatch):
    monkeypatch.setattr(fine_tuning, "measure", lambda *call: SPEED)
    with pytest.raises(InputError, match=r"take 6 min here.* `--max-minutes 5`"):
        run("--max-minutes", "5")


@pytest.mark.slow
def test_on_pixels_too_no_other_trial_begins_after_the_given_minutes(run, monkeypatch, capsys):
    search: Any = fine_tuning.search_fine_tuning
    monkeypatch.setattr(fine_tuning, "_announce", lambda *call: None)  # It would refuse.
    limited = lambda *call, **options: search(*call, **options | {"minutes": 1e-6})  # noqa: E731
    monkeypatch.setattr(fine_tuning, "search_fine_tuning", limited)
    folder = run("--fine-tune-on", "pixels", "--max-minutes", "1")
    assert "the time is over" in capsys.readouterr().out
    (trial,) = rows_of(folder / "fine_tuning" / "trials.csv")
    best = read_config(folder / "fine_tuning" / "best_config.json")
    assert (best.fine_tune_on, best.fine_tune_from) == ("pixels", trial["fine_tune_from"])


@pytest.mark.parametrize("before", [0.9, 0.5, 0.4])
def test_a_winner_less_accurate_than_the_head_is_none(before, tmp_path, capsys):
    (tmp_path / "search.json").write_text(json.dumps({"validation_accuracy": before}))
    name = "validation_accuracy"
    better = fine_tuning._is_better({name: 0.5}, name, tmp_path)
    assert better == (before <= 0.5)
    assert ("best_config.json stays" in capsys.readouterr().out) != better
    assert fine_tuning._is_better({name: 0.0}, name, None)


def test_a_rate_found_for_smaller_photos_is_not_that_of_final(capsys):
    found = dataclasses.replace(FOUND, image_size=150, fine_tuning_learning_rate=0.001)
    winner = fine_tuning._for_final(found, FOUND, 299)
    assert (winner.image_size, winner.fine_tuning_learning_rate) == (299, 0.0003)
    assert "`--image-size 299` searches it" in capsys.readouterr().out
    same = fine_tuning._for_final(found, FOUND, 150)
    assert (same.image_size, same.fine_tuning_learning_rate) == (150, 0.001)


@pytest.mark.slow
def test_a_promoted_trial_goes_on_as_if_it_had_not_stopped(prepared, tiny_backbone, tmp_path):
    config = dataclasses.replace(FOUND, image_size=71, batch_size=8, fine_tuning_copies=0)
    config = dataclasses.replace(config, fine_tune_from="block13")
    datasets = opened(prepared, tiny_backbone, tmp_path, config)
    only = space.Space(lambda hp, base: base, *space.fine_tuning(False)[1:])
    data = fine_tuning.TuningData(datasets, only, tmp_path, 1)
    train: Any = functools.partial(train_trial, data, config, {}, build=FineTuningHyperModel)
    whole, state = train([2], None, True)
    _, first = train([1], None, True)
    continued, later = train([1, 2], first, True)
    again, _ = train([1, 2], None, True)  # The state is gone.
    assert [row["val_log_loss"] for row in continued.rows] == [whole.rows[-1]["val_log_loss"]]
    assert [row["val_log_loss"] for row in again.rows] == [whole.rows[-1]["val_log_loss"]]
    contents = [dict(np.load(io.BytesIO(one))) for one in (state, later)]
    for name, values in contents[0].items():
        np.testing.assert_array_equal(values, contents[1][name])
