"""Looks into a `.keras` file without loading it: its metadata, and whether it is safe to load."""

import base64
import contextlib
import importlib.metadata
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fashion_keras.config import InputError

FORMAT = 1
# Keras 3.14 stops at the `input_axes` that 3.15 writes for initializers (python -m tests.backends).
OLDEST_KERAS = (3, 15, 0)
CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # The names that Keras gives them.
METADATA = "fashion.json"  # A copy of the metadata for people and other programs.
# The last layer is named by this and the metadata, which so survive any load and save by Keras.
_PREFIX = "facts_"
# What a classifier consists of, by module. All of Keras would be too much: its `Lambda` runs code,
# its `TFSMLayer` and `TorchModuleWrapper` load other files, its `StringLookup` reads them, and any
# of its functions can stand for an activation.
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
# What `zipfile` raises for damaged files; `NotImplementedError` is a `RuntimeError`.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
_SIGNATURES = {
    b"PK": "is cut off or damaged (copy or download it again)",
    b"\x89HDF": "is not a .keras file but HDF5, such as older versions of Keras wrote",
    b"": "is not a .keras file",
}


def layer_name(metadata: dict) -> str:
    """Encode metadata as a layer's name, in letters, digits, `-` and `_` as every backend takes."""
    packed = json.dumps(metadata, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_metadata(path: Path) -> dict:
    """Read the metadata of a saved classifier; neither the model nor Keras is loaded.

    Returns:
        `format`, `labels`, `image_size` and, where known, `backbone`, `created`, `data`,
        `temperature`, `validation`, `test`, `versions` and `licences`.

    Raises:
        InputError: If the file does not exist or is no classifier of this project.
    """
    with _opened(path) as archive:
        return _metadata_in(_config_in(archive, path), path)


def check_file(path: Path) -> dict:
    """Return the metadata of a classifier that is whole and safe to load.

    Raises:
        InputError: See `checked_members`.
    """
    return checked_members(path)[0]


def checked_members(path: Path) -> tuple[dict, dict[str, bytes]]:
    """Check that a file is whole, and that loading it runs and reads nothing but itself.

    Returns:
        The metadata, and the two members that Keras needs: to load these is to load what was
        checked, whatever becomes of the file in the meantime.

    Raises:
        InputError: If the file does not exist, is damaged, holds no labels, is of a newer format,
            contains anything but plain layers of Keras, has weights that lie in other files, or
            if the installed Keras is too old for it.
    """
    _check_keras()
    with _opened(path) as archive:
        config = _config_in(archive, path)
        metadata = _metadata_in(config, path)  # First: all else may differ in newer formats.
        weights = _member(archive, WEIGHTS, path)
    config.pop("compile_config", None)  # Of a user who trained the model further; not loaded.
    _check_parts(config, path)
    _check_weights(weights, path)
    return metadata, {CONFIG: json.dumps(config).encode(), WEIGHTS: weights}


def _check_keras() -> None:
    version = importlib.metadata.version("keras")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST_KERAS:
        oldest = ".".join(map(str, OLDEST_KERAS))
        raise InputError(
            f"Saved classifiers need Keras {oldest} or newer. Installed: {version}. "
            "Run `pip install --upgrade keras`."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a file as a zip; whatever is wrong with it becomes one `InputError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.final` makes one."
        ) from error
    except _DAMAGED as error:
        with path.open("rb") as file:
            start = file.read(4)
        kinds = [kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)]
        raise InputError(f"{path} {kinds[0]}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if name not in archive.namelist():
        raise InputError(f"{path} is not a .keras file: it is a zip without {name}.")
    return archive.read(name)  # Compares its checksum, too.


def _config_in(archive: zipfile.ZipFile, path: Path) -> dict:
    text = _member(archive, CONFIG, path)
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged: its {CONFIG} is not JSON.") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is damaged: its {CONFIG} is not a JSON object.")
    return config


def _metadata_in(config: dict, path: Path) -> dict:
    metadata = _decoded(config)
    if metadata["format"] > FORMAT:
        raise InputError(
            f"{path} has format {metadata['format']}; this version of fashion_keras reads formats "
            f"up to {FORMAT}. Install a newer one."
        )
    labels = metadata.get("labels")
    if not (labels and isinstance(labels, list) and all(map(_is_label, labels))):
        raise InputError(
            f"{path} holds no labels: it was not saved by this project. "
            "`python -m fashion_keras.final` makes such a file."
        )
    if type(metadata.get("image_size")) is not int or metadata["image_size"] < 1:
        raise InputError(f"{path} is damaged: its metadata lack the size of photos.")
    return metadata


def _decoded(config: dict) -> dict:
    """Return the metadata in the last layer's name; nothing but the format 0 if there are none."""
    try:
        prefix, packed = config["config"]["layers"][-1]["config"]["name"].split("_", 1)
        metadata = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        known = prefix + "_" == _PREFIX and type(metadata["format"]) is int
    except (AttributeError, LookupError, TypeError, ValueError):  # Another kind of model.
        return {"format": 0}
    return metadata if known else {"format": 0}


def _is_label(found: Any) -> bool:
    return isinstance(found, str) and found.isprintable()


def _check_parts(config: dict, path: Path) -> None:
    """Refuse whatever is not a plain layer, initializer or precision of Keras."""
    for part in _parts(config):
        module, name = str(part.get("module")), str(part["class_name"])
        if name == "__keras_tensor__":  # A reference to another layer's output.
            continue
        custom = part.get("registered_name") not in (None, name)
        if custom or name not in _PARTS.get(module, ()):
            raise InputError(
                f"{path} is refused: it holds custom code or parts that a classifier does not "
                f"need ({module!a:.99}: {name!a:.99})."
            )


def _parts(value: Any) -> Iterator[dict]:
    """Yield every description of an object in a configuration, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "class_name" in found:
                yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _check_weights(weights: bytes, path: Path) -> None:
    """Refuse weights that are not in the file itself: HDF5 can point to any other file."""
    import h5py

    def elsewhere(name: str, link: Any) -> str | None:
        if not isinstance(link, h5py.HardLink):
            return name
        item: Any = file[name]
        outside = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        return name if outside else None

    try:
        with h5py.File(io.BytesIO(weights)) as file:
            place = file.visititems_links(elsewhere)
    except Exception as error:  # h5py raises many kinds for damaged files.
        raise InputError(f"{path} is damaged: its {WEIGHTS}: {error}") from error
    if place is not None:
        raise InputError(
            f"{path} is refused: its weights are not all in the file itself ({place!a:.199})."
        )
