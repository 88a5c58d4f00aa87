"""Trains on drawn photos under the backend of KERAS_BACKEND; prints what came out, as JSON.

python -m tests.backends.training FOLDER [without-tensorflow] [pixels]
"""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import fine_tuning
from fashion_keras.backend import device
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config
from fashion_keras.data import batches
from fashion_keras.data.prepare import prepare
from fashion_keras.data.sample import draw_sample
from fashion_keras.features import FeatureStore
from fashion_keras.grad_cam import explainer
from fashion_keras.saving import save_classifier
from fashion_keras.training import Datasets, HeadData, head_data, train_head
from tests.conftest import small_backbone
from tuning.trials import train_trial

CONFIG = Config(
    image_size=71,
    feature_batch_size=20,  # JAX compiles the backbone for each size of a batch.
    batch_size=9,  # Which two devices cannot share evenly.
    inner_size=16,
    droprate=0.0,
    learning_rate=0.01,
    ema_epochs=0.0,  # As in the trials of a search.
    epochs=6,
    fine_tuning_copies=1,
    fine_tuning_epochs=2,
    fine_tuning_learning_rate=0.001,
)


def trial_losses(data: HeadData) -> list[float]:
    """Return the validation losses of a trial that is promoted, and of its parts in one."""
    values = {"learning_rate": 0.003, "inner_size": 16, "droprate": 0.5, "augmented_copies": 1}
    _, state = train_trial(data, CONFIG, values, [2], None, True)
    promoted, _ = train_trial(data, CONFIG, values, [2, 4], state, False)
    whole, _ = train_trial(data, CONFIG, values, [2, 4], None, False)
    return [one.rows[-1]["val_loss"] for one in (promoted, whole)]


def tuned(place: str, datasets: Datasets, head: Any, folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of fine-tuning from a block, or from `pixels`."""
    config = dataclasses.replace(CONFIG, fine_tune_from=place)
    return fine_tuning.fine_tune(config, datasets, head, folder).history


def main() -> None:
    """Train, save, load, predict and explain."""
    folder = Path(sys.argv[1])
    if "without-tensorflow" in sys.argv:
        batches.tensorflow = lambda: None
    photos = draw_sample(folder / "photos", {"train": 4, "validation": 2, "test": 1})
    prepared, backbone = prepare(Config(data=str(photos)), folder), small_backbone()
    datasets = Datasets(prepared, backbone, FeatureStore(prepared, CONFIG, backbone, folder))
    head = train_head(CONFIG, datasets, folder)
    file = folder / "our.keras"
    save_classifier(backbone, head.head, prepared.labels, 71, file)
    classifier = load_classifier(file)
    predictions = list(classifier.predict(sorted((photos / "test").rglob("*.*"))))
    (heat,) = explainer(classifier.model)(np.zeros((90, 80, 3), "uint8"), [0])
    found = {
        "device": device(),
        "head": head.history,
        "trial": trial_losses(head_data(CONFIG, datasets)),
        "block13": tuned("block13", datasets, head, folder),
        "predicted": [one.probabilities.tolist() for one in predictions],
        "heat": heat.shape,
    }
    if "pixels" in sys.argv:
        found["pixels"] = tuned("pixels", datasets, head, folder)
    else:
        fine_tuning.all_cards = lambda: contextlib.nullcontext(1)
        found["one card"] = tuned("block13", datasets, head, folder / "one")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
