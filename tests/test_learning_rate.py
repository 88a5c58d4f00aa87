"""The range test: what it suggests on curves with known answers, and what it leaves alone."""

import argparse
import dataclasses
import math

import keras
import numpy as np
import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.learning_rate import (
    Curve,
    add_rate_option,
    draw_curve,
    fine_tuning_curve,
    head_curve,
    range_test,
    rising_rates,
    suggestions,
    with_found_rate,
)
from fashion_keras.model import build_head
from tests.builders import opened

CONFIG = Config(
    image_size=71,
    batch_size=8,
    augmented_copies=0,
    fine_tuning_copies=0,
    epochs=2,
    fine_tune_from="block13",
)
RATES = rising_rates(1e-6, 1.0, 61)  # Ten steps for each factor of ten.


@pytest.fixture
def datasets(prepared, tiny_backbone, tmp_path):
    return opened(prepared, tiny_backbone, tmp_path, CONFIG)


def curve_of(losses):
    return Curve(RATES[: len(losses)], list(losses), list(losses), [0.0] * len(losses))


def loss_at(rate):
    """Fall from 2 to 1 between 1e-4 and 1e-2, fastest at 1e-3; rise after 1e-1."""
    place = math.log10(rate)
    fall = 1 / (1 + math.exp(4 * (place + 3)))
    return 1 + fall + max(0, place + 1)


def test_suggestions_of_a_smooth_curve():
    losses = [*map(loss_at, RATES)]
    losses[-2:] = [50, 1.5]  # After it exploded the loss jumps down again, which does not count.
    found = suggestions(curve_of(losses))
    # The fall lasts from 4e-6, the first that counts (a tenth of the steps is left out), to 1e-1.
    assert found == {"valley": 6.3e-4, "steep": 1e-3, "minimum": 1e-2}


def test_valley_is_the_middle_of_the_longest_fall_even_if_interrupted():
    # The first two of 23 steps do not count; then 9, 8, 7 and 6: four steps back from step 7.
    losses = [9, 9, 9, 8, 8.5, 7, 7.5, 6, *range(20, 35)]
    assert suggestions(curve_of(losses))["valley"] == float(f"{RATES[5]:.2g}")


def test_a_flat_curve_or_one_that_explodes_at_once_suggests_nothing():
    for noise in (0.0, 0.1):
        losses = 2 + noise * np.random.default_rng(1).normal(size=300)
        smoothed = [float(losses[: step + 1][-20:].mean()) for step in range(300)]
        with pytest.raises(InputError, match="No learning rate from 1e-06 to 1 lowers the loss cl"):
            suggestions(Curve(rising_rates(), list(losses), smoothed, [0.0] * 300))
    with pytest.raises(InputError, match="exploded after 5 steps.*smaller rate"):
        suggestions(curve_of([2, 2, 2, 2, 9]))


def test_rates_rise_by_the_same_factor_within_a_usable_range():
    assert (RATES[0], RATES[-1], len(RATES)) == (1e-6, 1.0, 61)
    np.testing.assert_allclose(np.divide(RATES[1:], RATES[:-1]), 10**0.1)
    for low, high in ((1e-3, 1e-3), (0.0, 1.0), (1e-3, math.nan)):
        with pytest.raises(InputError, match=f"between 1e-8 and 10.*Received: {low:g} to {high:g}"):
            rising_rates(low, high, 100)
    with pytest.raises(InputError, match=r"20 steps or more\. Received: 19"):
        rising_rates(1e-6, 1.0, 19)


ONE = np.ones((1, 1), "float32")
BATCHES = [(ONE, 0 * ONE), (ONE, 3 * ONE)]  # An easy one and a hard one for a weight of 1.


def plain_model():
    """One weight, no bias: predicts the input times the weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0]])])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    return model


def test_losses_are_those_of_each_batch_alone():
    curve = range_test(plain_model(), BATCHES, [0.25, 0.125, 0.0625])
    # Weight 1, then 1 - 0.25 * 2 = 0.5 (loss (0.5 - 3)^2), then 0.5 + 0.125 * 5 = 1.125.
    assert curve.losses == pytest.approx([1, 6.25, 1.125**2])
    mean = (0.95 * 1 + 6.25) / 1.95
    assert curve.smoothed[:2] == pytest.approx([1, mean])
    assert (curve.rates, curve.untouched) == ([0.25, 0.125, 0.0625], [0, 0, 0])


def test_what_the_untouched_model_loses_on_a_batch_is_taken_off_before_the_average():
    curve = range_test(plain_model(), BATCHES, [1e-9] * 40, plain_model())
    assert curve.untouched == [1, 4] * 20
    assert curve.losses == pytest.approx(curve.untouched)
    # The difference is nothing, so what is left is the mean of the untouched so far.
    means = [sum(curve.untouched[:step]) / step for step in range(1, 41)]
    assert curve.smoothed == pytest.approx(means)


def test_the_test_ends_where_the_loss_explodes():
    curve = range_test(plain_model(), BATCHES, rising_rates(0.01, 10, 100))
    assert 20 < len(curve.rates) < 100
    exploded = [value > 4 * min(curve.smoothed) for value in curve.smoothed]
    assert exploded == [False] * (len(exploded) - 1) + [True]
    not_a_number = [BATCHES[0], (ONE, np.nan * ONE)]
    assert len(range_test(plain_model(), not_a_number, [0.1] * 3).losses) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune_from", ["block13", "pixels"])
def test_fine_tuning_changes_nothing_that_was_trained(fine_tune_from, datasets):
    config = dataclasses.replace(CONFIG, fine_tune_from=fine_tune_from)
    rates, head = rising_rates(1e-4, 1.0, 20), build_head(config, 10)
    before = [*datasets.backbone.get_weights(), *head.get_weights()]
    first, second = (fine_tuning_curve(config, datasets, head, rates) for _ in range(2))
    assert first == second
    assert max(first.losses) > first.losses[0]
    after = [*datasets.backbone.get_weights(), *head.get_weights()]
    assert all(map(np.array_equal, before, after))


def test_a_curve_that_ended_at_once_is_drawn_too(tmp_path):
    for steps in (0, 2):
        draw_curve(curve_of([2.3, 9.0][:steps]), {}, "a title", tmp_path / f"{steps}.png")
        assert (tmp_path / f"{steps}.png").read_bytes().startswith(b"\x89PNG")


def test_a_rate_is_a_number_or_auto(capsys):
    options = argparse.ArgumentParser()
    add_rate_option(options)
    for word, expected in (("auto", "auto"), ("0.01", 0.01)):
        assert options.parse_args(["--learning-rate", word]).learning_rate == expected
    with pytest.raises(SystemExit):
        options.parse_args(["--learning-rate", "fast"])
    assert "expected a number or `auto`. Received: fast" in capsys.readouterr().err


@pytest.mark.slow
def test_auto_puts_the_number_into_the_configuration(datasets, tmp_path, capsys):
    found = with_found_rate(CONFIG, datasets, tmp_path / "rate.png")
    assert found == dataclasses.replace(CONFIG, learning_rate=found.learning_rate)
    assert 1e-6 < found.learning_rate < 1
    assert f"learning rate: {found.learning_rate:g} (valley; steep " in capsys.readouterr().out
    assert (tmp_path / "rate.png").exists()
    first, second = (head_curve(CONFIG, datasets, RATES[:20]) for _ in range(2))
    assert first == second
