"""Finds a saved file and looks into it without loading it: its metadata, and whether it is safe."""

import base64
import contextlib
import json
import zipfile
from pathlib import Path
from typing import Any

from fashion_keras import onnx_file
from fashion_keras.artifacts import sha256_of
from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import InputError

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # The names that Keras gives them.
POOLING = "vectors"  # The name, in saved files, of the layer whose output are the features.
METADATA = "fashion.json"  # A copy of the metadata for people and other programs.
# The last layer is named by this and the metadata, which so survive any load and save by Keras.
_PREFIX = "facts_"
_TENSOR = "__keras_tensor__"  # A reference to another layer's output in a configuration.
# What a classifier consists of, by module; some backbones need more (see `backbones`). All of Keras
# would be too much: its `Lambda` runs code, its `TFSMLayer` and `TorchModuleWrapper` load other
# files, its `StringLookup` reads them, and any of its functions can stand for an activation.
_PARTS = {
    "keras": {"DTypePolicy"},
    "keras.initializers": {"GlorotUniform", "Ones", "Zeros"},
    "keras.layers": {
        *("Activation", "Add", "Average", "BatchNormalization", "Conv2D", "Dense"),
        *("DepthwiseConv2D", "Dropout", "GlobalAveragePooling2D", "InputLayer", "MaxPooling2D"),
        *("Rescaling", "Resizing", "SeparableConv2D", "Softmax"),
    },
    "keras.src.models.functional": {"Functional"},
}
_SIGNATURES = {
    b"PK": "is cut off or damaged (copy or download it again)",
    b"\x89HDF": "is not a .keras file but HDF5, such as older versions of Keras wrote",
    b"": "is not a .keras file",
}

KERAS = ".keras"
_EXPECTED = (
    "Expected a .keras file of this project, which `python -m fashion_keras.final` saves, or its "
    "export to .onnx."
)
_OTHERS = {
    **dict.fromkeys(
        (".h5", ".hdf5"), "HDF5, as older versions of Keras wrote it, or weights alone"
    ),
    **dict.fromkeys((".pt", ".pth", ".ptl", ".torchscript"), "a model of PyTorch"),
    **dict.fromkeys((".mlmodel", ".mlpackage"), "a model of Core ML"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "a pickle, which may run any code"),
    ".pb": "a graph of TensorFlow",
    ".savedmodel": "a SavedModel of TensorFlow",
    ".ckpt": "a checkpoint",
    ".tflite": "a model of LiteRT",
    ".safetensors": "weights of another project",
    ".engine": "a model of TensorRT",
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
    if path.suffix.lower() in (KERAS, onnx_file.SUFFIX, *_OTHERS):
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
    return path.suffix.lower() == onnx_file.SUFFIX


def name_of(model: Path) -> str:
    """Return the name of a model's file and the start of its SHA-256."""
    return f"{model.name}@{sha256_of(model)[:12]}"


def layer_name(metadata: dict) -> str:
    """Encode metadata as a layer's name, in letters, digits, `-` and `_` as every backend takes."""
    packed = json.dumps(metadata, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_metadata(path: Path) -> dict:
    """Read the metadata of a saved classifier, without importing Keras.

    Args:
        path: A `.keras` file of this project, or its export to `.onnx`.

    Returns:
        `format`, `labels`, `image_size` and, where known, `training_image_size`, `backbone`,
        `created`, `data`, `temperature`, `validation`, `test`, `versions` and `licences`.

    Raises:
        InputError: If the file does not exist or is no classifier of this project.
    """
    if is_onnx(path):
        return read_texts(onnx_file.open_onnx(path)[1], path)
    (text,) = _read(path, CONFIG)
    return _parsed(text, path)[1]


def read_texts(texts: dict[str, str], path: Path) -> dict:
    """Read the metadata, as `read_metadata`, from the texts of an opened `.onnx` file."""
    metadata = None
    with contextlib.suppress(ValueError):
        metadata = json.loads(texts["metadata"])
    return _usable(metadata, path)


def check_file(path: Path) -> tuple[dict, dict[str, bytes]]:
    """Check that a file is whole and holds nothing but a classifier of plain layers of Keras.

    Returns:
        The metadata, and the two members that Keras needs: to load these is to load what was
        checked, whatever becomes of the file in the meantime.

    Raises:
        InputError: If the file does not exist, is damaged, holds no labels, is of a newer format,
            or contains anything else.
    """
    text, weights = _read(path, CONFIG, WEIGHTS)
    config, metadata = _parsed(text, path)
    config.pop("compile_config", None)  # Of a user who trained the model further; not loaded.
    backbone = ARCHITECTURES.get(str(metadata.get("backbone")))
    more = backbone.parts if backbone else {}

    def check(part: dict) -> None:
        module, name = str(part.get("module")), str(part.get("class_name", _TENSOR))
        custom = part.get("registered_name") not in (None, name)
        known = {*_PARTS.get(module, ()), *more.get(module, ())}
        if name != _TENSOR and (custom or name not in known):
            raise InputError(
                f"{path} is refused: it holds custom code or parts that a classifier does not "
                f"need ({module!a:.99}: {name!a:.99})."
            )

    checked = json.dumps(config)
    json.loads(checked, object_hook=check)
    return metadata, {CONFIG: checked.encode(), WEIGHTS: weights}


def _read(path: Path, *names: str) -> list[bytes]:
    """Return members of a `.keras` file, which is a zip; their checksums are compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [archive.read(name) for name in names]
    except FileNotFoundError as error:
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.final` makes one."
        ) from error
    except OSError:
        raise
    except KeyError as error:
        raise InputError(f"{path} is not a .keras file: {error.args[0]}.") from error
    except Exception as error:  # `zipfile` raises many kinds for damaged files.
        with path.open("rb") as file:
            start = file.read(4)
        kind = next(kind for signature, kind in _SIGNATURES.items() if start.startswith(signature))
        raise InputError(f"{path} {kind}: {error}") from error


def read_member(path: Path, name: str) -> bytes:
    """Return a member of a `.keras` file; nothing if there is none, as after Keras saved it.

    Raises:
        InputError: If it is damaged.
    """
    return _read(path, name)[0] if name in _members(path) else b""


def _parsed(text: bytes, path: Path) -> tuple[Any, dict]:
    """Return the configuration of a model, and the metadata in the name of its last layer."""
    config = metadata = None
    with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):  # Another model.
        config = json.loads(text)
        packed = config["config"]["layers"][-1]["config"]["name"].removeprefix(_PREFIX)
        metadata = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    return config, _usable(metadata, path)


def _usable(metadata: Any, path: Path) -> dict:
    """Return metadata that this version can use; raise the error for all else."""
    unusable = InputError(
        f"{path} holds no labels: it was not saved by this project. "
        "`python -m fashion_keras.final` makes such a file."
    )
    try:
        newer, labels = metadata["format"] > FORMAT, metadata.get("labels")
        usable = labels and isinstance(labels, list) and all(map(str.isprintable, labels))
    except (AttributeError, LookupError, TypeError) as error:
        raise unusable from error
    if newer:
        raise InputError(
            f"{path} has format {metadata['format']}; this version of fashion_keras reads formats "
            f"up to {FORMAT}. Install a newer one."
        )
    if not usable:
        raise unusable
    return metadata


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
    return any(
        name.lower().endswith((KERAS, onnx_file.SUFFIX, *_OTHERS)) for name in _members(path)
    )


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return []
