"""Makes the environment of a backend, and runs `inside` in a fresh process of it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashion_keras.config import InputError

# What pip installs for each backend, in CPU builds: plain `torch` from PyPI would bring gigabytes
# for graphics cards on Linux.
BACKENDS = {
    "tensorflow": "tensorflow-cpu",
    "jax": "jax",
    "torch": "torch --index-url https://download.pytorch.org/whl/cpu",
    "openvino": "openvino scipy",  # Keras' OpenVINO backend imports SciPy, which nothing declares.
}
# Compiling all that is installed takes longer than all the rest, and most is never imported.
_PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-compile")
_LONGEST = 1800  # Seconds: a process that takes longer hangs.


class Found(NamedTuple):
    """What one environment found.

    Attributes:
        probabilities: See `inside.examine`.
        facts: `labels`, `load_seconds`, `call_seconds`, `versions`, `precision`, `has_project`.
    """

    probabilities: dict[str, np.ndarray]
    facts: dict


def make(backend: str, keras_version: str, folder: Path) -> Path:
    """Make a virtual environment with Keras and one backend, unless it exists and is complete.

    Args:
        backend: One of `BACKENDS`; $FASHION_KERAS_PIP_<BACKEND> replaces what pip installs.
        keras_version: Such as `3.15.1`.
        folder: Holds a folder for each environment.

    Returns:
        The environment's Python.

    Raises:
        InputError: If pip cannot install it.
    """
    environment = folder.resolve() / f"keras-{keras_version}-{backend}"
    program = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    requirements = os.environ.get(f"FASHION_KERAS_PIP_{backend.upper()}") or BACKENDS[backend]
    wanted = json.dumps([sys.version, requirements, keras_version])
    complete = environment / "complete.json"  # Written last.
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted and program.exists():
        return program
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], folder)
    install = [sys.executable, "-m", "pip", "--python", str(program), "install", *_PIP_OPTIONS]
    # The backend first: it may not go with the newest h5py, which Keras alone would bring.
    _run([*install, *shlex.split(requirements)], folder)
    _run([*install, f"keras=={keras_version}", "numpy", "pillow", "h5py"], folder)
    complete.write_text(wanted, encoding="utf-8")
    return program


def run(program: Path, backend: str, model: Path, photos: Path) -> Found:
    """Examine a model file in a fresh process, in a folder away from this project.

    Args:
        program: The environment's Python.
        backend: One of `BACKENDS`.
        model: The `.keras` file.
        photos: Folder of decoded photos (see `inside`).

    Raises:
        InputError: If the process fails; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(Path(__file__).with_name("inside.py"), folder)
        files = [str(model.resolve()), str(photos.resolve()), name]
        variables = {
            "KERAS_BACKEND": backend,
            "KERAS_HOME": name,  # The user's ~/.keras/keras.json could change the data format.
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_WAIT_POLICY": "PASSIVE",  # Torch's threads else spin when others need the CPU.
        }
        # `-I`: no packages and settings of the user, only those of the environment.
        _run([str(program), "-I", "inside.py", *files], folder, variables)
        with np.load(folder / "probabilities.npz") as arrays:
            probabilities = dict(arrays)
        return Found(probabilities, json.loads((folder / "found.json").read_text("utf-8")))


def _run(words: Sequence[str], folder: Path, variables: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
        cwd=folder,
        env=os.environ | (variables or {}),
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(lines[-1] if lines else f"exit code {done.returncode}, no message")
