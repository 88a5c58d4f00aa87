"""Computes the same on one or two devices: `python -m tests.two_devices 2 PHOTOS FOLDER odd`.

Two devices are two halves of the CPU to TensorFlow. That can only be told before it starts, so
each number has a process of its own. Writes what it finds to `FOLDER/devices-N.npz`.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import fashion_keras  # noqa: F401 (first, as it hides TensorFlow's start-up messages)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.ensemble import Ensemble
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuning import fine_tune
from fashion_keras.model import build_head
from fashion_keras.training import Material
from tests.conftest import small_backbone

# 80 photos in batches of 16, so that the last of training, 40, has 8, and of validation, 20, 4.
CONFIG = Config(
    image_size=71,
    batch_size=16,
    droprate=0.0,
    fine_tune_from="block13",
    fine_tuning_copies=1,
    fine_tuning_epochs=3,
    fine_tuning_learning_rate=0.003,
)

CURVES = {
    "even": CONFIG,
    "odd": dataclasses.replace(CONFIG, batch_size=9),  # Two devices cannot share it evenly.
    "pixels": dataclasses.replace(CONFIG, fine_tune_from="pixels", fine_tuning_copies=0),
    "augmented": dataclasses.replace(CONFIG, fine_tune_from="pixels"),
    "dropout": dataclasses.replace(CONFIG, droprate=0.5),
}


def losses(config: Config, prepared: Prepared, cache: Path) -> np.ndarray:
    """Fine-tune the small backbone; return loss and validation loss of each pass."""
    backbone = small_backbone()
    store = FeatureStore(prepared, config, backbone, cache)
    keras.utils.set_random_seed(3)
    head = build_head(config, len(prepared.labels))
    start = Ensemble(backbone, head, [], {})
    tuned = fine_tune(config, Material(prepared, backbone, store), start, cache)
    return np.array([[row["loss"], row["val_loss"]] for row in tuned.history])


def compute(photos: Path, folder: Path, devices: int, curves: list[str]) -> dict[str, np.ndarray]:
    """Return vectors, maps and curves of losses."""
    prepared = prepare(str(photos), folder)
    cache = folder / f"cache-{devices}"
    store = FeatureStore(prepared, CONFIG, small_backbone(), cache)
    return {
        "maps": np.array(store.maps("train", 1, "block13")),
        "vectors": np.array(store.vectors("validation")),
        **{name: losses(CURVES[name], prepared, cache) for name in curves},
    }


def main() -> None:
    """Tell TensorFlow how many devices there are, compute, and write."""
    number, photos, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    (processor,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration() for _ in range(number)]
    tf.config.set_logical_device_configuration(processor, halves)
    found: dict[str, Any] = compute(photos, folder, number, sys.argv[4:])
    np.savez(folder / f"devices-{number}.npz", **found)


if __name__ == "__main__":
    main()
