"""Runs one of the project's commands with a cheap backbone in Xception's place.

    python -m tests.benchmarks.cheap_backbone fashion_keras.final --data sample --weights FILE

For measurements of all that surrounds the backbone: a hundred thousand photos take minutes instead
of hours. `--weights` has to name a `.keras` file that was saved like this (see `save_classifier`).
"""

import runpy
import sys
from pathlib import Path

import keras

from fashion_keras import saving
from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import Config
from fashion_keras.data.sample import LABELS
from fashion_keras.model import build_head

IMAGE_SIZE = 71
CHANNELS = 400  # Maps of 20 kB a photo: enough to be seen, should they stay in memory.


def build(weights: str | None = None, **options: object) -> keras.Model:
    """Return a backbone with the shape of Xception's output, and one block: `block13`.

    Args:
        weights: Ignored; it stands where Xception has its own.
        options: Ignored, too.
    """
    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(CHANNELS, 5, strides=16, activation="relu")(pixels)
    maps = keras.layers.DepthwiseConv2D(4, strides=4, name="block13_conv")(maps)
    maps = keras.layers.Conv2D(ARCHITECTURES["xception"].features, 1, activation="relu")(maps)
    return keras.Model(pixels, maps, name="xception")


def put_in_place() -> None:
    """Let the project build this backbone for Xception."""
    keras.applications.Xception = build


def save_classifier(file: Path) -> Path:
    """Save a classifier of the sample's categories whose head was never trained."""
    head = build_head(Config(), len(LABELS))
    saving.save_classifier(build(), head, list(LABELS), IMAGE_SIZE, file)
    return file


if __name__ == "__main__":
    put_in_place()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
