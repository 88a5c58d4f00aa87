"""Finds a learning rate: it rises step by step until the loss explodes, and the curve tells.

The range test of Smith 2015, "Cyclical Learning Rates for Training Neural Networks".
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure

from fashion_keras.cli import progress
from fashion_keras.config import Config, InputError
from fashion_keras.ensemble import Ensemble
from fashion_keras.fine_tuner import build_fine_tuner, compile_at, tuning_batches
from fashion_keras.optimizer import compile_model
from fashion_keras.training import Material, build_parts, training_batches

CHOSEN = "valley"  # The suggestion that `--learning-rate auto` takes.
MEANINGS = {
    "valley": "the middle of the longest fall of the loss",
    "steep": "where the loss falls fastest",
    "minimum": "a tenth of the rate with the lowest loss",
}
LOW, HIGH, STEPS = 1e-6, 1.0, 300
_KEPT = 0.95  # Share of the smoothed loss that each step keeps.
_EXPLODED = 4.0  # The test ends where the smoothed loss is so many times its lowest value.
_LEAST_STEPS = 20  # Fewer say nothing.
_CLEAR_FALL = 4.0  # In standard errors of the smoothed loss; chance alone hardly falls as far.


class Curve(NamedTuple):
    """What a range test saw: one value a step, up to where the loss exploded.

    Attributes:
        rates: Learning rates, rising.
        losses: Loss of each step's batch before the step was made.
        smoothed: Exponential average of the losses, corrected for its start.
        untouched: What the model lost on the same batch before the test; zeros where not asked.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    untouched: list[float]


def rising_rates(low: float = LOW, high: float = HIGH, steps: int = STEPS) -> list[float]:
    """Return learning rates that rise from `low` to `high` by the same factor at each step.

    Raises:
        InputError: If the range or the number of steps makes no test.
    """
    if not 1e-8 <= low < high <= 10:
        expected = "The range of a test must lie between 1e-8 and 10, its lower end first."
        raise InputError(f"{expected} Received: {low:g} to {high:g}")
    if steps < _LEAST_STEPS:
        raise InputError(f"A range test needs {_LEAST_STEPS} steps or more. Received: {steps}")
    return [float(rate) for rate in np.geomspace(low, high, steps)]


def range_test(
    model: keras.Model,
    batches: Iterable,
    rates: Sequence[float],
    untouched: keras.Model | None = None,
) -> Curve:
    """Train for one step with each rate, until the loss explodes; then put all back.

    Args:
        model: A compiled model; its optimizer's learning rate must be a plain number.
        batches: Inputs and true values; gone through again and again.
        rates: See `rising_rates`.
        untouched: A compiled copy of a trained model. What it loses on each batch is taken off
            before the average and its mean put back: that one batch is harder than the next would
            hide the little that a trained model has left to gain.
    """
    # The draws of dropout are state, too.
    state = [(variable, keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    curve = Curve([], [], [], [])
    try:
        points = _points(model, batches, rates, untouched)
        for point in progress(points, len(rates), "learning-rate test, steps"):
            for values, value in zip(curve, point, strict=True):
                values.append(value)
    finally:
        for variable, value in state:
            variable.assign(value)
    return curve


def _points(
    model: keras.Model, batches: Iterable, rates: Sequence[float], untouched: keras.Model | None
) -> Iterator[tuple[float, float, float, float]]:
    """Yield the values of `Curve` for each step, until the loss explodes."""
    optimizer: Any = model.optimizer
    average, level, lowest = 0.0, 0.0, math.inf
    for step, (rate, (inputs, true)) in enumerate(zip(rates, _endless(batches), strict=False), 1):
        before = _loss(untouched.test_on_batch, untouched, inputs, true) if untouched else 0.0
        optimizer.learning_rate = rate
        loss = _loss(model.train_on_batch, model, inputs, true)
        if not math.isfinite(loss):
            return
        average = _KEPT * average + (1 - _KEPT) * (loss - before)
        level += (before - level) / step
        smoothed = average / (1 - _KEPT**step) + level
        lowest = min(lowest, smoothed)
        yield rate, loss, smoothed, before
        if smoothed > _EXPLODED * lowest:
            return


def _loss(step: Callable, model: keras.Model, inputs: Any, true: Any) -> float:
    """Return the loss of one batch; `step` is the model's own for training or for testing."""
    model.reset_metrics()  # Or the loss would be the mean over all steps so far.
    return float(step(inputs, true, return_dict=True)["loss"])


def _endless(batches: Iterable) -> Iterator:
    while True:
        yield from batches  # A dataset shuffles anew in each pass.


def head_curve(config: Config, material: Material, rates: Sequence[float]) -> Curve:
    """Test rates on a fresh model: the head on vectors, or all of it without a frozen backbone.

    Vectors that are not on disk yet are computed now. The curve is the same for the same seed.
    """
    batches, _ = training_batches(config, material)
    model = build_parts(config, material).model
    compile_model(model, dataclasses.replace(config, learning_rate=rates[0]))
    return range_test(model, batches, rates)


def fine_tuning_curve(
    config: Config, material: Material, start: Ensemble, rates: Sequence[float]
) -> Curve:
    """Test rates on the backbone above the cut with the trained heads; nothing is changed by it.

    Maps that are not on disk yet are computed now.

    Args:
        config: All knobs; `fine_tuning_learning_rate` is not used.
        material: See `training.open_material`.
        start: The trained heads (see `ensemble.train_ensemble`).
        rates: See `rising_rates`.
    """
    batches, _ = tuning_batches(config, material)
    tuner = build_fine_tuner(config, material, start.head).model
    untouched = keras.models.clone_model(tuner)
    untouched.set_weights(tuner.get_weights())
    for model in (tuner, untouched):
        compile_at(rates[0], model, config)
    return range_test(tuner, batches, rates, untouched)


def suggestions(curve: Curve) -> dict[str, float]:
    """Return the rates that a curve suggests as in fast.ai, two digits, by the keys of `MEANINGS`.

    Raises:
        InputError: If the loss exploded at once, or never fell clearly.
    """
    if len(curve.rates) < _LEAST_STEPS:
        raise InputError(
            f"The loss exploded after {len(curve.rates)} steps of the learning-rate test. Start "
            "it at a smaller rate."
        )
    _check_fall(curve)
    first = len(curve.rates) // 10  # Before, the average is of few losses.
    rates, losses = np.array(curve.rates[first:]), np.array(curve.smoothed[first:])
    lowest = int(losses.argmin())  # After it the loss jumps up and down: no slope to go by.
    found = {
        "valley": rates[valley(losses)],
        "steep": rates[np.gradient(losses, np.log(rates))[: lowest + 1].argmin()],
        "minimum": rates[lowest] / 10,
    }
    # More digits would be false, and might differ from one machine to another.
    return {name: float(f"{rate:.2g}") for name, rate in found.items()}


def _check_fall(curve: Curve) -> None:
    """Refuse a curve that is flat, or falls no further than chance makes it."""
    first = len(curve.rates) // 10  # See `suggestions`.
    start, lowest = curve.smoothed[first], min(curve.smoothed[first:])
    gains = np.subtract(curve.losses, curve.untouched)
    falling = gains[: max(curve.smoothed.index(lowest), _LEAST_STEPS)]
    noise = float(np.diff(falling).std()) / math.sqrt(2)  # Of one batch.
    error = noise * math.sqrt((1 - _KEPT) / (1 + _KEPT))
    if start - lowest <= max(_CLEAR_FALL * error, 1e-6 * abs(start)):
        raise InputError(
            f"No learning rate from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g} lowers the loss "
            f"clearly: {start:.3g} at the start, {lowest:.3g} at the lowest. Test a wider range, "
            "more steps, or give the rate as a number."
        )


def valley(losses: np.ndarray) -> int:
    """Return the middle of the longest fall of a curve.

    A fall may be interrupted: what counts is how many of its points, in their order, lie each
    below the one before. It reaches back from its last point by so many steps.

    Args:
        losses: `(steps,)`.

    Returns:
        Number of the step.
    """
    lengths = np.ones(len(losses), dtype=int)
    for step in range(1, len(losses)):
        higher = lengths[:step][losses[:step] > losses[step]]
        lengths[step] = 1 + higher.max(initial=0)
    end = int(lengths.argmax())
    return end - int(lengths[end]) // 2


def draw_curve(curve: Curve, found: dict[str, float], title: str, file: Path) -> None:
    """Draw loss over learning rate with the suggestions, as PNG.

    Args:
        curve: See `range_test`.
        found: See `suggestions`.
        title: Text above the picture.
        file: Where to save it.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="C0", alpha=0.25, linewidth=1, label="each batch")
    axes.plot(curve.rates, curve.smoothed, color="C0", label="smoothed")
    for number, (name, rate) in enumerate(found.items(), start=1):
        loss = float(np.interp(math.log(rate), np.log(curve.rates), curve.smoothed))
        axes.axvline(rate, color=f"C{number}", ls="-" if name == CHOSEN else ":", linewidth=1)
        axes.plot(rate, loss, f"C{number}o", label=f"{name}: {rate:g}")
    lowest = min(curve.smoothed, default=0.0)
    start = max(curve.smoothed[: len(curve.rates) // 2 + 1], default=0.0)
    margin = 0.25 * (start - lowest) + 1e-9  # Where the loss explodes is of no interest.
    axes.set_ylim(lowest - margin, start + 2 * margin)
    axes.set_xscale("log" if curve.rates else "linear")
    axes.set(xlabel="learning rate", ylabel="training loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
