"""Tests of the saved file: equal probabilities, its card inside, never half a file."""

import base64
import datetime
import importlib.metadata
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

from fashion_keras.backbone import build_backbone
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.inspection import check_file, name_of, read_card
from fashion_keras.model import build_classifier, build_head
from fashion_keras.saving import add_facts, load_model, save_classifier

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"']
FACTS = {
    "backbone": "xception",
    "data": {"name": "Fotos für Käufer 服装", "photos": {"train": 8, "validation": 2}},
    "validation": {"loss": 0.6670146584510803, "accuracy": 1 / 3},
    "licences": {"data": "CC0-1.0", "weights": "MIT"},
}
TEST = {"test": {"accuracy": 356 / 372, "accuracy_interval": [1e-09, 0.97], "photos": 372}}


def noise(photos: int, height: int, width: int) -> np.ndarray:
    """Return photos of noise."""
    shape = (photos, height, width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


def save(
    backbone: keras.Model, file: Path, labels: list[str] | None = None, facts: dict | None = None
) -> keras.Model:
    """Save a classifier with a new head, and return the head."""
    labels = labels or LABELS
    head = build_head(Config(inner_size=4), len(labels))
    save_classifier(backbone, head, labels, 71, file, facts)
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


LONG = [f"{number} / $x_{number}$ 'é' 服装" for number in range(1000)]


@pytest.mark.parametrize("labels", [["a", "b"], LABELS, LONG])
def test_card_survives_a_save_by_plain_keras(
    labels: list[str], tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    save(tiny_backbone, tmp_path / "our.keras", labels, FACTS)
    card = read_card(tmp_path / "our.keras")
    assert (card["format"], card["labels"], card["image_size"]) == (1, labels, 71)
    assert {name: card[name] for name in FACTS} == FACTS
    for before, after in (("our", "again"), ("again", "and_again")):
        plain: Any = keras.saving.load_model(tmp_path / f"{before}.keras")
        plain.save(tmp_path / f"{after}.keras")
        assert read_card(tmp_path / f"{after}.keras") == card
        classifier = load_classifier(str(tmp_path / f"{after}.keras"))
        assert (classifier.labels, classifier.image_size, classifier.card) == (labels, 71, card)


def test_card_tells_when_and_with_what_it_was_saved(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    save(tiny_backbone, tmp_path / "our.keras")
    card = read_card(tmp_path / "our.keras")
    known = {"format", "labels", "image_size", "created", "versions", "temperature"}
    assert set(card) == known
    assert card["temperature"] == 1
    created = datetime.datetime.fromisoformat(card["created"])
    assert begin <= created <= datetime.datetime.now(datetime.UTC)
    assert set(card["versions"]) == {"fashion_keras", "python", "keras", "tensorflow", "numpy"}
    assert card["versions"]["keras"] == keras.__version__
    assert card["versions"]["tensorflow"] == importlib.metadata.version("tensorflow")


def card_in_plain_sight(file: Path) -> dict:
    """Read the card with the standard library alone, as the README tells."""
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("fashion.json"))


def card_in_a_name(file: Path) -> dict:
    """Read the card with the standard library alone from the name of the last layer."""
    with zipfile.ZipFile(file) as archive:
        config = json.loads(archive.read("config.json"))
    packed = config["config"]["layers"][-1]["name"].removeprefix("facts_")
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))


@pytest.mark.parametrize("labels", [LABELS, LONG])
def test_card_is_readable_without_keras(
    labels: list[str], tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    file = tmp_path / "our.keras"
    save(tiny_backbone, file, labels, FACTS)
    assert card_in_plain_sight(file) == card_in_a_name(file) == read_card(file)
    assert card_in_plain_sight(file)["labels"] == labels
    add_facts(file, TEST)
    assert card_in_plain_sight(file) == card_in_a_name(file) == read_card(file)
    assert card_in_plain_sight(file)["test"] == TEST["test"]


def test_names_that_are_no_unicode_can_be_facts(tiny_backbone: keras.Model, tmp_path: Path) -> None:
    facts = {"data": {"name": b"Bl\xfctenwei\xdf".decode(errors="surrogateescape")}}
    save(tiny_backbone, tmp_path / "our.keras", facts=facts)
    assert card_in_plain_sight(tmp_path / "our.keras")["data"] == facts["data"]
    assert read_card(tmp_path / "our.keras")["data"] == facts["data"]


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
        ("fashion_keras.saving._prove", prove_wrong, RuntimeError),
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
    expected = [row.probabilities for row in load_classifier(saved).predict(files)]
    shutil.copy(saved, tmp_path / "moved.keras")
    names = [str(tmp_path / name) for name in ("moved.keras", "photos.npy", "found.npy")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_PROGRAM, *names],
        check=True, capture_output=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    for found in np.load(tmp_path / "found.npy"):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_is_not_saved(tmp_path: Path, tiny_backbone: keras.Model) -> None:
    head = build_head(Config(inner_size=4), 3)
    head.get_layer("inner").dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    with pytest.raises(InputError, match="Received: inner in half precision. Build it under"):
        save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")


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
    card = {"labels": list("abcdefghij"), "image_size": 150}
    exact = Classifier(build_classifier(backbone, head, 150), card)
    before = [row.probabilities for row in exact.predict(files)]
    save_classifier(backbone, head, exact.labels, 150, tmp_path / "our.keras")
    rounded = load_classifier(tmp_path / "our.keras").predict(files)
    difference = np.abs(np.array(before) - [row.probabilities for row in rounded])
    assert np.max(before, axis=1).mean() > 0.5
    assert 0 < difference.max() < 0.005


def members_of(file: Path) -> dict[str, bytes]:
    """Return the members of a file by name."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_adding_facts_changes_the_card_and_nothing_else(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    file, photos = tmp_path / "our.keras", noise(3, 90, 120)
    save(tiny_backbone, file, facts=FACTS)
    card, before, (model, _) = read_card(file), members_of(file), load_model(file)
    expected = model.predict_on_batch(photos)
    add_facts(file, TEST)
    add_facts(file, {"backbone": "another"})
    added = card | TEST | {"backbone": "another"}
    after, (model, loaded_card) = members_of(file), load_model(file)
    assert loaded_card == read_card(file) == added
    assert list(after) == list(before)
    for name in ("metadata.json", "model.weights.h5"):
        assert after[name] == before[name]
    renamed = before["config.json"].replace(name_of(card).encode(), name_of(added).encode())
    assert after["config.json"] == renamed
    np.testing.assert_array_equal(model.predict_on_batch(photos), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["our.keras"]


def test_facts_can_be_added_after_a_save_by_plain_keras(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    file = tmp_path / "again.keras"
    save(tiny_backbone, tmp_path / "our.keras", facts=FACTS)
    plain: Any = keras.saving.load_model(tmp_path / "our.keras")
    plain.save(file)
    assert "fashion.json" not in members_of(file)
    add_facts(file, TEST)
    assert card_in_plain_sight(file) == read_card(tmp_path / "our.keras") | TEST
    plain = keras.saving.load_model(file)
    plain.save(file)
    assert read_card(file) == read_card(tmp_path / "our.keras") | TEST
    for found, weight in zip(
        load_model(file)[0].get_weights(),
        load_model(tmp_path / "our.keras")[0].get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(found, weight)


def write_no_more(archive: zipfile.ZipFile, name: str, *_: Any) -> None:
    if name == "model.weights.h5":
        raise OSError("No space left on device")


def refuse_unfinished(file: Path) -> dict:
    if file.name.startswith("."):
        raise RuntimeError("the unfinished file is damaged")
    return check_file(file)


def replace_nothing(*_: Any) -> None:
    raise OSError("The disk is gone")


@pytest.mark.parametrize(
    ("place", "broken", "message"),
    [
        ("zipfile.ZipFile.writestr", write_no_more, "No space left"),
        ("fashion_keras.saving.check_file", refuse_unfinished, "is damaged"),
        ("os.fsync", replace_nothing, "The disk is gone"),
        ("os.replace", replace_nothing, "The disk is gone"),
    ],
)
def test_failure_while_adding_facts_leaves_the_file(
    place: str, broken: Any, message: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(place, broken)
    with pytest.raises((OSError, RuntimeError), match=message):
        add_facts(saved, TEST)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"test": np.float32(1)}, TypeError, "not JSON serializable"),
        ({"format": 2}, InputError, "has format 2"),
        ({"labels": []}, InputError, "holds no labels"),
    ],
)
def test_facts_that_cannot_be_told_leave_the_file(
    facts: dict, error: type[Exception], message: str, saved: Path
) -> None:
    before = saved.read_bytes()
    with pytest.raises(error, match=message):
        add_facts(saved, facts)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_facts_are_added_to_classifiers_only(tmp_path: Path) -> None:
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(tmp_path / "other.keras")
    before = (tmp_path / "other.keras").read_bytes()
    with pytest.raises(InputError, match="holds no labels"):
        add_facts(tmp_path / "other.keras", TEST)
    assert (tmp_path / "other.keras").read_bytes() == before


def test_card_that_was_packed_in_another_way_is_not_lost(saved: Path) -> None:
    other = "facts_" + base64.urlsafe_b64encode(json.dumps(read_card(saved)).encode()).decode()
    config = members_of(saved)["config.json"]
    changed = config.replace(name_of(read_card(saved)).encode(), other.rstrip("=").encode())
    members = members_of(saved) | {"config.json": changed}
    with zipfile.ZipFile(saved, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    before = saved.read_bytes()
    with pytest.raises(InputError, match="differs from what the model itself tells"):
        add_facts(saved, TEST)
    assert saved.read_bytes() == before


def test_what_was_checked_is_what_is_loaded(
    saved: Path, tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, load = load_model(saved)[0].get_weights(), keras.saving.load_model
    names = []

    def load_later(file: Path, **options: Any) -> Any:
        names.append(file)
        saved.write_bytes(b"another file, written after the check")
        return load(file, **options)

    monkeypatch.setattr("keras.saving.load_model", load_later)
    for found, weight in zip(load_model(saved)[0].get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, weight)
    assert not names[0].exists()


def test_file_that_was_compiled_and_saved_again_by_plain_keras_is_loaded(
    saved: Path, tmp_path: Path
) -> None:
    model: Any = keras.saving.load_model(saved)
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path / "again.keras")
    again: Any = load_classifier(tmp_path / "again.keras").model
    photos = noise(2, 71, 71)
    np.testing.assert_array_equal(again(photos), model(photos))


def test_temperature_is_part_of_the_model_and_on_the_card(
    tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    head = build_head(Config(inner_size=4), 3)
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "cold.keras", temperature=0.5)
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "plain.keras")
    cold, plain = (load_classifier(tmp_path / f"{name}.keras") for name in ("cold", "plain"))
    photos = noise(3, 80, 90)
    squared = plain.model.predict_on_batch(photos) ** 2
    expected = squared / squared.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cold.model.predict_on_batch(photos), expected, atol=1e-6)
    assert (cold.card["temperature"], plain.card["temperature"]) == (0.5, 1)
