"""The one `.keras` file: metadata inside, saved whole or not at all, proved by reloading it."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import platform
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashion_keras import __version__
from fashion_keras.artifacts import whole_file
from fashion_keras.cli import versions
from fashion_keras.config import RELEASED, Config, InputError
from fashion_keras.inspection import CONFIG, FORMAT, METADATA, check_file, layer_name, read_metadata

if TYPE_CHECKING:  # Importing Keras takes seconds.
    from fashion_keras.backend import keras
    from fashion_keras.data.prepare import Prepared

NOT_STATED = "not stated"
_DATA = {
    "clothing": ("clothing-dataset-small", "CC0-1.0"),
    "sample": ("drawn sample", "MIT"),
}
_TOLERANCE = 1e-5


def save_classifier(
    backbone: keras.Model,
    head: keras.Model,
    labels: list[str],
    image_size: int,
    file: Path,
    metadata: dict | None = None,
    temperature: float = 1.0,
) -> None:
    """Save backbone and head as one self-contained `.keras` file.

    The file is written under another name, reloaded, compared with the model in memory and only
    then renamed: an interruption or a full disk never harms an earlier file. Weights stay float32
    but are rounded to half precision, which halves the file.

    Args:
        backbone: See `build_backbone`; its weights are rounded in memory, too.
        head: See `build_head`; likewise.
        labels: Name of each class, in the order of the head's outputs.
        image_size: Side in pixels to which the model resizes photos.
        file: Where to save it; the name ends in `.keras`.
        metadata: More metadata (see `inspection.read_metadata`).
        temperature: Divides the logits (see `metrics.fit_temperature`).

    Raises:
        RuntimeError: If the reloaded file does not give the same probabilities.
    """
    from fashion_keras.backend import keras
    from fashion_keras.model import build_classifier

    _round_weights(backbone)
    _round_weights(head)
    known = {
        "format": FORMAT,
        "labels": labels,
        "image_size": image_size,
        "backbone": backbone.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"fashion_keras": __version__, "python": platform.python_version()}
        | versions(("keras", keras.backend.backend(), "numpy")),
        "temperature": temperature,
        **(metadata or {}),
    }
    model = build_classifier(backbone, head, image_size, layer_name(known), temperature)
    with whole_file(file) as unfinished:
        model.save(unfinished)
        members = _members(unfinished)
        packed = {
            name: _packed(content) if name.endswith(".h5") else content
            for name, content in members.items()
        }
        _write(unfinished, packed, known)
        _prove(model, unfinished)


def add_metadata(file: Path, metadata: dict, more: dict[str, bytes] | None = None) -> None:
    """Add metadata, such as the test score, to a saved file; all else stays as it is.

    `more` are members, by name, that Keras does not read.

    Raises:
        InputError: If the file is no classifier of this project.
    """
    before = read_metadata(file)
    after = before | metadata
    members = _members(file)
    config = members[CONFIG]
    members[CONFIG] = config.replace(layer_name(before).encode(), layer_name(after).encode())
    with whole_file(file) as unfinished:
        _write(unfinished, members | (more or {}), after)


def load_model(path: Path) -> tuple[keras.Model, dict]:
    """Load the model of a saved file, and its metadata; nothing in the file is run as code.

    Raises:
        InputError: See `inspection.check_file`.
    """
    from fashion_keras.backend import keras

    metadata, members = check_file(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checked.keras"
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        try:
            model: Any = keras.saving.load_model(copy, compile=False, safe_mode=True)
        except Exception as error:  # Keras and h5py raise many kinds for damaged files.
            reason = textwrap.shorten(str(error), 300)
            raise InputError(f"{path} cannot be loaded: {reason}") from error
    return model, metadata


def training_metadata(
    config: Config, prepared: Prepared, validation: dict[str, float], data_licence: str = ""
) -> dict:
    """Return the metadata (see `inspection.read_metadata`) that are known before the test.

    Of a user's folder only the name is kept, not the path. The licence of the photos is that
    stated by the user; for `clothing` and `sample` it is known.
    """
    from fashion_keras.data.layout import SPLITS

    name, licence = _DATA.get(config.data, (Path(config.data).expanduser().resolve().name, ""))
    counts = {split: len(prepared.split(split)) for split in SPLITS}
    return {
        "data": {
            "name": name,
            "fingerprint": data_fingerprint(prepared),
            "photos": {split: count for split, count in counts.items() if count},
        },
        "training_image_size": config.image_size,
        "validation": validation,
        "licences": {
            "data": data_licence or licence or NOT_STATED,
            "weights": _weights_licence(config.weights),
        },
    }


def data_fingerprint(prepared: Prepared) -> str:
    """Return the SHA-256 over split, label and bytes of every photo: the same for the same data."""
    digest = hashlib.sha256()
    for line in sorted(f"{one.split}\t{one.label}\t{one.sha256}\n" for one in prepared.photos):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _weights_licence(weights: str) -> str:
    if weights == "imagenet":
        return "MIT (Keras Applications; trained on ImageNet)"
    file = RELEASED if weights == "released" else Path(weights).expanduser()
    if file.suffix == ".keras":
        return read_metadata(file).get("licences", {}).get("weights", NOT_STATED)
    return NOT_STATED


def _round_weights(model: keras.Model) -> None:
    rounded = []
    for weight in model.get_weights():
        with np.errstate(over="ignore"):
            half = weight.astype("float16").astype(weight.dtype)
        # Beyond 65504 there is no half precision.
        rounded.append(half if np.isfinite(half).all() else weight)
    model.set_weights(rounded)


def _members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(file: Path, members: dict[str, bytes], metadata: dict) -> None:
    """Write a compressed `.keras` file that holds its metadata in plain sight, too."""
    # Folder names may hold what UTF-8 cannot; written as `\\udcff` it is JSON, too.
    text = json.dumps(metadata, indent=2, ensure_ascii=False).encode(errors="backslashreplace")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (members | {METADATA: text}).items():
            packed = name.endswith(".h5")  # Once is enough.
            archive.writestr(name, content, zipfile.ZIP_STORED if packed else None)


def _packed(content: bytes) -> bytes:
    """Compress the arrays inside an HDF5 file.

    HDF5's shuffle filter brings the zero bytes of rounded numbers together: a tenth smaller, and
    written three times as fast, as deflating the file as it is.
    """
    import h5py

    packed = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(packed, "w") as target:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                options = {"compression": "gzip", "shuffle": True} if item.ndim else {}
                copied = target.create_dataset(name, data=item[()], **options)
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return packed.getvalue()


def _prove(model: keras.Model, file: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 71, 71, 3), dtype="uint8")
    loaded, _ = load_model(file)
    difference = np.abs(model.predict_on_batch(pixels) - loaded.predict_on_batch(pixels)).max()
    if not difference <= _TOLERANCE:
        raise RuntimeError(f"{file}, loaded, gives other probabilities, by up to {difference}")
