"""The one `.keras` file: labels inside, saved atomically, proved by reloading; loading it."""

import datetime
import importlib.metadata
import io
import json
import platform
import tempfile
import textwrap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from fashion_keras import __version__
from fashion_keras.archive import CONFIG, MEMBER
from fashion_keras.config import InputError
from fashion_keras.files import whole_file
from fashion_keras.inspection import FORMAT, check_file, checked_members, name_of
from fashion_keras.model import build_classifier
from fashion_keras.stopwatch import spent


def save_classifier(
    backbone: keras.Model,
    head: keras.Model,
    labels: list[str],
    image_size: int,
    file: Path,
    facts: dict | None = None,
    temperature: float = 1.0,
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
        facts: What else the card is to tell (see `inspection.read_card`).
        temperature: Divides the logits (see `calibration.fit_temperature`); the card tells it.

    Raises:
        InputError: If a part of the model computes in half precision.
        RuntimeError: If the reloaded file does not give the same probabilities.
    """
    _check_precision([*backbone.layers, *head.layers])
    _round_weights(backbone)
    _round_weights(head)
    needed = {"format": FORMAT, "labels": labels, "image_size": image_size}
    known = {"created": _now(), "versions": _versions(), "temperature": temperature}
    card = needed | known | (facts or {})
    name = name_of(card)
    model = build_classifier(backbone, head, image_size, name, temperature)
    with whole_file(file) as unfinished:
        with spent("I/O"):
            model.save(unfinished)
            _pack(unfinished, card)
        _prove(model, unfinished)


def add_facts(file: Path, facts: dict) -> None:
    """Add facts, such as the test score, to the card of a saved file; all else stays as it is.

    Raises:
        InputError: If the file is no classifier of this project, or would be none with these facts.
    """
    before = check_file(file)
    card = before | facts
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = members[CONFIG]
    members[CONFIG] = config.replace(name_of(before).encode(), name_of(card).encode())
    members[MEMBER] = _text_of(card)
    with whole_file(file) as unfinished:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        check_file(unfinished)  # Also that both places tell the same.


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    packages = ("keras", "tensorflow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"fashion_keras": __version__, "python": platform.python_version()} | versions


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


def _text_of(card: dict) -> bytes:
    # Folder names may hold what UTF-8 cannot; written as `\\udcff` it is JSON, too.
    return json.dumps(card, indent=2, ensure_ascii=False).encode(errors="backslashreplace")


def _pack(file: Path, card: dict) -> None:
    """Compress a `.keras` file and put its card into plain sight."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, _packed(content) if name.endswith(".h5") else content)
        archive.writestr(MEMBER, _text_of(card))


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
    loaded, _ = load_model(file)
    difference = np.abs(model.predict_on_batch(pixels) - loaded.predict_on_batch(pixels)).max()
    if not difference <= 1e-5:
        raise RuntimeError(f"{file}, loaded, gives other probabilities, by up to {difference}")


def load_model(path: Path) -> tuple[keras.Model, dict]:
    """Load the model of a saved file, and its card; nothing in the file is run as code.

    Raises:
        InputError: See `inspection.check_file`.
    """
    card, members = checked_members(path)
    with tempfile.TemporaryDirectory() as folder:
        # A copy of what was checked: the file itself may be another one by now.
        copy = Path(folder) / "checked.keras"
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        try:
            model = _load(copy)
        except Exception as error:  # Keras and h5py raise many kinds for damaged files.
            reason = textwrap.shorten(str(error), 300)
            raise InputError(f"{path} cannot be loaded: {reason}") from error
    classes = len(card["labels"])
    if isinstance(model.output, dict) or model.output_shape != (None, classes):
        raise InputError(f"{path} is damaged: its model does not tell its {classes} labels apart.")
    return model, card


def _load(file: Path) -> Any:
    with warnings.catch_warnings():
        # Keras warns, line after line, of weights that it does not find, before it raises.
        warnings.filterwarnings("error", "Skipping nested container")
        return keras.saving.load_model(file, compile=False, safe_mode=True)
