"""Tests of keys: for every field of `Config`, a key stays if and only if what it names stays."""

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.config import Config, deciding, names
from fashion_keras.data.prepare import prepare
from fashion_keras.data.sample import draw_sample
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuning import fine_tune, fine_tuning_key
from fashion_keras.model import precision_in_force
from fashion_keras.training import Datasets, head_key, train_head
from tests.builders import needs_openvino
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
    "backbone": "convnext-tiny",
    "data": "elsewhere",  # The same photos in another place.
    "weights": "released",  # Stands for other weights.
    "image_size": 80,
    "augmented_copies": 2,
    "rotation": 0.2,
    "zoom": 0.3,
    "mirror": False,
    "label_column": "label",
    "label_pattern": "([0-9])[.]",
    "review": "a.csv",
    "inner_size": 9,
    "droprate": 0.6,
    "learning_rate": 0.01,
    "label_smoothing": 0.3,
    "class_weights": "balanced",
    "objective": "balanced_accuracy",
    "ema_epochs": 1.0,
    "epochs": 2,
    "patience": 1,
    "fine_tune_from": "pixels",
    "fine_tune_on": "pixels",
    "predict_size": 90,
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
# They decide nothing that is made here, or need another source or processor.
NOT_ALONE = {"data", "precision", "predict_size", "label_column", "review"}
# The output may stay by chance although the field decides it: these need more than a few epochs.
MAY_STAY = {"patience", "feature_batch_size"}


def first_kind(name: str) -> str:
    """Return the first kind of artifact that a field decides; empty if it decides none."""
    if name == "precision" and precision_in_force(OTHERS[name]) == "float32":
        return ""
    if name in (
        "weights",
        "split_seed",
        "label_pattern",
    ):  # They decide what goes into all of them.
        return "features"
    other = dataclasses.replace(BASE, **{name: OTHERS[name]})  # Defaults may be in no key.
    return next((kind for kind in KINDS if name in deciding(other, kind)), "")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw photos of three classes without splits, twice: the second time in another place."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = draw_sample(folder / "drawn", {"train": 12})
    for place in ("clothing", "elsewhere"):
        for label in ("dress", "hat", "shirt"):
            shutil.copytree(drawn / "train" / label, folder / place / label)
        min((folder / place / "hat").iterdir()).unlink()  # Classes are uneven.
    return folder


def digest_of(arrays: Iterable[Any]) -> str:
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()


def made(kind: str, config: Config, photos: Path, cache: Path) -> tuple[str, str]:
    """Return the key of an artifact and a digest of its content."""
    fields = {"data": str(photos / config.data), "label_column": "", "review": ""}
    prepared = prepare(dataclasses.replace(config, **fields), cache)
    backbone = small_backbone(config.backbone)
    if config.weights != BASE.weights:
        backbone.set_weights([weight + 0.01 for weight in backbone.get_weights()])
    store = FeatureStore(prepared, config, backbone, cache)
    if kind in ("features", "copies"):
        copy = int(kind == "copies")
        return store.key("train", copy), digest_of([store.features("train", copy)])
    datasets = Datasets(prepared, backbone, store)
    trained = train_head(config, datasets, cache)
    if kind == "head":
        key, models = head_key(config, datasets), [trained.head]
    else:
        key = fine_tuning_key(config, datasets, trained.head)
        trained = fine_tune(config, datasets, trained, cache)
        models = [trained.backbone, trained.head]
    weights = [weight for model in models for weight in model.get_weights()]
    rows = trained.history
    return key, digest_of([*weights, [row["val_loss"] for row in rows], list(rows[0])])


@pytest.fixture(scope="module")
def base(photos: Path) -> Callable[[str], Any]:
    """Return a function that makes an artifact of `BASE` once."""
    return functools.cache(lambda kind: made(kind, BASE, photos, photos / "cache"))


def test_every_field_has_another_value():
    assert set(OTHERS) == set(names())
    assert all(getattr(BASE, name) != value for name, value in OTHERS.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_key_and_output_stay_while_all_fields_change_that_do_not_decide_them(
    kind, base, photos, tmp_path
):
    later = ("", *KINDS[KINDS.index(kind) + 1 :])
    others = {name: value for name, value in OTHERS.items() if first_kind(name) in later}
    assert made(kind, dataclasses.replace(BASE, **others), photos, tmp_path) == base(kind)


@pytest.mark.slow
def test_key_and_output_change_with_the_engine(base, photos, tmp_path, monkeypatch):
    needs_openvino()
    before = base("features")
    monkeypatch.setattr("fashion_keras.engine._WORTH_CONVERTING", 0)
    key, output = made("features", BASE, photos, tmp_path)
    assert (key != before[0], output != before[1]) == (True, True)
    monkeypatch.setattr("fashion_keras.engine._on_cpu", lambda: False)
    assert made("features", BASE, photos, tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OTHERS.keys() - NOT_ALONE))
def test_key_and_output_change_with_each_field_that_decides_them(name, base, photos):
    kind = first_kind(name)
    config = dataclasses.replace(BASE, **{name: OTHERS[name]})
    key, output = made(kind, config, photos, photos / "cache")  # What it is made of may be there.
    assert key != base(kind)[0]
    if name not in MAY_STAY:
        assert output != base(kind)[1]
