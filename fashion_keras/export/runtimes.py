"""Opens an export with its own runtime, and compares it with Keras."""

import contextlib
import importlib
import importlib.metadata
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.data.sample import LABELS, draw_photo
from fashion_keras.export.formats import (
    EXTRA,
    INPUT,
    LABELS_FILE,
    OUTPUT,
    SECTION,
    import_openvino,
)

_MOST_PHOTOS = 32
_DRAWN_SIZES = ((240, 320), (320, 240), (299, 299), (71, 71), (33, 400), (1024, 683), (500, 501))


class Opened(NamedTuple):
    """An export, opened with its own runtime.

    Attributes:
        run: Maps pixels `(batch, height, width, 3)`, float32 in [0, 255], to probabilities
            `(batch, classes)`.
        labels: Name of each class, read from the export.
        runtime: Name and version of the runtime.
    """

    run: Callable[[np.ndarray], np.ndarray]
    labels: list[str]
    runtime: str


def open_export(name: str, path: Path) -> Opened:
    """Open an export, on the processor and in float32.

    Args:
        name: One of `formats.FORMATS`.
        path: The file or folder; for OpenVINO the `.xml`.
    """
    openers = {
        "onnx": _open_onnx,
        "litert": _open_litert,
        "openvino": _open_openvino,
        "saved_model": _open_saved_model,
    }
    return openers[name](path)


def _open_onnx(path: Path) -> Opened:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])

    def run(pixels: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: pixels})[0]

    return Opened(run, labels, _version("onnxruntime"))


def _open_litert(path: Path) -> Opened:
    interpreters: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreters.Interpreter(str(path), num_threads=os.cpu_count())
    signature = interpreter.get_signature_runner("serving_default")
    with zipfile.ZipFile(path) as archive:
        labels = archive.read(LABELS_FILE).decode().split("\n")

    def run(pixels: np.ndarray) -> np.ndarray:
        return signature(**{INPUT: pixels})[OUTPUT]

    return Opened(run, labels, _version("ai-edge-litert"))


def _open_openvino(path: Path) -> Opened:
    core = import_openvino().Core()
    model = core.read_model(str(path))
    labels = json.loads(model.get_rt_info([SECTION, "labels"]).astype(str))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(pixels: np.ndarray) -> np.ndarray:
        return compiled({INPUT: pixels})[OUTPUT].copy()  # The next call writes to the same place.

    return Opened(run, labels, _version("openvino"))


def _open_saved_model(path: Path) -> Opened:
    tf: Any = importlib.import_module("tensorflow")
    loaded = tf.saved_model.load(str(path))
    labels = (path / EXTRA / LABELS_FILE).read_text(encoding="utf-8").split("\n")

    def run(pixels: np.ndarray) -> np.ndarray:
        return loaded.signatures["serving_default"](**{INPUT: tf.constant(pixels)})[OUTPUT].numpy()

    return Opened(run, labels, _version("tensorflow"))


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def read_photos(folder: Path | None) -> list[np.ndarray]:
    """Return the pixels of photos to compare on, each `(height, width, 3)` uint8.

    Args:
        folder: Up to 32 of the photos in it and below are taken, evenly spread over their names;
            without it, a few garments are drawn, with sides of 33 to 1024 pixels.

    Raises:
        InputError: If the folder does not exist or holds no readable photo.
    """
    if folder is None:
        return [_drawn(number) for number in range(len(_DRAWN_SIZES))]
    if not folder.is_dir():
        raise InputError(f"No folder {folder}; expected one with photos.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    count = min(len(files), _MOST_PHOTOS)
    photos = []
    for number in range(count):
        with contextlib.suppress(PhotoError):  # Folders of photos hold other files, too.
            photos.append(read_photo(files[number * len(files) // count]).pixels)
    if not photos:
        raise InputError(f"No readable photo in {folder}.")
    return photos


def _drawn(number: int) -> np.ndarray:
    generator = np.random.default_rng(number)
    return np.asarray(draw_photo(LABELS[number], generator, *_DRAWN_SIZES[number]))


def largest_difference(model: Any, opened: Opened, photos: Sequence[np.ndarray]) -> float:
    """Return the largest difference of any probability to that of Keras.

    Args:
        model: See `classifier.Classifier`.
        opened: An export of it.
        photos: Pixels of photos, each `(height, width, 3)`. They are compared one by one, and
            the first one and its mirror image as a batch.
    """
    batches = [photo[None].astype("float32") for photo in photos]
    batches.append(np.concatenate([batches[0], batches[0][:, :, ::-1]]))
    differences = [
        np.abs(opened.run(pixels) - np.asarray(model(pixels, training=False))).max()
        for pixels in batches
    ]
    return float(np.max(differences))  # Python's own `max` ignores NaN.
