"""Tests of the saved file: equal probabilities, its metadata inside, never half a file."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.backend import keras
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, PreparedPhoto
from fashion_keras.inspection import layer_name, read_metadata
from fashion_keras.model import build_classifier, build_head
from fashion_keras.saving import (
    RELEASED,
    add_metadata,
    data_fingerprint,
    load_model,
    save_classifier,
    training_metadata,
)
from tests.builders import members_of, noise

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"']
MORE = {
    "backbone": "xception",
    "data": {"name": "Fotos für Käufer 服装 \udcfc", "photos": {"train": 8, "validation": 2}},
    "validation": {"loss": 0.6670146584510803, "accuracy": 1 / 3},
    "licences": {"data": "CC0-1.0", "weights": "MIT"},
}
TEST = {"test": {"accuracy": 356 / 372, "accuracy_interval": [1e-09, 0.97], "photos": 372}}


def save(backbone: keras.Model, file: Path, metadata: dict | None = None) -> None:
    """Save a classifier with a new head."""
    save_classifier(backbone, build_head(Config(inner_size=4), 3), LABELS, 71, file, metadata)


@pytest.fixture
def saved(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier of three classes."""
    save(tiny_backbone, tmp_path / "our.keras", metadata=MORE)
    return tmp_path / "our.keras"


def test_many_labels_and_metadata_survive_a_save_by_plain_keras(tiny_backbone, tmp_path):
    labels, file = [f"{number} / $x$ 'é' 服装" for number in range(1000)], tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=4), 1000), labels, 71, file, MORE)
    metadata = read_metadata(file)
    assert metadata["labels"] == labels
    plain: Any = keras.saving.load_model(file)
    plain.compile("adam", "categorical_crossentropy")
    plain.save(file)
    assert "fashion.json" not in members_of(file)
    again = load_classifier(str(file))
    assert (again.labels, again.image_size, again.metadata) == (labels, 71, metadata)
    add_metadata(file, TEST)
    assert in_plain_sight(file) == read_metadata(file) == metadata | TEST


def test_metadata_name_when_and_with_what_the_file_was_saved(tiny_backbone, tmp_path):
    save(tiny_backbone, tmp_path / "our.keras")
    metadata = read_metadata(tmp_path / "our.keras")
    assert datetime.datetime.fromisoformat(metadata.pop("created")).tzinfo == datetime.UTC
    versions = metadata.pop("versions")
    assert set(versions) == {"fashion_keras", "python", "keras", "tensorflow", "numpy"}
    assert versions["keras"] == keras.__version__
    assert metadata.pop("backbone") == tiny_backbone.name
    assert metadata == {"format": 1, "labels": LABELS, "image_size": 71, "temperature": 1.0}


def in_plain_sight(file: Path) -> dict:
    """Read the metadata with the standard library alone, as the README shows."""
    return json.loads(members_of(file)["fashion.json"])


def fail(*_: Any, **__: Any) -> None:
    raise OSError("No space left on device")


def save_half(model: keras.Model, file: Path) -> None:
    file.write_bytes(b"PK half a file")
    fail()


WHOLE_SAVE = keras.Model.save


def save_other(model: Any, file: Path) -> None:
    weights = model.get_weights()
    model.set_weights([weight * 2 for weight in weights])
    WHOLE_SAVE(model, file)
    model.set_weights(weights)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(save_half, "No space left"), (save_other, r"other probabilities, by up to 0\.")],
)
def test_failed_save_leaves_the_earlier_file(broken, message, saved, tiny_backbone, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("keras.Model.save", broken)
    with pytest.raises((OSError, RuntimeError), match=message):
        save(tiny_backbone, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_weights_in_the_file_fit_into_half_precision(tiny_backbone, tmp_path):
    before = tiny_backbone.get_weights()
    before[1] += 70000.1  # More than half precision can hold: it stays as it is.
    tiny_backbone.set_weights(before)
    file = tmp_path / "our.keras"
    save(tiny_backbone, file)
    found: Any = load_model(file)[0].get_layer("xception")
    kernel, bias, *_ = found.get_weights()
    assert kernel.dtype == "float32"
    np.testing.assert_array_equal(kernel, kernel.astype("float16"))
    np.testing.assert_allclose(kernel, before[0], rtol=2**-11, atol=1e-7)
    assert np.abs(kernel - before[0]).max() > 0
    np.testing.assert_array_equal(bias, before[1])
    numbers = tiny_backbone.count_params() + 4 * 2048
    assert file.stat().st_size < 4 * numbers * 2 / 3


def test_adding_metadata_changes_nothing_else(saved):
    metadata, before = read_metadata(saved), members_of(saved)
    add_metadata(saved, TEST)
    add_metadata(saved, {"backbone": "another"})
    added = metadata | TEST | {"backbone": "another"}
    assert load_model(saved)[1] == in_plain_sight(saved) == read_metadata(saved) == added
    after = members_of(saved)
    assert list(after) == list(before)
    assert after["model.weights.h5"] == before["model.weights.h5"]
    old, new = layer_name(metadata).encode(), layer_name(added).encode()
    assert after["config.json"] == before["config.json"].replace(old, new)


def test_failure_while_adding_metadata_leaves_the_file(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("zipfile.ZipFile.writestr", fail)
    with pytest.raises(OSError, match="No space left"):
        add_metadata(saved, TEST)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_loaded_file_gives_the_same_probabilities_calibrated(temperature, tiny_backbone, tmp_path):
    head, file = build_head(Config(inner_size=4), 3), tmp_path / "new" / "our.keras"
    save_classifier(tiny_backbone, head, LABELS, 71, file, temperature=temperature)
    loaded = load_classifier(file)
    assert loaded.metadata["temperature"] == temperature
    for photos in (noise(4, 71, 71), noise(4, 120, 90)):
        plain = build_classifier(tiny_backbone, head, 71).predict_on_batch(photos)
        assert np.ptp(plain, axis=0).max() > 1e-4
        sharper = plain ** (1 / temperature)
        expected = sharper / sharper.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(loaded.model.predict_on_batch(photos), expected, atol=1e-5)


@pytest.mark.slow
def test_released_file_of_five_averaged_heads_is_loaded():
    model, metadata = load_model(RELEASED)
    head: Any = model.get_layer("head")
    assert len([layer for layer in head.layers if isinstance(layer, keras.Model)]) == 5
    probabilities = model.predict_on_batch(noise(1, 90, 120))
    assert probabilities.shape == (1, len(metadata["labels"]))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


# The metadata of a training.

PHOTOS = [
    PreparedPhoto("train", "hat", "train/hat/0.jpg", "a.jpg", "1" * 64),
    PreparedPhoto("train", "tie", "train/tie/1.jpg", "b.jpg", "2" * 64),
    PreparedPhoto("validation", "hat", "validation/hat/2.jpg", "c.jpg", "3" * 64),
]
SCORES = {"accuracy": 0.5, "loss": 1.0}


def prepared(photos: list[PreparedPhoto]) -> Prepared:
    return Prepared(Path("anywhere"), ["hat", "tie"], photos, [])


def of_training(licence: str = "", **fields: Any) -> dict:
    return training_metadata(Config(**fields), prepared(PHOTOS), SCORES, licence)


def test_metadata_name_data_licence_and_scores(tmp_path):
    found = of_training(data=f"{tmp_path}/shop/")
    assert found["validation"] == SCORES
    fingerprint = data_fingerprint(prepared(PHOTOS))
    photos = {"train": 2, "validation": 1}
    assert found["data"] == {"name": "shop", "fingerprint": fingerprint, "photos": photos}
    assert str(tmp_path) not in repr(found)
    assert found["licences"]["data"] == "not stated"
    assert of_training(data="clothing")["licences"]["data"] == "CC0-1.0"
    assert of_training("ours", data="clothing")["licences"]["data"] == "ours"


def test_licence_of_the_weights_is_inherited(tiny_backbone, tmp_path):
    file = tmp_path / "before.keras"
    save(tiny_backbone, file, metadata={"licences": {"weights": "ours alone"}})
    imagenet = "MIT (Keras Applications; trained on ImageNet)"
    for weights, licence in {
        "imagenet": imagenet,
        "released": imagenet,
        str(file): "ours alone",
        "own.weights.h5": "not stated",
    }.items():
        assert of_training(weights=weights)["licences"]["weights"] == licence


def test_fingerprint_is_that_of_the_photos_alone():
    expected = data_fingerprint(prepared(PHOTOS))
    moved = [photo._replace(prepared="x", file="y") for photo in reversed(PHOTOS)]
    assert data_fingerprint(prepared(moved)) == expected
    others = [
        PHOTOS[:2],
        [PHOTOS[0]._replace(label="tie"), *PHOTOS[1:]],
        [PHOTOS[0]._replace(split="test"), *PHOTOS[1:]],
        [PHOTOS[0]._replace(sha256="4" * 64), *PHOTOS[1:]],
    ]
    assert len({expected, *(data_fingerprint(prepared(other)) for other in others)}) == 5
