"""Tests of how long a run takes: what is measured, what is expected, and the plan of a budget."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.timing import Left, expected_seconds, measure, plan
from fashion_keras.training import Datasets, train_head
from tests.test_fine_tuning import CONFIG, opened

# 40 photos for training, 20 for validation and 20 for testing.
PLANNED = dataclasses.replace(CONFIG, epochs=10, fine_tuning_copies=4, fine_tuning_epochs=8)
SPEED = {"forward": 1.0, "fine_tuning": 0.5, "head": 10.0, "head_start": 2.0}


@pytest.fixture
def datasets(prepared, tiny_backbone, tmp_path):
    """Return the drawn photos with the tiny backbone."""
    return opened(prepared, tiny_backbone, tmp_path, PLANNED)


def planned_in(
    minutes: float, datasets: Datasets, folder: Path, config: Config = PLANNED, spent: float = 0.0
) -> tuple[Config, dict[str, Any]]:
    """Plan a run that began so many seconds ago on a machine of fixed speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_keras.timing.measure", lambda *_: SPEED)
        return plan(config, datasets, minutes, time.monotonic() - spent, folder)


def test_each_stage_takes_what_is_not_in_the_cache(datasets, tmp_path):
    # Five copies of 40 photos and 20 of validation; a head; eight epochs; 20 photos of validation
    # to calibrate on and 20 of the test; 40 for training to know what is none of the classes.
    expected = {
        "features": 220,
        "head": 10 * 40 / 10,
        "fine-tuning": 8 * (40 + 20 / 3) / 0.5,
        "validation and test": 30 + 40 + 40,
    }
    assert expected_seconds(PLANNED, datasets, tmp_path, SPEED) == pytest.approx(expected)
    datasets.store.feature_maps("train", 3, "block13")
    rest = expected | {"features": 180}
    assert expected_seconds(PLANNED, datasets, tmp_path, SPEED) == pytest.approx(rest)
    frozen = dataclasses.replace(PLANNED, fine_tuning_epochs=0, epochs=1)
    train_head(frozen, datasets, tmp_path)
    assert list(expected_seconds(frozen, datasets, tmp_path, SPEED).values()) == [0, 0, 0, 110]


def test_what_is_left_is_corrected_by_how_long_stages_took(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 610.0])
    monkeypatch.setattr("fashion_keras.timing.time.monotonic", lambda: next(clock))
    left = Left({"features": 300.0, "head": 0.4, "test": 60.0})
    left.show()
    left.show("head")
    assert capsys.readouterr().out.splitlines() == [
        "about 6 min in all (features 5 min, test 60 s)",
        "about 2 min left in all (test 2 min)",
    ]


def test_less_time_leaves_out_copies_and_epochs(datasets, tmp_path):
    config, made = planned_in(1000, datasets, tmp_path)
    assert (config, made["left_out"]) == (PLANNED, [])
    config, made = planned_in(10, datasets, tmp_path)
    assert 0 < config.fine_tuning_epochs < 8
    assert 0 < config.fine_tuning_copies < 4
    assert sum(expected_seconds(config, datasets, tmp_path, SPEED).values()) <= 0.9 * 600
    assert made["left_out"] == [
        f"fine_tuning_copies: {config.fine_tuning_copies} instead of 4",
        f"fine_tuning_epochs: {config.fine_tuning_epochs} instead of 8",
    ]
    later, _ = planned_in(10, datasets, tmp_path / "later", spent=200)
    assert later.fine_tuning_epochs < config.fine_tuning_epochs
    # An interrupted run follows the plan that it had.
    assert planned_in(10, datasets, tmp_path, spent=200) == (config, made)
    config, _ = planned_in(4.5, datasets, tmp_path)
    assert (config.fine_tuning_epochs, config.augmented_copies) == (0, 0)
    # 40 seconds for the head, 60 for its features, 110 for all else.
    with pytest.raises(InputError, match=r"takes about 3.9 minutes .* Received: --budget 0\.5\."):
        planned_in(0.5, datasets, tmp_path)


def test_copies_are_kept_where_they_take_no_time(datasets, tmp_path):
    pixels = dataclasses.replace(PLANNED, fine_tune_from="pixels")
    config, made = planned_in(8, datasets, tmp_path, pixels)
    assert (config.fine_tuning_copies, config.augmented_copies) == (4, 1)
    assert 0 < config.fine_tuning_epochs < 8
    assert len(made["left_out"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_speed_is_measured_once_without_changing_a_weight(
    fine_tune_from, datasets, tmp_path, capsys
):
    before = [weight.tobytes() for weight in datasets.backbone.get_weights()]
    config = dataclasses.replace(PLANNED, fine_tune_from=fine_tune_from)
    speed = measure(config, datasets, tmp_path)
    assert set(speed) == {"forward", "fine_tuning", "head", "head_start"}
    assert min(speed.values()) > 0
    assert before == [weight.tobytes() for weight in datasets.backbone.get_weights()]
    assert capsys.readouterr().out.count("measuring the speed of this machine") == 3
    assert measure(config, datasets, tmp_path) == speed
    assert capsys.readouterr().out == ""
