"""Finds a learning rate by a range test: `python -m tuning.lr_find`."""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from fashion_keras import cli
from fashion_keras import learning_rate as lr
from fashion_keras.artifacts import all_together, check_free
from fashion_keras.config import Config, names

# What is trained already is damaged early and gains little: many steps where that happens show
# more than a wide range.
_RANGES = {"head": (lr.LOW, lr.HIGH, lr.STEPS), "fine_tuning": (1e-5, 3e-3, 300)}
_BASE = Config(image_size=150, fine_tuning_copies=0)
_FOR_FINE_TUNING = [
    *("learning_rate", "ema_epochs", "epochs", "patience"),
    *("fine_tune_from", "fine_tune_on", "fine_tuning_copies"),
]
_NEVER = ["objective", "fine_tuning_epochs", "fine_tuning_learning_rate"]
_FIELDS = [name for name in names() if name not in _FOR_FINE_TUNING + _NEVER]
_DESCRIPTION = """\
Find a learning rate: it rises step by step until the loss explodes (Smith 2015). The test
trains a new head, in seconds once features are in the cache; with --fine-tune the backbone
and a trained head, in minutes. Nothing that was trained changes.

Writes a picture and the curve as JSON to lr_find in the results folder."""
_EXAMPLES = """\
examples:
  python -m tuning.lr_find --data photos/
  python -m fashion_keras.final --data photos/ --learning-rate auto"""


def find(config: Config, rates: Sequence[float], tested: str, results: Path, cache: Path) -> float:
    """Make a range test, draw and write its curve, and print what it suggests.

    Args:
        config: All fields.
        rates: See `learning_rate.rising_rates`.
        tested: `head`, or `fine_tuning` for the backbone with a trained head.
        results: Folder for `head.json` and `head.png`, or `fine_tuning.json` and so on.
        cache: Folder for downloads, prepared photos, features and feature maps.

    Returns:
        The suggestion that `--learning-rate auto` takes.

    Raises:
        InputError: If photos or weights cannot be had or used, or the test suggests nothing.
    """
    start = time.monotonic()
    check_free(results)
    curve = _curve(config, rates, tested, cache)
    found: dict[str, float] = {}
    try:
        found = lr.suggestions(curve)
    finally:  # A curve that suggests nothing is worth a look, too.
        with all_together(results, (f"{tested}.png", f"{tested}.json")) as work:
            title = f"learning-rate test: {tested.replace('_', '-')} at {config.image_size} px"
            lr.draw_curve(curve, found, title, work / f"{tested}.png")
            text = {
                "suggestions": found,
                "taken_by_auto": lr.CHOSEN,
                "curve": curve._asdict(),
                "config": dataclasses.asdict(config),
                "run": cli.provenance(start),
            }
            (work / f"{tested}.json").write_text(json.dumps(text, indent=2) + "\n")
    print(f"the curve: {results / tested}.png")
    for name, rate in found.items():
        print(f"{name:<8} {rate:<8g} {lr.MEANINGS[name]}")
    return found[lr.CHOSEN]


def _curve(config: Config, rates: Sequence[float], tested: str, cache: Path) -> lr.Curve:
    from fashion_keras import model
    from fashion_keras.training import prepare_datasets, train_head

    datasets = prepare_datasets(config, cache)
    if tested == "head":
        return lr.head_curve(config, datasets, rates)
    start, photos = model.chosen_fine_tune_from(config), len(datasets.prepared.split("train"))
    epochs = len(rates) * config.batch_size / photos
    cost = f"{len(rates)} steps of fine-tuning from {start}, {epochs:.1f} epochs of {photos} photos"
    print(cost, flush=True)
    if not model.tunes_on_pixels(config):  # First: they give the features for the head, too.
        datasets.store.make_feature_maps(config.fine_tuning_copies, start)
    head = train_head(config, datasets, cache).head
    return lr.fine_tuning_curve(config, datasets, head, rates)


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(_DESCRIPTION, "tuning.lr_find", _EXAMPLES)
    parser.add_argument(
        "--fine-tune", action="store_true", help="test the learning rate of fine-tuning"
    )
    texts = {"low": "first rate", "high": "last rate", "steps": "steps, 20 or more"}
    for (name, text), head, tuned in zip(texts.items(), *_RANGES.values(), strict=True):
        kind = int if name == "steps" else float
        defaults = f"default: {head:g}, with --fine-tune {tuned:g}"
        parser.add_argument(
            f"--{name}", type=kind, metavar=kind.__name__.upper(), help=f"{text} ({defaults})"
        )
    cli.add_config_options(parser, _FIELDS, _BASE)
    cli.add_config_options(parser, _FOR_FINE_TUNING, _BASE, "; with --fine-tune only")
    cli.add_folder_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, test, and print the next command."""
    parser = options()
    given = parser.parse_args(arguments)
    tested = "fine_tuning" if given.fine_tune else "head"
    asked = zip((given.low, given.high, given.steps), _RANGES[tested], strict=True)
    low, high, steps = (default if value is None else value for value, default in asked)
    rates = lr.rising_rates(low, high, int(steps))
    folder = given.results / "lr_find"
    print(f"testing {len(rates)} learning rates, into {folder}", flush=True)
    rate = find(cli.chosen(given, _BASE), rates, tested, folder, given.cache)
    # The rate belongs to these; tests are usually made on smaller photos than the training.
    kept = [name for name in _FIELDS + _FOR_FINE_TUNING if name != "image_size"]
    found = {"fine_tuning_learning_rate" if given.fine_tune else "learning_rate": f"{rate:g}"}
    print(f"use it: {cli.next_command('fashion_keras.final', parser, given, kept, **found)}")
    if tested == "head":
        print("(`--learning-rate auto` makes a test of its own, with the settings of that run)")


if __name__ == "__main__":
    cli.run(main)
