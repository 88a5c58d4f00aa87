"""Finds a learning rate by a range test: it rises step by step until the loss explodes.

Smith 2015, "Cyclical Learning Rates for Training Neural Networks".
"""

import argparse
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fashion_keras.cli import progress, stage
from fashion_keras.config import Config, InputError

if TYPE_CHECKING:  # Importing Keras takes seconds, which `--help` does not need.
    from fashion_keras.backend import keras
    from fashion_keras.training import Datasets

AUTO = "auto"
CHOSEN = "valley"  # The suggestion that `--learning-rate auto` takes.
MEANINGS = {
    "valley": "the middle of the longest fall of the loss",
    "steep": "where the loss falls fastest",
    "minimum": "a tenth of the rate with the lowest loss",
}
LOW, HIGH, STEPS = 1e-6, 1.0, 300
_KEPT = 0.95  # Share of the smoothed loss that each step keeps.
_EXPLODED = 4.0  # The test ends where the smoothed loss is so many times its lowest value.
_MIN_STEPS = 20
_CLEAR_FALL = 4.0  # In standard errors of the smoothed loss; chance alone hardly falls as far.


class Curve(NamedTuple):
    """The course of a range test: one value a step, up to where the loss exploded."""

    rates: list[float]
    losses: list[float]  # Of each step's batch, before the step was made.
    smoothed: list[float]  # Exponential average of the losses, corrected for its start.
    untouched: list[float]  # Of the model before the test on the same batch; 0 if not asked.


def rising_rates(low: float = LOW, high: float = HIGH, steps: int = STEPS) -> list[float]:
    """Return learning rates that rise from `low` to `high` by the same factor at each step.

    Raises:
        InputError: If the range or the number of steps cannot be used.
    """
    if not 1e-8 <= low < high <= 10:
        expected = "The range of a test must lie between 1e-8 and 10, its lower end first."
        raise InputError(f"{expected} Received: {low:g} to {high:g}")
    if steps < _MIN_STEPS:
        raise InputError(f"A range test needs {_MIN_STEPS} steps or more. Received: {steps}")
    return np.geomspace(low, high, steps).tolist()


def range_test(
    model: Any, batches: Iterable, rates: Sequence[float], untouched: Any | None = None
) -> Curve:
    """Train a compiled model for one step with each rate, until the loss explodes.

    The loss on each batch of `untouched`, a compiled copy of a trained model, is subtracted before
    the average and its mean added again: otherwise differences between batches would hide the
    little that a trained model has left to gain.
    """
    points = _points(model, batches, rates, untouched)
    found = list(progress(points, len(rates), "learning-rate test, steps"))
    return Curve(*np.reshape(found, (-1, 4)).T.tolist())


def _points(
    model: Any, batches: Iterable, rates: Sequence[float], untouched: Any | None
) -> Iterator[tuple[float, float, float, float]]:
    """Yield the values of `Curve` for each step, until the loss explodes."""
    from fashion_keras.data.batches import arrays

    average, level, lowest = 0.0, 0.0, math.inf
    endless = itertools.chain.from_iterable(map(arrays, itertools.repeat(batches)))
    for step, (rate, (inputs, *targets)) in enumerate(zip(rates, endless, strict=False), 1):
        own = 0.0
        if untouched:
            untouched.reset_metrics()  # Otherwise the loss would be the mean over all steps so far.
            own = float(untouched.test_on_batch(inputs, *targets, return_dict=True)["loss"])
        model.reset_metrics()
        model.optimizer.learning_rate = rate
        loss = float(model.train_on_batch(inputs, *targets, return_dict=True)["loss"])
        if not math.isfinite(loss):
            return
        average = _KEPT * average + (1 - _KEPT) * (loss - own)
        level += (own - level) / step
        smoothed = average / (1 - _KEPT**step) + level
        lowest = min(lowest, smoothed)
        yield rate, loss, smoothed, own
        if smoothed > _EXPLODED * lowest:
            return


def head_curve(config: Config, datasets: "Datasets", rates: Sequence[float]) -> Curve:
    """Test rates on a new head; missing features are computed."""
    from fashion_keras.backend import keras
    from fashion_keras.model import build_head
    from fashion_keras.training import compile_model, head_data, head_datasets

    data = head_data(config, datasets)
    batches, _ = head_datasets(config, data)
    keras.utils.set_random_seed(config.seed)
    head = build_head(config, len(data.labels))
    compile_model(head, keras.optimizers.Adam(rates[0]), config)
    return range_test(head, batches, rates)


def fine_tuning_curve(
    config: Config, datasets: "Datasets", head: "keras.Model", rates: Sequence[float]
) -> Curve:
    """Test rates of fine-tuning on copies of both models; missing feature maps are computed."""
    from fashion_keras.fine_tuning import build_trainee, compile_trainee, fine_tuning_datasets

    batches, _ = fine_tuning_datasets(config, datasets)
    model, untouched = (build_trainee(config, datasets, head)[0] for _ in range(2))
    for one in (model, untouched):
        compile_trainee(one, config, rates[0])
    return range_test(model, batches, rates, untouched)


def suggestions(curve: Curve) -> dict[str, float]:
    """Return the rates that a curve suggests as in fast.ai, two digits, by the keys of `MEANINGS`.

    Raises:
        InputError: If the loss exploded at once, or never fell clearly.
    """
    if len(curve.rates) < _MIN_STEPS:
        exploded = f"The loss exploded after {len(curve.rates)} steps of the learning-rate test."
        raise InputError(f"{exploded} Start it at a smaller rate.")
    first = len(curve.rates) // 10  # Before, the average is of few losses.
    _check_fall(curve, first)
    rates, losses = np.array(curve.rates[first:]), np.array(curve.smoothed[first:])
    lowest = int(losses.argmin())  # After it the loss jumps up and down: no slope to go by.
    slopes = np.gradient(losses, np.log(rates))[: lowest + 1]
    suggested = rates[_valley(losses)], rates[slopes.argmin()], rates[lowest] / 10
    # More digits would be false, and might differ from one machine to another.
    return {name: float(f"{rate:.2g}") for name, rate in zip(MEANINGS, suggested, strict=True)}


def _check_fall(curve: Curve, first: int) -> None:
    """Refuse a curve that is flat from step `first` on, or falls no further than by chance."""
    start, lowest = curve.smoothed[first], min(curve.smoothed[first:])
    gains = np.subtract(curve.losses, curve.untouched)
    falling = gains[: max(curve.smoothed.index(lowest), _MIN_STEPS)]
    noise = float(np.diff(falling).std()) / math.sqrt(2)  # Of one batch.
    error = noise * math.sqrt((1 - _KEPT) / (1 + _KEPT))
    if start - lowest <= max(_CLEAR_FALL * error, 1e-6 * abs(start)):
        raise InputError(
            f"No learning rate from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g} lowers the loss "
            f"clearly: {start:.3g} at the start, {lowest:.3g} at the lowest. Test a wider range, "
            "more steps, or give the rate as a number."
        )


def _valley(losses: np.ndarray) -> int:
    """Return the step in the middle of the longest falling subsequence of a curve, `(steps,)`.

    It is taken to end at its last point and to begin so many steps before as it has points.
    """
    lengths = np.ones(len(losses), dtype=int)
    for step in range(1, len(losses)):
        higher = lengths[:step][losses[:step] > losses[step]]
        lengths[step] = 1 + higher.max(initial=0)
    end = int(lengths.argmax())
    return end - int(lengths[end]) // 2


def draw_curve(curve: Curve, found: dict[str, float], title: str, file: Path) -> None:
    """Draw loss over learning rate with the suggestions, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="C0", alpha=0.25, linewidth=1, label="each batch")
    axes.plot(curve.rates, curve.smoothed, color="C0", label="smoothed")
    for number, (name, rate) in enumerate(found.items(), start=1):
        style = "-" if name == CHOSEN else ":"
        axes.axvline(rate, color=f"C{number}", linestyle=style, label=f"{name}: {rate:g}")
    if curve.rates:
        lowest, start = min(curve.smoothed), max(curve.smoothed[: len(curve.rates) // 2 + 1])
        margin = 0.25 * (start - lowest) + 1e-9  # Where the loss explodes is of no interest.
        axes.set(ylim=(lowest - margin, start + 2 * margin), xscale="log")
    axes.set(xlabel="learning rate", ylabel="training loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


def add_rate_option(options: argparse.ArgumentParser) -> None:
    """Add `--learning-rate`, which takes a number or `auto`."""
    field = Config.__dataclass_fields__["learning_rate"]
    options.add_argument(
        "--learning-rate",
        type=_rate,
        metavar="FLOAT",
        help=f"{field.metadata['help']}, or `{AUTO}`: found by a range test first, in seconds once "
        f"features are in the cache (default: {field.default})",
    )


def _rate(text: str) -> float | str:
    try:
        return text if text == AUTO else float(text)
    except ValueError as error:
        expected = f"expected a number or `{AUTO}`. Received: {text}"
        raise argparse.ArgumentTypeError(expected) from error


@stage("learning rate")
def with_found_rate(config: Config, datasets: "Datasets", picture: Path) -> Config:
    """Return `config` with the rate that a range test of the head suggests; draw and print it."""
    curve = head_curve(config, datasets, rising_rates())
    found = suggestions(curve)
    draw_curve(curve, found, "learning-rate test of the head", picture)
    others = ", ".join(f"{name} {rate:g}" for name, rate in found.items() if name != CHOSEN)
    print(f"learning rate: {found[CHOSEN]:g} ({CHOSEN}; {others})", flush=True)
    return dataclasses.replace(config, learning_rate=found[CHOSEN])
