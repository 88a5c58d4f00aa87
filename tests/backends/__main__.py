"""Checks a saved file in fresh environments: `python -m tests.backends`."""

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.inspection import read_metadata
from fashion_keras.predict.__main__ import RELEASED
from tests.backends import environments, judge, table
from tests.backends.environments import BACKENDS, Found
from tests.backends.photos import PHOTOS, write_photos
from tests.backends.table import Row

DESCRIPTION = f"""\
Make a fresh virtual environment for each backend, without this project, load a saved file there
with plain `keras.saving.load_model`, and compare its probabilities for {PHOTOS} photos of different
sizes with those of TensorFlow here: at most {judge.LIMIT:g} may lie between them. Checked as well:
the labels, read with the standard library alone; a second call; the file after loading and saving.
Versions of Keras older than {judge.OLDEST_KERAS} are expected not to read the file.
Exit code: 0 if all is so, 1 if not, 2 for wrong usage.
"""
EPILOG = f"""\
environment variables:
  FASHION_KERAS_PIP_TENSORFLOW, ..._JAX, ..._TORCH, ..._OPENVINO
      what pip is told to install for a backend (in turn: {"; ".join(BACKENDS.values())})

examples:
  python -m tests.backends --photos photos/test --only jax,openvino
  FASHION_KERAS_PIP_TORCH=torch==2.13.0 python -m tests.backends --keras 3.15.0 3.15.1
"""


def base_of(model: Path, photos: Path) -> Found:
    """Return what TensorFlow finds in the environment of this project, in a fresh process.

    Raises:
        InputError: If the file cannot be loaded, or is wrong in itself.
    """
    base = environments.run(Path(sys.executable), "tensorflow", model, photos)
    wrong = judge.problems(base, base, alone=False)
    if wrong:
        raise InputError(f"{model}, with TensorFlow here: {'; '.join(wrong)}")
    return base


def check(
    backend: str, keras_version: str, model: Path, photos: Path, folder: Path, base: Found
) -> Row:
    """Make an environment and judge what it finds.

    Args:
        backend: One of `BACKENDS`.
        keras_version: Such as `3.15.1`.
        model: The `.keras` file.
        photos: Folder written by `photos.write_photos`.
        folder: Holds the environments.
        base: See `base_of`.
    """
    try:
        program, making = environments.make(backend, keras_version, folder)
    except InputError as error:
        return Row(backend, keras_version, 0.0, None, [f"no environment: {error}"])
    row = Row(backend, keras_version, making, None, [])
    too_old = judge.is_too_old(keras_version)
    try:
        found = environments.run(program, backend, model, photos)
    except InputError as error:
        reason = f"cannot be loaded: {error}"
        return row._replace(remark=reason) if too_old else row._replace(problems=[reason])
    wrong = judge.problems(found, base)
    if too_old:
        wrong.append(f"reads the file, though {judge.OLDEST_KERAS} is said to be the oldest")
    return row._replace(found=found, problems=wrong)


def _backends(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise InputError(f"Expected {', '.join(BACKENDS)}. Received: {', '.join(unknown)}.")
    return names


def _check_versions(versions: list[str]) -> None:
    wrong = [text for text in versions if not re.fullmatch(r"\d+(\.\d+)+", text)]
    if wrong:
        raise InputError(f"Expected versions such as 3.15.1. Received: {', '.join(wrong)}.")


def _default_photos() -> Path:
    return Path(os.environ.get("FASHION_KERAS_DATA") or ".") / "test"


def _parser() -> argparse.ArgumentParser:
    options = cli.parser(DESCRIPTION, "tests.backends", EPILOG)
    options.add_argument("model", type=Path, nargs="?", default=RELEASED, metavar="MODEL")
    add = options.add_argument
    add(
        "--photos",
        type=Path,
        default=_default_photos(),
        metavar="FOLDER",
        help="folder of photos, any depth (default: test in the folder $FASHION_KERAS_DATA)",
    )
    add(
        "--only",
        default=",".join(BACKENDS),
        metavar="NAMES",
        help="backends, separated by commas (default: %(default)s)",
    )
    add(
        "--keras",
        nargs="+",
        default=[version("keras")],
        metavar="VERSION",
        help="versions of Keras (default: the one installed here, %(default)s)",
    )
    add(
        "--environments",
        type=Path,
        default=cli.default_cache() / "environments",
        metavar="FOLDER",
        help="folder for the environments, 4 GB for each version of Keras; complete ones are used "
        "again; may be deleted at any time (default: %(default)s)",
    )
    add(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="also write FOLDER/backends.md and FOLDER/benchmarks/backends.json",
    )
    return options


def _rows(given: argparse.Namespace, photos: Path, base: Found) -> Iterator[Row]:
    for keras_version in given.keras:
        for backend in _backends(given.only):
            print(f"{backend}, Keras {keras_version} ...", file=sys.stderr, flush=True)
            yield check(backend, keras_version, given.model, photos, given.environments, base)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, and print a table."""
    start = time.monotonic()
    given = _parser().parse_args(arguments)
    _backends(given.only)
    _check_versions(given.keras)
    read_metadata(given.model)  # A wrong file ends here, before the slow work.
    with tempfile.TemporaryDirectory() as name:
        sizes = write_photos(given.photos, Path(name))
        base = base_of(given.model, Path(name))
        rows = list(_rows(given, Path(name), base))
    print(table.markdown(rows, base), end="")
    if given.results:
        digest = hashlib.sha256(given.model.read_bytes()).hexdigest()
        facts = {"photos": sizes, "model_sha256": digest, "run": cli.provenance(start)}
        table.write(given.results, rows, base, facts)
    if any(row.problems for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
