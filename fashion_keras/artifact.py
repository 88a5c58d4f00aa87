"""The one `.keras` file: labels inside, saved atomically, proved by reloading; loading it."""

import base64
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from fashion_keras.config import InputError
from fashion_keras.model import build_classifier

FORMAT = 1
_PREFIX = "facts_"  # The last layer's name is this and the facts, so they survive any re-save.
_DAMAGED = (zipfile.BadZipFile, zlib.error)
_MEMBER = "fashion.json"  # The same facts in plain sight inside the file.


class Classifier(NamedTuple):
    """A loaded classifier.

    Attributes:
        model: Pixels `(batch, height, width, 3)`, any height and width, uint8 or float in
            [0, 255], to probabilities `(batch, classes)`.
        labels: Name of each class, in the order of the probabilities.
        image_size: Side in pixels to which the model resizes photos.
    """

    model: keras.Model
    labels: list[str]
    image_size: int


def save_classifier(
    backbone: keras.Model, head: keras.Model, labels: list[str], image_size: int, file: Path
) -> None:
    """Save backbone and head as one self-contained `.keras` file.

    The file is written under another name, reloaded, compared with the model in memory and only
    then renamed: a kill or a full disk never harms a file that stood there before. Weights are
    rounded to what half precision can hold, which halves the file and moves probabilities little
    (by less than 0.005 on real photos, measured); they stay float32, as does all computing.

    Args:
        backbone: See `backbone.build_backbone`; its weights are rounded in memory, too.
        head: See `model.build_head`; likewise.
        labels: Name of each class, in the order of the head's outputs.
        image_size: Side in pixels to which the model resizes photos.
        file: Where to save it; the name ends in `.keras`.

    Raises:
        InputError: If a part of the model computes in half precision.
        RuntimeError: If the reloaded file does not give the same probabilities.
    """
    _check_precision([*backbone.layers, *head.layers])
    _round_weights(backbone)
    _round_weights(head)
    facts = {"format": FORMAT, "labels": labels, "image_size": image_size}
    model = build_classifier(backbone, head, image_size, name=_to_name(facts))
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.stem}.{os.getpid()}.tmp.keras")
    try:
        model.save(unfinished)
        _pack(unfinished, {_MEMBER: json.dumps(facts, indent=2)})
        _prove(model, unfinished)
        with unfinished.open("r+b") as written:  # Windows flushes only what may be written to.
            os.fsync(written.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_precision(layers: list[keras.Layer]) -> None:
    # A file with such layers is slow, and less exact, on every computer without a graphics card.
    half = [layer.name for layer in layers if layer.compute_dtype != "float32"]
    if half:
        raise InputError(
            f"A classifier is saved in float32 only. Received: {half[0]} in half precision. Build "
            "it under `keras.config.set_dtype_policy('float32')`."
        )


def _round_weights(model: keras.Model) -> None:
    with np.errstate(over="ignore"):
        halves = [weight.astype("float16").astype(weight.dtype) for weight in model.get_weights()]
    model.set_weights(
        [
            half if np.isfinite(half).all() else weight  # Beyond 65504 there is no half precision.
            for half, weight in zip(halves, model.get_weights(), strict=True)
        ]
    )


def _pack(file: Path, more: dict[str, str]) -> None:
    """Compress a `.keras` file and add members to it."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, _packed(content) if name.endswith(".h5") else content)
        for name, text in more.items():
            archive.writestr(name, text)


def _packed(content: bytes) -> bytes:
    """Compress the arrays inside an HDF5 file.

    HDF5's shuffle filter puts the first bytes of all numbers together, then the second, and so
    on, so that the zero bytes of rounded numbers stand in long rows: a tenth smaller, and
    written three times as fast, as deflating the file as it is. HDF5 undoes it when reading.
    """
    packed = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(packed, "w") as target:
        _copy_group(source, target)
    return packed.getvalue()


def _copy_group(source: h5py.Group, target: h5py.Group) -> None:
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_group(item, target.create_group(name))
            continue
        options = {"compression": "gzip", "shuffle": True} if item.ndim else {}
        copy = target.create_dataset(name, data=item[()], **options)
        copy.attrs.update(item.attrs)


def _prove(model: keras.Model, file: Path) -> None:
    size = 71
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype="uint8")
    difference = np.abs(
        model.predict_on_batch(pixels) - load_classifier(file).model.predict_on_batch(pixels)
    ).max()
    if not difference <= 1e-5:
        raise RuntimeError(f"{file}, loaded, gives other probabilities, by up to {difference}")


def load_classifier(path: Path | str) -> Classifier:
    """Load a classifier that `save_classifier` wrote.

    Raises:
        InputError: If there is no such file, or it is no classifier of this project.
    """
    path = Path(path)
    facts = read_facts(path)
    try:
        model: Any = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras and h5py raise many kinds for damaged files.
        raise InputError(f"{path} cannot be loaded: {error}") from error
    if model.output_shape[-1] != len(facts["labels"]):
        raise InputError(
            f"{path} is damaged: it has {len(facts['labels'])} labels for "
            f"{model.output_shape[-1]} classes."
        )
    return Classifier(model, facts["labels"], facts["image_size"])


def read_facts(path: Path) -> dict:
    """Read the facts of a saved classifier without loading the model.

    Returns:
        `format`, `labels` and `image_size`.

    Raises:
        InputError: If there is no such file, or it is no classifier of this project.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        names = [layer["config"]["name"] for layer in layers]
        facts = next((_from_name(name) for name in names if name.startswith(_PREFIX)), None)
    except FileNotFoundError as error:
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.final` makes one."
        ) from error
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, *_DAMAGED) as error:
        raise InputError(f"{path} is not a whole .keras file: {error}") from error
    if not facts or not {"format", "labels", "image_size"} <= facts.keys():
        raise InputError(
            f"{path} holds no labels: it was not saved by this project. "
            "`python -m fashion_keras.final` makes such a file."
        )
    if facts["format"] > FORMAT:
        raise InputError(
            f"{path} has format {facts['format']}; this version of fashion_keras reads formats up "
            f"to {FORMAT}. Install a newer one."
        )
    return facts


def _to_name(facts: dict) -> str:
    """Encode facts as a layer's name, in letters, digits, `-` and `_`: safe in every backend."""
    packed = json.dumps(facts, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _from_name(name: str) -> dict:
    packed = name.removeprefix(_PREFIX)
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
