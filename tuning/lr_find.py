"""Looks for a learning rate by a range test: `python -m tuning.lr_find`."""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.prepare import prepare, summary
from fashion_keras.files import all_together
from fashion_keras.fine_tuning import PIXELS, check_fine_tune_from, chosen_fine_tune_from
from fashion_keras.learning_rate import (
    CHOSEN,
    HIGH,
    LOW,
    MEANINGS,
    STEPS,
    Curve,
    draw_curve,
    fine_tuning_curve,
    head_curve,
    rising_rates,
    suggestions,
)
from fashion_keras.model import check_weights
from fashion_keras.training import Datasets, fit_head, head_data, open_datasets

HEAD, FINE_TUNING = "head", "fine_tuning"  # Names of the files.
# First rate, last rate, steps. What is trained already is torn up early and gains little: many
# steps where that happens show more than a wide range.
_RANGES = {HEAD: (LOW, HIGH, STEPS), FINE_TUNING: (1e-5, 3e-3, 300)}
_RATES = {HEAD: "learning_rate", FINE_TUNING: "fine_tuning_learning_rate"}


def find(config: Config, rates: Sequence[float], tested: str, results: Path, cache: Path) -> float:
    """Make a range test, draw and write what it shows, and print what it suggests.

    Args:
        config: All knobs.
        rates: See `range_test.rising_rates`.
        tested: `head`, or `fine_tuning` for the backbone above the cut with trained heads.
        results: Folder for `head.json` and `head.png`, or `fine_tuning.json` and so on.
        cache: Folder for downloads, prepared photos, vectors and maps.

    Returns:
        The suggestion of the kind that `--learning-rate auto` takes (`CHOSEN`).

    Raises:
        InputError: If photos or weights cannot be had or used, or the test suggests nothing.
    """
    start = time.monotonic()
    check_weights(config.weights)
    check_fine_tune_from(config)
    prepared = prepare(config.data, cache, config.split_seed)
    print(summary(prepared))
    material = open_datasets(config, prepared, cache)
    measure = head_curve if tested == HEAD else _after_heads
    curve = measure(config, material, rates)
    found: dict[str, float] = {}
    try:
        found = suggestions(curve)
    finally:  # A curve that suggests nothing is worth a look, too.
        _write(curve, found, config, results, tested, start)
    print(f"the curve: {results / tested}.png")
    for name, rate in found.items():
        print(f"{name:<8} {rate:<8g} {MEANINGS[name]}")
    return found[CHOSEN]


def _write(
    curve: Curve, found: dict[str, float], config: Config, results: Path, tested: str, start: float
) -> None:
    with all_together(results, (f"{tested}.png", f"{tested}.json")) as work:
        title = f"learning-rate test: {tested.replace('_', '-')} at {config.image_size} px"
        draw_curve(curve, found, title, work / f"{tested}.png")
        text = {
            "suggestions": found,
            "taken_by_auto": CHOSEN,
            "curve": curve._asdict(),
            "config": dataclasses.asdict(config),
            "run": cli.provenance(start),
        }
        (work / f"{tested}.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def _after_heads(config: Config, material: Datasets, rates: Sequence[float]) -> Curve:
    """Train the heads, then test rates on the backbone with them; say what it costs first."""
    fine_tune_from = chosen_fine_tune_from(config)
    photos = len(material.prepared.split("train"))
    passes = len(rates) * config.batch_size / photos
    print(
        f"{len(rates)} steps of fine-tuning from {fine_tune_from}, {passes:.1f} passes over "
        f"{photos} photos, "
        "with a trained head",
        flush=True,
    )
    if fine_tune_from != PIXELS:  # Now, because maps give the vectors for the heads, too.
        material.store.make_feature_maps(config.fine_tuning_copies, fine_tune_from)
    head = fit_head(config, head_data(config, material)).head
    return fine_tuning_curve(config, material, head, rates)


_BASE = Config(image_size=150, fine_tuning_copies=0)
_KNOBS = [
    "data",
    "weights",
    "image_size",
    "augmented_copies",
    "rotation",
    "zoom",
    "inner_size",
    "droprate",
    "label_smoothing",
    "precision",
    "batch_size",
    "seed",
]
_FOR_FINE_TUNING = [
    "learning_rate",
    "ema_epochs",
    "epochs",
    "patience",
    "fine_tune_from",
    "fine_tuning_copies",
]


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Find a learning rate: it rises step by step until the loss explodes (Smith 2015). Tested\n"
        "is the head on vectors, in seconds once they are kept (with `--weights none` head and\n"
        "backbone on photos, in minutes); with --fine-tune the backbone above the cut together\n"
        "with trained heads, in minutes. Nothing that was trained changes.\n"
        "\n"
        "Writes a picture and the curve as JSON to lr_find in the results folder.",
        "tuning.lr_find",
        "example:\n  python -m tuning.lr_find --data photos/\n"
        "  python -m fashion_keras.final --data photos/ --learning-rate auto",
    )
    options.add_argument(
        "--fine-tune",
        action="store_true",
        help=f"test the rate of fine-tuning; {_named(_FOR_FINE_TUNING)} count for this only",
    )
    options.add_argument("--low", type=float, metavar="FLOAT", help=f"first rate ({_defaults(0)})")
    options.add_argument("--high", type=float, metavar="FLOAT", help=f"last rate ({_defaults(1)})")
    options.add_argument(
        "--steps", type=int, metavar="INT", help=f"steps, 20 or more ({_defaults(2)})"
    )
    cli.add_config_options(options, [*_KNOBS, *_FOR_FINE_TUNING], _BASE)
    cli.add_folder_options(options)
    return options


def _named(knobs: Sequence[str]) -> str:
    *others, last = (f"--{knob.replace('_', '-')}" for knob in knobs)
    return f"{', '.join(others)} and {last}"


def _defaults(place: int) -> str:
    head, tuned = _RANGES[HEAD][place], _RANGES[FINE_TUNING][place]
    return f"default: {head:g}, with --fine-tune {tuned:g}"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, test, and say how to use what was found."""
    options = _options()
    given = options.parse_args(arguments)
    tested = FINE_TUNING if given.fine_tune else HEAD
    wanted = (given.low, given.high, given.steps)
    low, high, steps = (
        usual if value is None else value
        for value, usual in zip(wanted, _RANGES[tested], strict=True)
    )
    rates = rising_rates(low, high, int(steps))
    folder = given.results / "lr_find"
    rate = find(cli.chosen(given, _BASE), rates, tested, folder, given.cache)
    # The rate belongs to these; tests are usually made on smaller photos than the training.
    kept = [name for name in (*_KNOBS, *_FOR_FINE_TUNING) if name != "image_size"]
    found = {_RATES[tested]: f"{rate:g}"}
    print(f"use it: {cli.next_command('fashion_keras.final', options, given, kept, **found)}")
    if tested == HEAD:
        print("(`--learning-rate auto` makes a test of its own, with the settings of that run)")


if __name__ == "__main__":
    cli.run(main)
