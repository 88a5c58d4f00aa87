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
from fashion_keras.inspection import OLDEST_KERAS, read_metadata
from fashion_keras.saving import RELEASED
from tests.backends import environments
from tests.backends.environments import BACKENDS, Found

PHOTOS = 32
SIDES = 64, 1024  # Of the photos that are brought to another size.
LIMIT = 1e-4  # The largest difference of a probability from TensorFlow's.
REPEATED_LIMIT = 1e-6  # The same process, the same photo: only sums in another order.
OLDEST = ".".join(map(str, OLDEST_KERAS))
DESCRIPTION = f"""\
Make a fresh virtual environment for each backend, without this project, load a saved file there
with plain `keras.saving.load_model`, and compare its probabilities for {PHOTOS} photos of different
sizes with those of TensorFlow here: at most {LIMIT:g} may lie between them. Checked as well: the
labels, a second call, the file after loading and saving.
The oldest Keras that reads the file is {OLDEST}; it has to fail under older ones.
Exit code: 0 if all is so, 1 if not, 2 for wrong usage.
"""
EPILOG = """\
environment variables:
  FASHION_KERAS_PIP_TENSORFLOW, ..._JAX, ..._TORCH, ..._OPENVINO: what pip installs for a backend

examples:
  python -m tests.backends --photos photos/test --only jax,openvino
  FASHION_KERAS_PIP_TORCH=torch==2.13.0 python -m tests.backends --keras 3.15.0 3.15.1
"""


def write_photos(folder: Path, target: Path) -> list[tuple[int, int]]:
    """Decode `PHOTOS` photos, taken evenly from a folder, each into its own `.npy` file.

    Every second one is brought to another size: the photos of a data set are often all of one
    size, which would prove little.

    Returns:
        Height and width of each.

    Raises:
        InputError: If there are too few photos in the folder, or one cannot be read.
    """
    files = sorted(file for file in folder.rglob("[!.]*.*") if file.is_file())
    if len(files) < PHOTOS:
        raise InputError(f"Expected {PHOTOS} photos in {folder}. Received: {len(files)}.")
    sides = np.geomspace(*SIDES, PHOTOS // 2).round().astype(int)
    sizes = []
    for number in range(PHOTOS):
        image = Image.fromarray(read_photo(files[number * len(files) // PHOTOS]).pixels)
        if number % 2:
            scale = sides[number // 2] / max(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)))
        np.save(target / f"{number:02}.npy", np.asarray(image))
        sizes.append((image.height, image.width))
    return sizes


def base_of(model: Path, photos: Path) -> Found:
    """Return what TensorFlow finds in the environment of this project, in a fresh process."""
    return environments.run(Path(sys.executable), "tensorflow", model, photos)


def check(
    backend: str, keras_version: str, model: Path, photos: Path, folder: Path, base: Found
) -> dict[str, Any]:
    """Make an environment and judge what it finds.

    Args:
        backend: One of `BACKENDS`.
        keras_version: Such as `3.15.1`.
        model: The `.keras` file.
        photos: Folder written by `write_photos`.
        folder: Holds the environments.
        base: See `base_of`.

    Returns:
        `backend`, `keras`, `problems` (sentences; empty if all is right), `remark`, and what was
        found.
    """
    row = {"backend": backend, "keras": keras_version, "problems": [], "remark": ""}
    program = environments.make(backend, keras_version, folder)
    too_old = tuple(map(int, keras_version.split("."))) < OLDEST_KERAS
    try:
        found = environments.run(program, backend, model, photos)
    except InputError as error:
        reason = f"cannot be loaded: {error}"
        return row | ({"remark": reason} if too_old else {"problems": [reason]})
    wrong = problems(found, base, read_metadata(model)["labels"])
    if too_old:
        wrong.append(f"reads the file, though {OLDEST} is said to be the oldest")
    expected = base.probabilities["called"]
    differences = {
        name: difference(found.probabilities[name], expected) for name in ("called", "predicted")
    }
    return row | {"problems": wrong} | found.facts | differences


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of probabilities, infinite if the shapes do not match.

    Args:
        found: Of the first photos or of all, `(photos, classes)`.
        expected: Of all photos.
    """
    first = expected[: len(found)]
    if found.shape != first.shape or not found.size:
        return float("inf")
    return float(np.abs(found.astype("float64") - first).max())


def problems(found: Found, base: Found, labels: list[str]) -> list[str]:
    """Return what is wrong in an environment, a sentence each.

    OpenVINO computes `predict` in bfloat16 on processors that have it, and Keras cannot prevent
    that; its difference is not judged then.
    """
    expected, given = base.probabilities["called"], found.probabilities
    comparisons = [
        ("called", expected, LIMIT),
        ("repeated", given["called"], REPEATED_LIMIT),
        ("saved_again", expected, LIMIT),
        ("predicted", expected, LIMIT),
    ]
    wrong = [
        f"{name}: differs by {difference(given[name], other):.2g}; at most {limit:g} is allowed"
        for name, other, limit in comparisons
        if not difference(given[name], other) <= limit  # Also true of NaN.
        if name != "predicted" or found.facts["precision"] in ("float32", "f32")
    ]
    if len(given["called"]) != len(expected):
        wrong.append(f"{len(given['called'])} predictions for {len(expected)} photos")
    if found.facts["labels"] != labels:
        wrong.append(f"after another save the labels are {found.facts['labels']}")
    if found.facts["has_project"]:
        wrong.append("fashion_keras is installed there")
    return wrong


def table(rows: list[dict[str, Any]]) -> str:
    """Return what all environments found as Markdown."""
    heads = ("backend", "Keras", "loaded in", "calls take", "difference", "`predict`", "verdict")
    lines = [heads, ("---",) * len(heads)]
    for row in rows:
        numbers = ("load_seconds", "call_seconds", "called", "predicted")
        cells = [f"{row[name]:.2g}" if name in row else "" for name in numbers]
        verdict = "; ".join(row["problems"]) or row["remark"] or "right"
        lines.append((row["backend"], row["keras"], *cells, verdict.replace("|", "/")))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _options() -> Any:
    options = cli.parser(DESCRIPTION, "tests.backends", EPILOG)
    add = options.add_argument
    photos = Path(os.environ.get("FASHION_KERAS_DATA") or ".") / "test"
    folder = cli.default_cache() / "environments"
    add("model", type=Path, nargs="?", default=RELEASED, metavar="MODEL")
    add("--photos", type=Path, default=photos, metavar="FOLDER", help="folder of photos")
    add("--only", default=",".join(BACKENDS), metavar="NAMES", help="default: %(default)s")
    add("--keras", nargs="+", default=[version("keras")], metavar="VERSION")
    add(
        "--environments",
        type=Path,
        default=folder,
        metavar="FOLDER",
        help="4 GB for each version of Keras; kept for the next run (default: %(default)s)",
    )
    add("--results", type=Path, metavar="FILE", help="also write all numbers here, as JSON")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, and print a table."""
    start = time.monotonic()
    given = _options().parse_args(arguments)
    chosen = given.only.split(",")
    if not BACKENDS.keys() >= set(chosen):
        raise InputError(f"Expected {', '.join(BACKENDS)}. Received: {given.only}.")
    read_metadata(given.model)  # A wrong file ends here, before the slow work.
    rows = []
    with tempfile.TemporaryDirectory() as name:
        sizes = write_photos(given.photos, Path(name))
        base = base_of(given.model, Path(name))
        for keras_version in given.keras:
            for backend in chosen:
                print(f"{backend}, Keras {keras_version} ...", file=sys.stderr, flush=True)
                files = (given.model, Path(name), given.environments)
                rows.append(check(backend, keras_version, *files, base))
    print(table(rows), end="")
    if given.results:
        facts = {"photos": sizes, "model_sha256": sha256_of(given.model)}
        facts |= {"run": cli.provenance(start)}
        given.results.write_text(json.dumps({"rows": rows} | facts, indent=2) + "\n")
    if any(row["problems"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
