"""Tests of the plan that makes a run fit into a given time."""

import dataclasses
import time
from pathlib import Path

import keras
import pytest

from fashion_keras import budget
from fashion_keras.budget import Plan, Speed, expected_seconds, measure, plan
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.features import FeatureStore
from fashion_keras.training import Material

# 40 photos for training, 20 for validation and 20 for testing.
CONFIG = Config(
    image_size=71,
    batch_size=8,
    inner_size=0,
    heads=1,
    epochs=10,
    augmented_copies=1,
    fine_tuning_copies=4,
    fine_tuning_epochs=8,
    fine_tune_from="block13",
)
SPEED = Speed(forward=1.0, tuned=0.5, head=10.0)


@pytest.fixture
def material(prepared: Prepared, tiny_backbone: keras.Model, tmp_path: Path) -> Material:
    """Return the drawn photos with the tiny backbone and nothing in the cache."""
    return Material(
        prepared, tiny_backbone, FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    )


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Put a fixed speed in place of the measurement, except where that is tested."""
    if "measured" not in request.node.name:
        monkeypatch.setattr(budget, "measure", lambda *_: SPEED)


def test_expected_time_is_the_sum_of_its_parts(material: Material) -> None:
    # Five copies of 40 photos, 20 of validation twice (to train, to calibrate), 20 of the test; a
    # head; eight passes.
    expected = 30 + (5 * 40 + 20 + 20 + 20) / 1 + 10 * 40 / 10 + 8 * (40 + 20 / 3) / 0.5
    assert expected_seconds(CONFIG, material, SPEED) == pytest.approx(expected)
    frozen = dataclasses.replace(CONFIG, fine_tuning_epochs=0)
    assert expected_seconds(frozen, material, SPEED) == pytest.approx(30 + 2 * 40 + 60 + 40)


def test_what_lies_in_the_cache_costs_nothing(material: Material) -> None:
    _, store = material.frozen()
    before = expected_seconds(CONFIG, material, SPEED)
    store.maps("train", 3, "block13")
    assert expected_seconds(CONFIG, material, SPEED) == pytest.approx(before - 40)


def planned_in(minutes: float, material: Material, folder: Path) -> tuple[Config, Plan]:
    """Plan as if the run began now."""
    return plan(CONFIG, material, minutes, time.monotonic(), folder)


def test_with_enough_time_nothing_is_left_out(material: Material, tmp_path: Path) -> None:
    config, planned = planned_in(1000, material, tmp_path)
    assert config == CONFIG
    assert planned.left_out == []
    assert planned.expected_minutes * 60 == pytest.approx(
        expected_seconds(CONFIG, material, SPEED), abs=4
    )


@pytest.mark.parametrize(("share", "fits"), [(0.89, True), (0.91, False)])
def test_nine_tenths_of_the_budget_are_used(
    share: float, fits: bool, material: Material, tmp_path: Path
) -> None:
    minutes = expected_seconds(CONFIG, material, SPEED) / 60 / share
    config, _ = planned_in(minutes, material, tmp_path)
    assert (config == CONFIG) == fits


def test_less_time_takes_away_views_and_passes_together(material: Material, tmp_path: Path) -> None:
    spent = []
    for minutes in (17, 10, 6):
        config, _ = planned_in(minutes, material, tmp_path)
        spent.append(expected_seconds(config, material, SPEED))
        assert spent[-1] <= 0.9 * 60 * minutes
    assert spent == sorted(spent, reverse=True)
    config, planned = planned_in(10, material, tmp_path)
    assert 0 < config.fine_tuning_epochs < 8
    assert 0 < config.fine_tuning_copies < 4
    assert planned.left_out == [
        f"fine_tuning_copies: {config.fine_tuning_copies} instead of 4",
        f"fine_tuning_epochs: {config.fine_tuning_epochs} instead of 8",
    ]


def test_time_that_was_spent_before_counts(material: Material, tmp_path: Path) -> None:
    later = plan(CONFIG, material, 17, time.monotonic() - 400, tmp_path / "later")[0]
    assert later.fine_tuning_epochs < planned_in(17, material, tmp_path)[0].fine_tuning_epochs


def test_views_are_kept_where_they_cost_nothing(material: Material, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, fine_tune_from="pixels")
    found, planned = plan(config, material, 8, time.monotonic(), tmp_path)
    assert (found.fine_tuning_copies, found.augmented_copies) == (4, 1)
    assert 0 < found.fine_tuning_epochs < 8
    assert len(planned.left_out) == 1


def test_with_little_time_the_backbone_stays_frozen(material: Material, tmp_path: Path) -> None:
    config, planned = planned_in(3.5, material, tmp_path)
    assert (config.fine_tuning_epochs, config.augmented_copies) == (0, 0)
    assert "fine_tuning_epochs: 0 instead of 8" in planned.left_out
    assert "copies: 0 instead of 1" in planned.left_out


def test_too_little_time_is_refused_with_what_it_takes(material: Material, tmp_path: Path) -> None:
    # 30 + 40 + 20 + 20 + 20 + 40 seconds.
    with pytest.raises(InputError, match=r"takes about 3 minutes .* Received: --budget 0\.5\."):
        planned_in(0.5, material, tmp_path)


def test_an_interrupted_run_follows_the_plan_it_had(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned_in(10, material, tmp_path)
    monkeypatch.setattr(budget, "measure", None)
    assert planned_in(10, material, tmp_path) == first


@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_speed_is_measured_without_changing_a_weight(
    fine_tune_from: str, material: Material
) -> None:
    backbone, _ = material.frozen()
    kernel, bias, block, shift = backbone.get_weights()
    bias[::2] = shift[::2] = -0.0  # As rounding to half precision leaves some.
    backbone.set_weights([kernel, bias, block, shift])
    before = [weight.tobytes() for weight in backbone.get_weights()]
    speed = measure(dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from), material)
    assert speed.tuned is not None
    assert min(speed.forward, speed.tuned, speed.head) > 0
    assert backbone.trainable_weights == []
    assert before == [weight.tobytes() for weight in backbone.get_weights()]
