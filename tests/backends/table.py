"""Writes down what all environments found: for people, for Markdown and as JSON."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.backends.environments import Found
from tests.backends.judge import LIMIT, OLDEST_KERAS, difference

NOTES = f"""
Each backend has a fresh virtual environment without this project. Calls:
`model(photo[None], training=False)` for each photo in its own size. `predict`: the first photos as
one batch, resized one by one by the model's own first layer. The differences are the largest of
any probability from TensorFlow's in the environment of this project; at most {LIMIT:g} is allowed.

OpenVINO computes `predict` in bfloat16 on processors that have it, and Keras gives no way to tell
it not to; called, the model computes in float32 there, too. Where `predict` computes in bfloat16
its difference is shown but not judged.

The oldest Keras that reads the file is {OLDEST_KERAS}.
"""
HEADINGS = (
    "backend",
    "Keras",
    "version",
    "environment made in",
    "loaded in",
    "calls take",
    "difference",
    "`predict`: difference",
    "verdict",
)


class Row(NamedTuple):
    """One environment.

    Attributes:
        backend: Its name.
        keras_version: Such as `3.15.1`.
        making: Seconds it took to make the environment; 0 if it was there.
        found: What was found; None if the file could not be loaded.
        problems: What is wrong; empty if all is as expected.
        remark: What is as expected, yet worth saying.
    """

    backend: str
    keras_version: str
    making: float
    found: Found | None
    problems: list[str]
    remark: str = ""


def markdown(rows: Sequence[Row], base: Found) -> str:
    """Return the table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(_cells(row, base) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row, base: Found) -> list[str]:
    making = f"{row.making:.0f} s" if row.making else "reused"
    verdict = ("; ".join(row.problems) or row.remark or "right").replace("|", "/")
    if row.found is None:
        return [row.backend, row.keras_version, "", making, *[""] * 4, verdict]
    seconds = row.found.facts["seconds"]
    called, predicted = differences(row.found, base)
    return [
        row.backend,
        row.keras_version,
        _backend_version(row.found),
        making,
        f"{seconds['load']:.1f} s",
        f"{seconds['called']:.1f} s",
        f"{called:.1e}",
        f"{predicted:.1e}",
        verdict,
    ]


def differences(found: Found, base: Found) -> tuple[float, float]:
    """Return the largest difference from TensorFlow's calls, of the calls and of `predict`."""
    expected = base.probabilities["called"]
    called, predicted = (found.probabilities[name] for name in ("called", "predicted"))
    return difference(called, expected), difference(predicted, expected)


def _backend_version(found: Found) -> str:
    known = found.facts["versions"]
    name = next(name for name in known if name not in ("python", "keras", "numpy"))
    precision = found.facts["precision"]
    return f"{name} {known[name]}" + ("" if precision == "float32" else f", {precision}")


def write(folder: Path, rows: Sequence[Row], base: Found, more: dict) -> None:
    """Write `backends.md` and `benchmarks/backends.json`.

    Args:
        folder: Where results lie.
        rows: All environments.
        base: Of TensorFlow.
        more: `photos` (height and width of each), `model_sha256` and `run`.
    """
    run = more["run"]
    text = f"# Backends\n\n{markdown(rows, base)}{NOTES}\n"
    text += f"Command: `{run['command']}`, {run['machine']}; {len(more['photos'])} photos, sides "
    sides = sorted(side for size in more["photos"] for side in size)
    text += f"from {sides[0]} to {sides[-1]} pixels.\n"
    _replace(folder / "backends.md", text)
    numbers = {"rows": [_numbers(row, base) for row in rows], **more}
    _replace(folder / "benchmarks" / "backends.json", json.dumps(numbers, indent=2) + "\n")


def _numbers(row: Row, base: Found) -> dict:
    numbers = {
        "backend": row.backend,
        "keras": row.keras_version,
        "seconds_of_making": round(row.making, 1),
        "problems": row.problems,
        "remark": row.remark,
    }
    if row.found is None:
        return numbers
    called, predicted = differences(row.found, base)
    return numbers | row.found.facts | {"called": called, "predicted": predicted}


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
