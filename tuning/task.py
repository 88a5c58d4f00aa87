"""What a chief and its workers must have in common: settings, photos, and the key of both."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner

from fashion_keras.config import Config
from fashion_keras.data.prepare import prepare
from fashion_keras.model import check_weights
from fashion_keras.training import Datasets, open_datasets
from tuning.hypermodel import FashionHyperModel
from tuning.space import sample_config


class Task(NamedTuple):
    """A search that can be run.

    Attributes:
        base: Knobs that are not searched for.
        max_epochs: Epochs of the longest trials.
        factor: One in so many trials is trained on.
        material: What trials train from.
        folder: Where the state of the search is kept; its name is the search's key.
    """

    base: Config
    max_epochs: int
    factor: int
    material: Datasets
    folder: Path

    def arguments(self) -> tuple[FashionHyperModel, Path, int, int, int]:
        """Return the arguments of `hyperband.open_hyperband`."""
        # Trials of few epochs are too short for a moving average of weights to mean anything.
        base = dataclasses.replace(self.base, ema_epochs=0.0)
        hypermodel = FashionHyperModel(base, self.material)
        return hypermodel, self.folder, self.max_epochs, self.factor, base.seed

    def run_of(self, board: Path | None) -> Path | None:
        """Return this search's folder in one for TensorBoard, if there is one."""
        # By its state, so that a search that goes on does so in TensorBoard, too.
        return board and board / f"search-{self.folder.name[:8]}"


def open_task(base: Config, max_epochs: int, factor: int, cache: Path) -> Task:
    """Prepare the photos and build the backbone; vectors are not computed yet.

    Raises:
        InputError: If photos or weights cannot be had or used.
    """
    check_weights(base.weights)
    base = dataclasses.replace(base, epochs=max_epochs)
    prepared = prepare(base.data, cache, base.split_seed)
    material = open_datasets(base, prepared, cache)
    folder = cache / "search" / _key(base, factor, material)
    return Task(base, max_epochs, factor, material, folder)


def _key(base: Config, factor: int, material: Datasets) -> str:
    """Hash what a state must have in common with a search that goes on from it."""
    hp = keras_tuner.HyperParameters()
    sample_config(hp, base)
    facts: dict[str, Any] = {
        "photos": material.prepared.folder.name,
        "vectors": material.store.key("train"),
        "knobs": {**dataclasses.asdict(base), "data": "", "weights": ""},
        "factor": factor,
        "space": hp.get_config()["space"],
        "keras_tuner": keras_tuner.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
