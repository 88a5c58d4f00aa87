"""Tests of keys: for every field of `Config`, a key stays if and only if what it names stays."""

import dataclasses
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.backend import keras
from fashion_keras.config import Config, names
from fashion_keras.data.prepare import prepare
from fashion_keras.data.sample import draw_sample
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuning import fine_tune, fine_tuning_key
from fashion_keras.training import Datasets, head_key, train_head
from tests.conftest import small_backbone

KINDS = ("features", "copies", "head", "fine_tuning")
BASE = Config(
    image_size=71,
    inner_size=8,
    learning_rate=0.05,
    epochs=3,
    patience=2,
    fine_tune_from="block13",
    fine_tuning_copies=1,
    fine_tuning_epochs=1,
    batch_size=8,
    feature_batch_size=4,
)
# Another valid value of each field. A new field needs one, too.
OTHERS: dict[str, Any] = {
    "data": "elsewhere",  # The same photos in another place.
    "weights": "released",  # Stands for other weights.
    "image_size": 80,
    "augmented_copies": 2,
    "rotation": 0.2,
    "zoom": 0.3,
    "inner_size": 9,
    "droprate": 0.6,
    "learning_rate": 0.01,
    "label_smoothing": 0.3,
    "ema_epochs": 1.0,
    "epochs": 2,
    "patience": 1,
    "fine_tune_from": "pixels",
    "fine_tuning_copies": 0,
    "fine_tuning_epochs": 2,
    "fine_tuning_learning_rate": 0.01,
    "precision": "mixed_float16",  # Not in force on a CPU.
    "batch_size": 5,
    "feature_batch_size": 3,
    "split_seed": 2,
    "augmentation_seed": 2,
    "seed": 2,
}
# The output may stay by chance although the field decides it: these need more than a few epochs.
MAY_STAY = {"patience", "feature_batch_size"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw photos of three classes without splits, twice: the second time in another place."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = draw_sample(folder / "drawn", {"train": 12})
    for place in ("clothing", "elsewhere"):
        for label in ("dress", "hat", "shirt"):
            shutil.copytree(drawn / "train" / label, folder / place / label)
    return folder


def digest_of(arrays: Iterable[Any]) -> str:
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()


def made(config: Config, photos: Path, cache: Path) -> dict[str, tuple[str, str]]:
    """Return key and digest of what is made of each kind."""
    prepared = prepare(str(photos / config.data), cache, config.split_seed)
    backbone: keras.Model = small_backbone()
    if config.weights != BASE.weights:
        backbone.set_weights([weight + 0.01 for weight in backbone.get_weights()])
    store = FeatureStore(prepared, config, backbone, cache)
    datasets = Datasets(prepared, backbone, store)
    head = train_head(config, datasets, cache)
    tuned = fine_tune(config, datasets, head, cache)
    rows = [[row["val_loss"] for row in one.history] for one in (head, tuned)]
    weights = [*tuned.backbone.get_weights(), *tuned.head.get_weights()]
    return {
        "features": (store.key("train"), digest_of([store.features("train")])),
        "copies": (store.key("train", 1), digest_of([store.features("train", 1)])),
        "head": (head_key(config, datasets), digest_of([*head.head.get_weights(), rows[0]])),
        "fine_tuning": (
            fine_tuning_key(config, datasets, head.head),
            digest_of([*weights, rows[1]]),
        ),
    }


@pytest.fixture(scope="module")
def base(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Make everything once."""
    return made(BASE, photos, tmp_path_factory.mktemp("base"))


def test_every_field_has_another_value() -> None:
    assert set(OTHERS) == set(names())
    assert all(getattr(BASE, name) != value for name, value in OTHERS.items())


def test_the_same_is_made_twice(
    base: dict[str, tuple[str, str]], photos: Path, tmp_path: Path
) -> None:
    assert made(BASE, photos, tmp_path) == base


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_key_stays_if_and_only_if_the_output_stays(
    name: str, base: dict[str, tuple[str, str]], photos: Path, tmp_path: Path
) -> None:
    changed = made(dataclasses.replace(BASE, **{name: OTHERS[name]}), photos, tmp_path)
    for kind in KINDS:
        same_key, same_output = (changed[kind][part] == base[kind][part] for part in (0, 1))
        assert same_output or not same_key, kind
        if name not in MAY_STAY:
            assert same_key == same_output, kind
