"""Tests of the saved file: equal probabilities, labels inside, never half a file, clear errors."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras.artifact import Classifier, load_classifier, read_facts, save_classifier
from fashion_keras.backbone import build_backbone
from fashion_keras.config import Config, InputError
from fashion_keras.model import build_classifier, build_head
from fashion_keras.predict import predict

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"']


def noise(photos: int, height: int, width: int) -> np.ndarray:
    """Return photos of noise."""
    shape = (photos, height, width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


def save(backbone: keras.Model, file: Path, labels: list[str] | None = None) -> keras.Model:
    """Save a classifier with a new head, and return the head."""
    labels = labels or LABELS
    head = build_head(Config(inner_size=4), len(labels))
    save_classifier(backbone, head, labels, 71, file)
    return head


@pytest.fixture
def saved(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier of three classes."""
    save(tiny_backbone, tmp_path / "our.keras")
    return tmp_path / "our.keras"


@pytest.mark.parametrize(("height", "width"), [(71, 71), (120, 90)])
def test_loaded_file_gives_the_same_probabilities(
    height: int, width: int, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    head = save(tiny_backbone, tmp_path / "new" / "our.keras")
    expected = np.asarray(build_classifier(tiny_backbone, head, 71)(noise(4, height, width)))
    model: Any = load_classifier(tmp_path / "new" / "our.keras").model
    assert np.ptp(expected, axis=0).max() > 1e-4
    np.testing.assert_allclose(model(noise(4, height, width)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "labels", [["a", "b"], LABELS, [f"{number} / $x_{number}$ 'é' 服装" for number in range(200)]]
)
def test_facts_survive_a_save_by_plain_keras(
    labels: list[str], tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    save(tiny_backbone, tmp_path / "our.keras", labels)
    plain: Any = keras.saving.load_model(tmp_path / "our.keras")
    plain.save(tmp_path / "again.keras")
    for file in ("our.keras", "again.keras"):
        classifier = load_classifier(str(tmp_path / file))
        assert (classifier.labels, classifier.image_size) == (labels, 71)
    assert read_facts(tmp_path / "again.keras")["format"] == 1


@pytest.mark.parametrize("labels", [LABELS, [f"class {number}" for number in range(200)]])
def test_labels_are_readable_without_keras(
    labels: list[str], tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    save(tiny_backbone, tmp_path / "our.keras", labels)
    with zipfile.ZipFile(tmp_path / "our.keras") as archive:
        facts = json.loads(archive.read("fashion.json"))
    assert facts == {"format": 1, "labels": labels, "image_size": 71}


def values_of(tree: Any, key: str) -> Iterator[Any]:
    """Yield all values that stand under a key anywhere in parsed JSON."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from values_of(branch, key)


def test_file_needs_nothing_but_keras_and_holds_nothing_random(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    classes = set(values_of(config, "class_name"))
    assert {"Resizing", "Rescaling", "Softmax", "Conv2D"} <= classes
    assert not [name for name in classes if "Random" in name or "Lambda" in name]
    assert {name.split(".")[0] for name in values_of(config, "module") if name} == {"keras"}


def save_half(model: keras.Model, file: Path, **options: Any) -> None:
    Path(file).write_bytes(b"PK half a file")
    raise OSError("No space left on device")


def prove_wrong(model: keras.Model, file: Path) -> None:
    raise RuntimeError("the saved file gives other probabilities")


@pytest.mark.parametrize(
    ("place", "broken", "error"),
    [
        ("keras.Model.save", save_half, OSError),
        ("fashion_keras.artifact._prove", prove_wrong, RuntimeError),
    ],
)
def test_failed_save_leaves_the_earlier_file(
    place: str, broken: Any, error: type[Exception], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, backbone = saved.read_bytes(), load_classifier(saved).model.get_layer("xception")
    monkeypatch.setattr(place, broken)
    with pytest.raises(error, match=r"No space left|other probabilities"):
        save(backbone, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_model_without_numbers_is_never_saved(tiny_backbone: keras.Model, tmp_path: Path) -> None:
    head = build_head(Config(), 3)
    head.set_weights([weight * np.nan for weight in head.get_weights()])
    with pytest.raises(RuntimeError, match="other probabilities, by up to nan"):
        save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")
    assert list(tmp_path.iterdir()) == []


def test_file_that_lost_weights_is_not_accepted(
    tiny_backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = keras.Model.save

    def save_other(model: Any, file: Path) -> None:
        weights = model.get_weights()
        model.set_weights([weight * 2 for weight in weights])
        whole(model, file)
        model.set_weights(weights)

    monkeypatch.setattr("keras.Model.save", save_other)
    with pytest.raises(RuntimeError, match=r"other probabilities, by up to 0\."):
        save(tiny_backbone, tmp_path / "our.keras")
    assert list(tmp_path.iterdir()) == []


def test_new_file_replaces_the_earlier_one(saved: Path, tiny_backbone: keras.Model) -> None:
    save(tiny_backbone, saved, ["a", "b"])
    assert load_classifier(saved).labels == ["a", "b"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No model file .*; `python -m fashion_keras.final`"):
        load_classifier(tmp_path / "gone.keras")


def write_folder(file: Path, saved: Path) -> None:
    file.mkdir()


def write_text(file: Path, saved: Path) -> None:
    file.write_text("<html>404 not found</html>")


def write_truncated(file: Path, saved: Path) -> None:
    file.write_bytes(saved.read_bytes()[:-1000])


def write_other_zip(file: Path, saved: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize("write", [write_folder, write_text, write_truncated, write_other_zip])
def test_file_of_another_sort_is_refused(write: Any, saved: Path, tmp_path: Path) -> None:
    write(tmp_path / "other.keras", saved)
    with pytest.raises(InputError, match=r"other\.keras is not a whole \.keras file: "):
        load_classifier(tmp_path / "other.keras")


def test_damaged_weights_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        place = archive.getinfo("model.weights.h5").header_offset
    content = bytearray(saved.read_bytes())
    content[place + 10_000] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"our\.keras cannot be loaded: .*CRC"):
        load_classifier(saved)


@pytest.mark.parametrize("functional", [True, False])
def test_model_without_labels_names_the_command_that_writes_them(
    functional: bool, tmp_path: Path
) -> None:
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(1)
    model = keras.Model(inputs, layer(inputs)) if functional else keras.Sequential([inputs, layer])
    model.save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=r"holds no labels.*`python -m fashion_keras.final`"):
        load_classifier(tmp_path / "other.keras")


PLAIN_PROGRAM = """
import sys
import keras
import numpy as np

model = keras.saving.load_model(sys.argv[1])
photos = np.load(sys.argv[2])
np.save(sys.argv[3], [np.asarray(model(photos)), np.asarray(model(photos)), model.predict(photos)])
assert "fashion_keras" not in sys.modules
"""


def test_plain_keras_gives_what_predict_gives(saved: Path, tmp_path: Path) -> None:
    photos, files = noise(3, 90, 120), [tmp_path / f"{number}.png" for number in range(3)]
    for photo, file in zip(photos, files, strict=True):
        Image.fromarray(photo).save(file)
    np.save(tmp_path / "photos.npy", photos)
    expected = [row.probabilities for row in predict(load_classifier(saved), files)]
    shutil.copy(saved, tmp_path / "moved.keras")
    names = [str(tmp_path / name) for name in ("moved.keras", "photos.npy", "found.npy")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_PROGRAM, *names],
        check=True, capture_output=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    for found in np.load(tmp_path / "found.npy"):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_file_of_a_newer_format_is_refused(
    tiny_backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.artifact.FORMAT", 2)
    save(tiny_backbone, tmp_path / "new.keras")
    monkeypatch.setattr("fashion_keras.artifact.FORMAT", 1)
    with pytest.raises(InputError, match="has format 2; this version .* Install a newer one"):
        load_classifier(tmp_path / "new.keras")


def test_half_precision_is_not_saved(tmp_path: Path, tiny_backbone: keras.Model) -> None:
    head = build_head(Config(inner_size=4), 3)
    head.get_layer("inner").dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    with pytest.raises(InputError, match="Received: inner in half precision. Build it under"):
        save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")


@pytest.mark.parametrize("name", ["facts_a", "facts_e30", "facts_eyJhIjog"])
def test_names_that_only_look_like_facts_are_refused(name: str, tmp_path: Path) -> None:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Softmax(name=name)(inputs))
    model.save(tmp_path / "foreign.keras")
    with pytest.raises(InputError, match="holds no labels|not a whole .keras file"):
        read_facts(tmp_path / "foreign.keras")


def test_weights_in_the_file_fit_into_half_precision(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    before = tiny_backbone.get_weights()
    save(tiny_backbone, tmp_path / "our.keras")
    after = load_classifier(tmp_path / "our.keras").model.get_weights()
    for weight in after:
        assert weight.dtype == "float32"
        np.testing.assert_array_equal(weight, weight.astype("float16"))
    np.testing.assert_allclose(tiny_backbone.get_weights()[0], before[0], rtol=2**-11, atol=1e-7)
    assert np.abs(tiny_backbone.get_weights()[0] - before[0]).max() > 0


def test_weights_beyond_half_precision_are_kept(tiny_backbone: keras.Model, tmp_path: Path) -> None:
    weights = tiny_backbone.get_weights()
    weights[1] += 70000.1
    tiny_backbone.set_weights(weights)
    save(tiny_backbone, tmp_path / "our.keras")
    saved = load_classifier(tmp_path / "our.keras").model
    found: Any = saved.get_layer("xception")
    np.testing.assert_array_equal(found.get_weights()[1], weights[1])


def test_file_takes_no_more_than_two_thirds_of_the_weights(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    save(tiny_backbone, tmp_path / "our.keras")
    numbers = tiny_backbone.count_params() + 4 * 2048
    assert (tmp_path / "our.keras").stat().st_size < 4 * numbers * 2 / 3


def test_rounding_hardly_moves_the_probabilities_of_real_photos(
    real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    backbone, head = build_backbone(str(real_weights)), build_head(Config(inner_size=0), 10)
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 20, bias])  # As sure of itself as a trained one.
    files = sorted((real_data / "validation").glob("*/*.jpg"))[::20]
    exact = Classifier(build_classifier(backbone, head, 150), list("abcdefghij"), 150)
    before = [row.probabilities for row in predict(exact, files)]
    save_classifier(backbone, head, exact.labels, 150, tmp_path / "our.keras")
    rounded = predict(load_classifier(tmp_path / "our.keras"), files)
    difference = np.abs(np.array(before) - [row.probabilities for row in rounded])
    assert np.max(before, axis=1).mean() > 0.5
    assert 0 < difference.max() < 0.005
