"""Makes the environment of a backend, and runs `labels` and `inside` in a fresh process of it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.config import InputError

# What pip is told to install for each backend, in CPU builds: plain `torch` from PyPI would bring
# gigabytes for graphics cards on Linux.
BACKENDS = {
    "tensorflow": "tensorflow-cpu",
    "jax": "jax",
    "torch": "torch --index-url https://download.pytorch.org/whl/cpu",
    "openvino": "openvino scipy",  # Keras' OpenVINO backend imports SciPy, which nothing declares.
}
# Compiling all that is installed takes longer than all the rest, and most is never imported.
_PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-compile")
_LONGEST = 1800  # Seconds: a process that takes longer hangs.
_HERE = Path(__file__).parent


class Found(NamedTuple):
    """What one environment found.

    Attributes:
        probabilities: See `inside.examine`.
        facts: `backend`, `versions`, `seconds`, `precision` and `has_project`; see `inside.main`.
        labels: `original` and `saved_again`, each what `labels.main` prints.
    """

    probabilities: dict[str, np.ndarray]
    facts: dict
    labels: dict[str, dict]


def requirements(backend: str) -> str:
    """Return what pip installs for a backend: $FASHION_KERAS_PIP_<BACKEND>, or the default."""
    return os.environ.get(f"FASHION_KERAS_PIP_{backend.upper()}") or BACKENDS[backend]


def make(backend: str, keras_version: str, folder: Path) -> tuple[Path, float]:
    """Make a virtual environment with Keras and one backend, unless it is there and complete.

    Args:
        backend: One of `BACKENDS`.
        keras_version: Such as `3.15.1`.
        folder: Holds a folder for each environment.

    Returns:
        The environment's Python, and the seconds it took to make it (0 if it was there).

    Raises:
        InputError: If pip cannot install it.
    """
    start = time.monotonic()
    environment = folder.resolve() / f"keras-{keras_version}-{backend}"
    program = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = json.dumps([sys.version, requirements(backend), keras_version])
    complete = environment / "complete.json"  # Written last.
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted and program.exists():
        return program, 0.0
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], folder)
    install = [sys.executable, "-m", "pip", "--python", str(program), "install", *_PIP_OPTIONS]
    # The backend first: it may not go with the newest h5py, which Keras alone would bring.
    _run([*install, *shlex.split(requirements(backend))], folder)
    _run([*install, f"keras=={keras_version}", "numpy", "pillow", "h5py"], folder)
    complete.write_text(wanted, encoding="utf-8")
    return program, time.monotonic() - start


def run(program: Path, backend: str, model: Path, photos: Path) -> Found:
    """Examine a model file in a fresh process, in a folder away from this project.

    Args:
        program: The environment's Python.
        backend: One of `BACKENDS`.
        model: The `.keras` file.
        photos: Folder written by `photos.write_photos`.

    Raises:
        InputError: If the process fails; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for script in ("labels.py", "inside.py"):
            shutil.copy(_HERE / script, folder)
        files = [str(model.resolve()), str(photos.resolve()), name]
        # No user's packages and settings: what is found is found in the environment alone.
        _run([str(program), "-I", "inside.py", *files], folder, _variables(backend, folder))
        labels = {
            key: json.loads(_run([str(program), "-I", "-S", "labels.py", str(file)], folder))
            for key, file in (
                ("original", model.resolve()),
                ("saved_again", folder / "saved_again.keras"),
            )
        }
        with np.load(folder / "probabilities.npz") as arrays:
            probabilities = dict(arrays)
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Found(probabilities, facts, labels)


def _variables(backend: str, folder: Path) -> dict[str, str]:
    return {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(folder),  # The user's ~/.keras/keras.json could change the data format.
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_WAIT_POLICY": "PASSIVE",  # Torch's threads else spin when others use the processor.
    }


def _run(words: Sequence[str], folder: Path, variables: dict[str, str] | None = None) -> str:
    """Return what a process prints."""
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"cwd": folder, "env": os.environ | (variables or {})}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_LONGEST, check=False, **options
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"stopped after {_LONGEST} seconds: {shlex.join(words)}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(lines[-1] if lines else f"exit code {done.returncode}, nothing printed")
    return done.stdout
