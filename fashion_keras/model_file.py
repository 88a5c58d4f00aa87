"""Finds the model that an argument names; what looks like a model and is none is refused."""

import zipfile
from pathlib import Path

from fashion_keras.artifacts import sha256_of
from fashion_keras.config import InputError
from fashion_keras.inspection import CONFIG, WEIGHTS
from fashion_keras.onnx_file import SUFFIX

KERAS = ".keras"
_EXPECTED = (
    "Expected a .keras file of this project, which `python -m fashion_keras.final` saves, or its "
    "export to .onnx."
)
_OTHERS = {
    ".h5": "HDF5, as older versions of Keras wrote it, or weights alone",
    ".hdf5": "HDF5, as older versions of Keras wrote it, or weights alone",
    ".pb": "a graph of TensorFlow",
    ".savedmodel": "a SavedModel of TensorFlow",
    ".ckpt": "a checkpoint",
    ".tflite": "a model of LiteRT",
    ".pt": "a model of PyTorch",
    ".pth": "a model of PyTorch",
    ".ptl": "a model of PyTorch",
    ".torchscript": "a model of PyTorch",
    ".safetensors": "weights of another project",
    ".mlmodel": "a model of Core ML",
    ".mlpackage": "a model of Core ML",
    ".engine": "a model of TensorRT",
    ".pkl": "a pickle, which may run any code",
    ".pickle": "a pickle, which may run any code",
    ".joblib": "a pickle, which may run any code",
}
_SAVED_MODEL = "saved_model.pb"


def find_model(given: str | Path) -> Path:
    """Return the file of the model that is named: itself, or the only `.keras` file of a folder.

    Raises:
        InputError: If it is an address, a model of another kind, or a folder with no `.keras` file
            or several.
    """
    path = Path(given).expanduser()
    if "://" in str(given):
        raise InputError(f"Download the model first: {given} is no file on this computer.")
    if path.is_dir():
        return _only_model(path)
    if kind := _OTHERS.get(path.suffix.lower()):
        what = f"{path} is {kind}" if path.exists() else f"No model file {path}"
        raise InputError(f"{what}. {_EXPECTED}")
    if _holds_models(path):
        raise InputError(f"{path} holds a model: unpack it and give the .keras file.")
    return path


def looks_like_model(given: str) -> bool:
    """Return whether an argument is meant as a model, not as a photo: by its ending or content."""
    path = Path(given)
    if path.suffix.lower() in (KERAS, SUFFIX, *_OTHERS):
        return True
    if path.suffix.lower() == ".zip":
        return _is_keras_archive(path) or _holds_models(path)
    path = path.expanduser()
    return (
        bool(given)
        and _is_folder(path)
        and bool(_models_in(path) or (path / _SAVED_MODEL).exists())
    )


def is_onnx(path: Path) -> bool:
    """Return whether a file is an export to `.onnx`, by its ending in any case."""
    return path.suffix.lower() == SUFFIX


def name_of(model: Path) -> str:
    """Return the name of a model's file and the start of its SHA-256."""
    return f"{model.name}@{sha256_of(model)[:12]}"


def _only_model(folder: Path) -> Path:
    found = _models_in(folder)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{folder} holds several models: {names}. Give one of them.")
    kind = "is a SavedModel of TensorFlow" if (folder / _SAVED_MODEL).exists() else "holds no model"
    raise InputError(f"{folder} {kind}. {_EXPECTED}")


def _models_in(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.name[0] != "." and file.is_file())
    return sorted(file for file in files if file.suffix.lower() == KERAS)


def _is_folder(path: Path) -> bool:
    try:  # A name may be too long, or hold a null.
        return path.is_dir() and any(True for _ in path.iterdir())
    except (OSError, ValueError):
        return False


def _is_keras_archive(path: Path) -> bool:
    return {CONFIG, WEIGHTS} <= set(_members(path))


def _holds_models(path: Path) -> bool:
    if path.suffix.lower() != ".zip" or _is_keras_archive(path):
        return False
    return any(name.lower().endswith((KERAS, SUFFIX, *_OTHERS)) for name in _members(path))


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return []
