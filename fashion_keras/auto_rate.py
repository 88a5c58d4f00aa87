"""`--learning-rate auto`: the word becomes the number that a range test suggests."""

import argparse
import dataclasses
from pathlib import Path

from fashion_keras.config import Config
from fashion_keras.learning_rate import CHOSEN, draw_curve, head_curve, rising_rates, suggestions
from fashion_keras.stopwatch import stage
from fashion_keras.training import Material

AUTO = "auto"


def add_rate_option(options: argparse.ArgumentParser) -> None:
    """Add `--learning-rate`, which takes a number or `auto`."""
    (field,) = [field for field in dataclasses.fields(Config) if field.name == "learning_rate"]
    options.add_argument(
        "--learning-rate",
        type=_rate,
        metavar="FLOAT",
        help=f"{field.metadata['help']}, or `{AUTO}`: found by a test first, in seconds once the "
        f"vectors are there, in minutes with `--weights none` (default: {field.default})",
    )


def _rate(text: str) -> float | str:
    if text == AUTO:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a number or `{AUTO}`. Received: {text}"
        ) from error


def take_auto(given: argparse.Namespace) -> bool:
    """Tell whether `--learning-rate auto` was given, and take it out, so that only numbers stay."""
    wanted = given.learning_rate == AUTO
    if wanted:
        given.learning_rate = None
    return wanted


@stage("rate test")
def with_found_rate(config: Config, material: Material, picture: Path | None = None) -> Config:
    """Return `config` with the learning rate that a range test of the head suggests; say it.

    Args:
        config: All knobs; `learning_rate` is replaced.
        material: See `training.open_material`.
        picture: Where to draw the curve, as PNG.

    Raises:
        InputError: If the test suggests nothing (see `suggestions`).
    """
    curve = head_curve(config, material, rising_rates())
    found = suggestions(curve)
    if picture:
        draw_curve(curve, found, "learning-rate test of the head", picture)
    others = ", ".join(f"{name} {rate:g}" for name, rate in found.items() if name != CHOSEN)
    print(f"learning rate: {found[CHOSEN]:g} ({CHOSEN}; {others})", flush=True)
    return dataclasses.replace(config, learning_rate=found[CHOSEN])
