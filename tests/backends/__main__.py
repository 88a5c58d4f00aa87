"""Checks a saved file in fresh environments: `python -m tests.backends`."""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras import cli
from fashion_keras.artifacts import sha256_of
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.inspection import read_metadata
from fashion_keras.saving import RELEASED
from tests.backends import environments
from tests.backends.environments import BACKENDS

PHOTOS = 32
SIDES = 64, 1024  # Of the photos that are brought to another size.
LIMIT = 1e-4  # The largest difference of a probability from TensorFlow's.
# Keras 3.14 stops at the `input_axes` that 3.15 writes for initializers.
OLDEST_KERAS = (3, 15, 0)
OLDEST = ".".join(map(str, OLDEST_KERAS))
DESCRIPTION = f"""\
Make a fresh virtual environment for each backend, without this project, load a saved file there
with plain `keras.saving.load_model`, and compare its probabilities for {PHOTOS} photos of different
sizes with those of TensorFlow here: at most {LIMIT:g} may lie between them. Checked as well: the
labels, and the file after another save. Keras older than {OLDEST} has to fail.
Exit code: 0 if all is so, 1 if not, 2 for wrong usage.
"""
EPILOG = """\
environment variables:
  FASHION_KERAS_PIP_TENSORFLOW, ..._JAX, ..._TORCH, ..._OPENVINO: what pip installs for a backend

examples:
  python -m tests.backends --photos photos/test --only jax,openvino
  FASHION_KERAS_PIP_TORCH=torch==2.13.0 python -m tests.backends --keras 3.15.0 3.15.1
"""


def write_photos(folder: Path, target: Path, count: int = PHOTOS) -> None:
    """Decode so many photos, taken evenly from a folder, each into its own `.npy` file.

    Every second one is brought to another size, since many data sets have only one.
    """
    files = sorted(file for file in folder.rglob("[!.]*.*") if file.is_file())
    if len(files) < count:
        raise InputError(f"Expected {count} photos in {folder}. Received: {len(files)}.")
    sides = np.geomspace(*SIDES, count).round()
    for number, side in enumerate(sides):
        image = Image.fromarray(read_photo(files[number * len(files) // count]).pixels)
        if number % 2:
            scale = side / max(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)))
        np.save(target / f"{number:02}.npy", np.asarray(image))


def check(
    backend: str, keras_version: str, model: Path, photos: Path, folder: Path, base: dict[str, Any]
) -> dict[str, Any]:
    """Return what an environment finds, with `problems` (sentences) and a `remark`."""
    row = {"backend": backend, "keras": keras_version, "problems": [], "remark": ""}
    program = environments.make(backend, keras_version, folder)
    too_old = tuple(map(int, keras_version.split("."))) < OLDEST_KERAS
    try:
        found = environments.run(program, backend, model, photos)
    except InputError as error:
        reason = f"cannot be loaded: {error}"
        return row | ({"remark": reason} if too_old else {"problems": [reason]})
    expected = base["probabilities"]["called"]
    differences = {
        name: float(np.abs(probabilities - expected[: len(probabilities)]).max())
        for name, probabilities in found.pop("probabilities").items()
    }
    row["problems"] = [
        f"{name}: differs by {largest:.2g}; at most {LIMIT:g} is allowed"
        for name, largest in differences.items()
        # OpenVINO computes `predict` in bfloat16 on processors that have it, and Keras cannot
        # prevent that; so its difference is not judged.
        if not largest <= LIMIT and (name, backend) != ("predicted", "openvino")  # Also for NaN.
    ]
    if found["labels"] != read_metadata(model)["labels"]:
        row["problems"].append(f"after another save the labels are {found['labels']}")
    if too_old:
        row["problems"].append(f"reads the file, though {OLDEST} is said to be the oldest")
    return row | found | differences


def table(rows: list[dict[str, Any]]) -> str:
    """Return what all environments found as Markdown."""
    numbers = ("load_seconds", "call_seconds", "called", "predicted")
    heads = ("backend", "keras", *numbers, "verdict")
    lines = [heads, ("---",) * len(heads)]
    for row in rows:
        cells = [f"{row[name]:.2g}" if name in row else "" for name in numbers]
        verdict = "; ".join(row["problems"]) or row["remark"] or "right"
        lines.append((row["backend"], row["keras"], *cells, verdict.replace("|", "/")))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _options() -> Any:
    options = cli.parser(DESCRIPTION, "tests.backends", EPILOG)
    photos = Path(os.environ.get("FASHION_KERAS_DATA") or ".") / "test"
    folder, text = cli.default_cache() / "environments", "default: %(default)s"
    options.add_argument("model", type=Path, nargs="?", default=RELEASED, metavar="MODEL")
    options.add_argument("--photos", type=Path, default=photos, help=text)
    options.add_argument("--only", default=",".join(BACKENDS), help=text)
    options.add_argument("--environments", type=Path, default=folder, help=text)
    options.add_argument("--results", type=Path, help="file for the numbers")
    options.add_argument("--keras", nargs="+", default=[version("keras")], metavar="VERSION")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, print a table, and write the numbers to `--results`."""
    start = time.monotonic()
    given = _options().parse_args(arguments)
    chosen = given.only.split(",")
    if not BACKENDS.keys() >= set(chosen):
        raise InputError(f"Expected {', '.join(BACKENDS)}. Received: {given.only}.")
    read_metadata(given.model)  # A wrong file ends here, before the slow work.
    with tempfile.TemporaryDirectory() as name:
        write_photos(given.photos, Path(name))
        base = environments.run(Path(sys.executable), "tensorflow", given.model, Path(name))
        rows = [
            check(backend, keras_version, given.model, Path(name), given.environments, base)
            for keras_version in given.keras
            for backend in chosen
        ]
    print(table(rows), end="")
    if given.results:
        found = {"rows": rows, "model_sha256": sha256_of(given.model), "run": cli.provenance(start)}
        given.results.write_text(json.dumps(found, indent=2) + "\n")
    if any(row["problems"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
