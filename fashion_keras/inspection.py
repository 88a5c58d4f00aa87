"""Looks into a `.keras` file without loading it: its card, and whether it is safe to load."""

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from fashion_keras.archive import CONFIG, MEMBER, WEIGHTS, check_names, content, opened
from fashion_keras.config import InputError

FORMAT = 1
# 3.14 stops at the `input_axes` that 3.15 writes for initializers (python -m tests.backends).
OLDEST_KERAS = (3, 15, 0)
_PREFIX = "facts_"  # The last layer's name is this and the card, so that it survives any re-save.
# What a classifier is made of, by module. All of Keras would be too much: its `Lambda` runs code,
# its `TFSMLayer` and `TorchModuleWrapper` load other files, its `StringLookup` reads them, and any
# of its functions can stand for an activation. Names are compared whole, since Keras also finds
# `layers.Lambda` in the module `keras`.
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
# Any other filter is a library that HDF5 looks for on this computer and runs.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}


def name_of(card: dict) -> str:
    """Encode a card as a layer's name, in letters, digits, `-` and `_`: safe in every backend."""
    packed = json.dumps(card, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_card(path: Path) -> dict:
    """Read what a saved classifier tells of itself, without loading the model.

    Returns:
        `format`, `labels` and `image_size`, and, as far as they were known when it was saved,
        `backbone`, `created`, `data`, `validation`, `test`, `versions` and `licences`.

    Raises:
        InputError: If there is no such file, or it is no classifier of this project.
    """
    with opened(path) as archive:
        return _card_in(_json_in(content(archive, CONFIG, path), CONFIG, path), path)


def check_file(path: Path) -> dict:
    """Make sure that a file is whole, and that loading it runs and reads nothing but itself.

    Returns:
        The card, as `read_card` does.

    Raises:
        InputError: If there is no such file, it is cut off, holds no labels, is of a newer format,
            names code that is no plain part of Keras, has weights that lie in other files, or if
            the installed Keras is too old for it.
    """
    return checked_members(path)[0]


def checked_members(path: Path) -> tuple[dict, dict[str, bytes]]:
    """Check a file as `check_file` does, and return its card and what was checked.

    Whoever loads these bytes loads nothing else, whatever becomes of the file in the meantime.

    Returns:
        The card, and the content of the two members that Keras loads by name.

    Raises:
        InputError: See `check_file`.
    """
    check_keras()
    with opened(path) as archive:
        config = _json_in(content(archive, CONFIG, path), CONFIG, path)
        card = _card_in(config, path)  # First: newer formats may differ in all that follows.
        check_names(archive, path)
        _check_same(card, archive, path)
        config.pop("compile_config", None)  # Of a user who trained it on; it is not loaded.
        _check_parts(config, path)
        weights = content(archive, WEIGHTS, path)
    _check_weights(weights, path)
    return card, {CONFIG: json.dumps(config).encode(), WEIGHTS: weights}


def check_keras() -> None:
    """Raise the error for a Keras that cannot load a saved classifier.

    Raises:
        InputError: If it is older than `OLDEST_KERAS`.
    """
    installed = tuple(int(number) for number in re.findall(r"\d+", keras.__version__)[:3])
    if installed < OLDEST_KERAS:
        oldest = ".".join(map(str, OLDEST_KERAS))
        raise InputError(
            f"Saved classifiers need Keras {oldest} or newer. Installed: {keras.__version__}. "
            f"Run `pip install --upgrade keras`."
        )


def _json_in(text: bytes, name: str, path: Path) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its {name} is not JSON.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: its {name} is not a JSON object.")
    return found


def _card_in(config: dict, path: Path) -> dict:
    card = next(filter(None, map(_card_from, _layer_names(config))), None)
    if card and card["format"] > FORMAT:
        raise InputError(
            f"{path} has format {card['format']}; this version of fashion_keras reads formats up "
            f"to {FORMAT}. Install a newer one."
        )
    if not card or not _are_labels(card.get("labels")):
        raise InputError(
            f"{path} holds no labels: it was not saved by this project. "
            "`python -m fashion_keras.final` makes such a file."
        )
    if type(card.get("image_size")) is not int or card["image_size"] < 1:
        raise InputError(f"{path} is damaged: it does not tell the size of its photos.")
    return card


def _check_same(card: dict, archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a card in plain sight that tells others something else (a re-save drops it)."""
    if MEMBER not in archive.namelist():
        return
    if _json_in(content(archive, MEMBER, path), MEMBER, path) != card:
        raise InputError(
            f"{path} is damaged: its {MEMBER} differs from what the model itself tells (copy or "
            "download it again)."
        )


def _are_labels(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) > 0
        and all(isinstance(label, str) and label.isprintable() for label in found)
    )


def _layer_names(config: dict) -> Iterator[str]:
    try:
        for layer in config["config"]["layers"]:
            yield str(layer["config"]["name"])
    except (LookupError, TypeError):  # A model of another sort: it has no such names.
        return


def _card_from(name: str) -> dict | None:
    if not name.startswith(_PREFIX):
        return None
    packed = name.removeprefix(_PREFIX)
    try:
        card = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    except (ValueError, RecursionError):  # Of base64 and of JSON.
        return None
    return card if isinstance(card, dict) and type(card.get("format")) is int else None


def _check_parts(config: dict, path: Path) -> None:
    """Refuse whatever is not a plain layer, initializer or precision of Keras."""
    for part in _parts(config):
        module, name = str(part.get("module")), str(part["class_name"])
        if name == "__keras_tensor__":  # A mere reference to another layer's output.
            continue
        custom = part.get("registered_name") not in (None, name)
        if custom or name not in _PARTS.get(module, ()):
            raise InputError(
                f"{path} is refused: it holds custom code or parts that a classifier does not "
                f"need ({module!a:.99}: {name!a:.99})."
            )


def _parts(value: Any) -> Iterator[dict]:
    """Yield every description of an object in a configuration, however deep it lies."""
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
    try:
        with h5py.File(io.BytesIO(weights)) as file:
            place = _strange_place(file)
    except Exception as error:  # h5py raises many kinds for damaged files.
        raise InputError(f"{path} is damaged: its {WEIGHTS}: {error}") from error
    if place is not None:
        raise InputError(
            f"{path} is refused: its weights are not all in the file itself ({place:.199})."
        )


def _strange_place(file: h5py.File) -> str | None:
    """Return where something lies that is no group or plain array, or lies elsewhere, too."""
    waiting: list[h5py.Group] = [file]
    seen: set[Any] = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            place = ascii(f"{group.name}/{name}".replace("//", "/"))
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return place
            item: Any = group[name]
            # Groups that lie in one another would be walked for ever.
            if item in seen or not (isinstance(item, h5py.Group) or _is_plain(item)):
                return place
            seen.add(item)
            if isinstance(item, h5py.Group):
                waiting.append(item)
    return None


def _is_plain(item: Any) -> bool:
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
        return False
    made = item.id.get_create_plist()
    return all(made.get_filter(place)[0] in _FILTERS for place in range(made.get_nfilters()))
