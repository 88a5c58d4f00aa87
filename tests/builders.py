"""Builds what many tests need: pictures, encoded photos, and a classifier with strong answers."""

import argparse
import csv
import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.backend import keras
from fashion_keras.classifier import Classifier
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_classifier, build_head
from fashion_keras.saving import save_classifier
from fashion_keras.training import Datasets, HeadData
from tests.conftest import FEATURES, normalised_backbone

ROOT = Path(__file__).parents[1]
# The words of a command follow; all that an `.onnx` file does not need cannot be imported then.
_HEAVY = ("keras", "tensorflow", "h5py", "matplotlib", "sklearn", "scipy", "jinja2")
_WITHOUT = f"""
import runpy, sys
sys.modules |= dict.fromkeys({_HEAVY}, None)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
WITHOUT_KERAS = [sys.executable, "-c", _WITHOUT]
LABELS = ["cap", "hat", "sock", "tie"]


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder of this project, with other variables than here."""
    words, environment = (sys.executable, *words), os.environ | variables
    options: Any = {"cwd": ROOT, "env": environment, "encoding": "utf-8"}
    return subprocess.run(words, capture_output=True, **options)


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder and below, but for locks, by their paths there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def members_of(file: Path) -> dict[str, bytes]:
    """Return the members of a zip file by name."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def opened(prepared: Prepared, backbone: keras.Model, cache: Path, config: Config) -> Datasets:
    """Return prepared photos as what is trained on; no features are computed yet."""
    return Datasets(prepared, backbone, FeatureStore(prepared, config, backbone, cache))


def random_features(photos: int = 30) -> HeadData:
    """Return random features of photos of three classes, with one augmented copy."""
    dice, classes = np.random.default_rng(1), np.arange(photos, dtype="int32") % 3
    *copies, validation = (dice.random((photos, 2048), "float32") for _ in range(3))
    return HeadData(copies, classes, validation, classes, ["a", "b", "c"])


def picture(number: int = 0) -> Image.Image:
    """Draw a picture that looks different in every position."""
    rows, columns = np.mgrid[0 : 130 + number, 0 : 90 - number]
    waves = [rows * 1.9, columns * 2.7, 127 + 120 * np.sin(rows / 9 + columns / (5 + number))]
    return Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype("uint8"))


def noise(photos: int, height: int, width: int) -> np.ndarray:
    """Return photos in which no pixel is like another, always the same."""
    shape = (photos, height, width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    """Return the bytes of a file that holds an image."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def strong_classifier() -> Classifier:
    """Return a classifier of `LABELS` whose answers differ strongly from photo to photo."""
    backbone, head = normalised_backbone(), build_head(Config(inner_size=16), len(LABELS))
    head.set_weights([weight * 4 for weight in head.get_weights()])
    metadata = {"labels": LABELS, "image_size": 71}
    return Classifier(build_classifier(backbone, head, 71), metadata)


def save_strong(file: Path, labels: list[str] = LABELS, seed: int = 1) -> Path:
    """Save a classifier like `strong_classifier`; another seed gives other answers."""
    backbone = normalised_backbone()
    keras.utils.set_random_seed(seed)
    head = build_head(Config(inner_size=16), len(labels))
    head.set_weights([weight * 4 for weight in head.get_weights()])
    save_classifier(backbone, head, labels, 71, file)
    return file


def save_tiny_onnx(file: Path, metadata: Any = None, **more: str) -> np.ndarray:
    """Save a classifier by mean colour as the export does; return its weights `(3, classes)`."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'fashion_keras[export]'")
    helper, weights = onnx.helper, np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["colour"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", 1, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("probabilities", 1, ["batch", 4])],
        [onnx.numpy_helper.from_array(weights / 9, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = metadata or {"format": 1, "labels": LABELS, "image_size": 71}
    texts = {"labels": json.dumps(LABELS), "metadata": json.dumps(metadata)} | more
    helper.set_model_props(model, texts)
    onnx.save(model, str(file))
    return weights / 9


def never_near(classifier: Classifier) -> Classifier:
    """Return a classifier that answers every photo with `none of these`."""
    means = np.eye(len(classifier.labels), FEATURES, dtype="float16")
    known = classifier.metadata | {"novelty": {"threshold": -1.0}}
    return dataclasses.replace(classifier, class_means=means, metadata=known)


def alone(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities of the bare model for one photo."""
    model: Any = classifier.model
    return np.asarray(model(pixels[None], training=False))[0]


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return every option, `--top`, and argument, `model`, of a command, but `--help`."""
    return [
        action.option_strings[-1] if action.option_strings else action.dest
        for action in parser._actions
        if action.dest != "help"
    ]


def needs_openvino() -> None:
    """Skip a test where OpenVINO is not installed; it is not imported: it would send messages."""
    if not importlib.util.find_spec("openvino"):
        pytest.skip("needs openvino: pip install 'fashion_keras[cpu]'")
