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
from typing import Any

import numpy as np

from fashion_keras.config import InputError

# What pip installs for each backend, in CPU builds: plain `torch` from PyPI would bring gigabytes
# for graphics cards on Linux. $FASHION_KERAS_PIP_TORCH and so on replace it.
BACKENDS = {
    "tensorflow": "tensorflow-cpu",
    "jax": "jax",
    "torch": "torch --index-url https://download.pytorch.org/whl/cpu",
    "openvino": "openvino scipy",  # Keras' OpenVINO backend imports SciPy, which nothing declares.
}
# Compiling all that is installed takes longer than all the rest, and most is never imported.
_PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-compile")


def make(backend: str, keras_version: str, folder: Path) -> Path:
    """Return the Python of an environment with Keras and one backend; make it if it is missing."""
    environment = folder.resolve() / f"keras-{keras_version}-{backend}"
    program = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    requirements = os.environ.get(f"FASHION_KERAS_PIP_{backend.upper()}") or BACKENDS[backend]
    wanted = json.dumps([sys.version, requirements, keras_version])
    complete = environment / "complete.json"  # Written last.
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted:
        return program
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], folder)
    install = [sys.executable, "-m", "pip", "--python", str(program), "install", *_PIP_OPTIONS]
    # The backend first: it may not go with the newest h5py, which Keras alone would bring.
    _run([*install, *shlex.split(requirements)], folder)
    _run([*install, f"keras=={keras_version}", "numpy", "pillow", "h5py"], folder)
    complete.write_text(wanted, encoding="utf-8")
    return program


def run(program: Path, backend: str, model: Path, photos: Path) -> dict[str, Any]:
    """Run `inside` in a fresh process of an environment, in a folder away from this project.

    Returns:
        What `inside.main` found, with `probabilities` by name.

    Raises:
        InputError: If the process fails; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(Path(__file__).with_name("inside.py"), name)
        variables = {
            "KERAS_BACKEND": backend,
            "KERAS_HOME": name,  # The user's ~/.keras/keras.json could change the data format.
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_WAIT_POLICY": "PASSIVE",  # Torch's threads else spin when others need the CPU.
        }
        # `-I`: no packages and settings of the user, only those of the environment.
        words = [str(program), "-I", "inside.py", str(model.resolve()), str(photos.resolve()), name]
        _run(words, Path(name), variables)
        found = json.loads(Path(name, "found.json").read_text(encoding="utf-8"))
        with np.load(Path(name, "probabilities.npz")) as arrays:
            return found | {"probabilities": dict(arrays)}


def _run(words: Sequence[str], folder: Path, variables: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | (variables or {})
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(lines[-1] if lines else f"exit code {done.returncode}, no message")
