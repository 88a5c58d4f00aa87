"""Opens an export with its own runtime, and compares it with Keras."""

import contextlib
import importlib
import importlib.metadata
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.data.sample import LABELS, draw_photo
from fashion_keras.engine import import_openvino
from fashion_keras.export.formats import EXTRA, LABELS_FILE, SECTION
from fashion_keras.onnx_file import INPUT, OUTPUT, Run, open_onnx

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

    run: Run
    labels: list[str]
    runtime: str


def open_export(name: str, path: Path) -> Opened:
    """Open an export to a format, on the processor and in float32; of OpenVINO's the `.xml`."""
    open_it, package = {
        "onnx": (_open_onnx, "onnxruntime"),
        "litert": (_open_litert, "ai-edge-litert"),
        "openvino": (_open_openvino, "openvino"),
        "saved_model": (_open_saved_model, "tensorflow"),
    }[name]
    return Opened(*open_it(path), f"{package} {importlib.metadata.version(package)}")


def _open_onnx(path: Path) -> tuple[Run, list[str]]:
    run, texts = open_onnx(path)
    labels = json.loads(texts["labels"])
    return lambda pixels: run(pixels)[:, : len(labels)], labels


def _open_litert(path: Path) -> tuple[Run, list[str]]:
    interpreters: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreters.Interpreter(str(path), num_threads=os.cpu_count())
    signature = interpreter.get_signature_runner("serving_default")
    with zipfile.ZipFile(path) as archive:
        labels = archive.read(LABELS_FILE).decode().split("\n")
    return lambda pixels: signature(**{INPUT: pixels})[OUTPUT], labels


def _open_openvino(path: Path) -> tuple[Run, list[str]]:
    core = import_openvino().Core()
    model = core.read_model(str(path))
    labels = json.loads(model.get_rt_info([SECTION, "labels"]).astype(str))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # A copy: the next call writes to the same place.
    return lambda pixels: compiled({INPUT: pixels})[OUTPUT].copy(), labels


def _open_saved_model(path: Path) -> tuple[Run, list[str]]:
    tf: Any = importlib.import_module("tensorflow")
    loaded = tf.saved_model.load(str(path))  # It must live as long as its signatures.
    labels = (path / EXTRA / LABELS_FILE).read_text(encoding="utf-8").split("\n")

    def run(pixels: np.ndarray) -> np.ndarray:
        return loaded.signatures["serving_default"](**{INPUT: tf.constant(pixels)})[OUTPUT].numpy()

    return run, labels


def read_photos(folder: Path | None) -> list[np.ndarray]:
    """Return the pixels of photos to compare on, each `(height, width, 3)` uint8.

    Args:
        folder: Up to 32 of the photos in it and below are taken, evenly spread over their names;
            without it, a few garments are drawn, with sides of 33 to 1024 pixels.

    Raises:
        InputError: If the folder does not exist or holds no readable photo.
    """
    if folder is None:
        return [
            np.asarray(draw_photo(label, np.random.default_rng(number), *size))
            for number, (label, size) in enumerate(zip(LABELS, _DRAWN_SIZES, strict=False))
        ]
    if not folder.is_dir():
        raise InputError(f"No folder {folder}; expected one with photos.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    count, photos = min(len(files), _MOST_PHOTOS), []
    for number in range(count):
        with contextlib.suppress(PhotoError):  # Folders of photos hold other files, too.
            photos.append(read_photo(files[number * len(files) // count]).pixels)
    if not photos:
        raise InputError(f"No readable photo in {folder}.")
    return photos


def largest_difference(model: Any, opened: Opened, photos: Sequence[np.ndarray]) -> float:
    """Return the largest difference of any probability to that of Keras.

    Photos `(height, width, 3)` are compared one by one, the first and its mirror image as a batch.
    """
    batches = [photo[None].astype("float32") for photo in photos]
    batches.append(np.concatenate([batches[0], batches[0][:, :, ::-1]]))
    differences = [
        np.abs(opened.run(pixels) - np.asarray(model(pixels, training=False))).max()
        for pixels in batches
    ]
    return float(np.max(differences))  # Python's own `max` ignores NaN.
