"""Builds what many tests need: pictures, encoded photos, and a classifier with strong answers."""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.backend import keras
from fashion_keras.classifier import Classifier
from fashion_keras.config import Config
from fashion_keras.model import build_classifier, build_head
from fashion_keras.saving import save_classifier
from tests.conftest import normalised_backbone

LABELS = ["cap", "hat", "sock", "tie"]


def picture(number: int = 0) -> Image.Image:
    """Draw a picture that looks different in every position."""
    rows, columns = np.mgrid[0 : 130 + number, 0 : 90 - number]
    waves = [rows * 1.9, columns * 2.7, 127 + 120 * np.sin(rows / 9 + columns / (5 + number))]
    return Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype("uint8"))


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
