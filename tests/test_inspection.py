"""Tests of what is refused before anything of a saved file is loaded."""

import base64
import io
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras.src.saving.serialization_lib import SafeModeScope

from fashion_keras.backend import keras
from fashion_keras.config import InputError
from fashion_keras.inspection import check_file, layer_name, read_metadata
from fashion_keras.saving import load_model
from tests.builders import members_of

METADATA = {"format": 1, "labels": ["dress", "Schuhe für Kinder", 't-shirt "V"'], "image_size": 8}
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """Return the members of a saved classifier with hardly any weights, its head a model, too."""
    pixels, features = keras.Input((None, None, 3)), keras.Input((2,))
    inner = keras.layers.Dense(3, activation="relu", name="inner")
    head = keras.Model(features, inner(features), name="head")
    x = keras.layers.Resizing(8, 8, name="resize")(pixels)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, name="conv")(x))
    model = keras.Model(pixels, keras.layers.Softmax(name=layer_name(METADATA))(head(x)))
    file = tmp_path_factory.mktemp("whole") / "whole.keras"
    model.save(file)
    return members_of(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the name of the file that a test makes."""
    return tmp_path / "our.keras"


def write(file: Path, members: Members, packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refuse(file: Path, message: str) -> None:
    """Assert that a file is neither checked nor loaded, with one line that begins with its name."""
    for act in (check_file, load_model):
        with pytest.raises(InputError, match=message) as caught:
            act(file)
        assert str(caught.value).startswith(f"{file} ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < len(str(file)) + 330


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a file gets as far as Keras."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("Keras was called to load the file")

    monkeypatch.setattr("keras.saving.load_model", load)


def test_whole_file_of_any_name_is_loaded(whole, tmp_path):
    file = tmp_path / "download(1)"
    write(file, whole, zipfile.ZIP_DEFLATED)
    assert read_metadata(file) == check_file(file)[0] == METADATA
    model, metadata = load_model(file)
    assert metadata == METADATA
    with h5py.File(io.BytesIO(whole["model.weights.h5"])) as weights:
        kernel = np.asarray(weights["layers/conv2d/vars/0"])
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], kernel)


# Files that are damaged or of another kind.


def test_missing_file_names_the_command_that_makes_one(file):
    for act in (read_metadata, check_file, load_model):
        with pytest.raises(InputError, match=r"^No model file .*; `python -m fashion_keras.final`"):
            act(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404 not found</html>", r"is not a \.keras file: File is not a zip"),
        (b"", r"is not a \.keras file: "),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"is not a \.keras file but HDF5, such as older"),
    ],
)
def test_file_of_another_kind_is_refused(content, message, file):
    file.write_bytes(content)
    refuse(file, message)
    with pytest.raises(InputError, match=message):
        read_metadata(file)


def test_file_that_is_cut_off_anywhere_is_refused(whole, file):
    write(file, whole, zipfile.ZIP_DEFLATED)
    content = file.read_bytes()
    for length in [*range(2, len(content), len(content) // 20), len(content) - 1]:
        file.write_bytes(content[:length])
        refuse(file, r"is cut off or damaged \(copy or download it again\): ")


def test_flipped_bit_is_found(whole, file):
    write(file, whole)
    content = bytearray(file.read_bytes())
    content[content.index(whole["model.weights.h5"]) + 1000] ^= 1
    file.write_bytes(content)
    refuse(file, r"is cut off or damaged \(.*\): Bad CRC-32 for file 'model\.weights\.h5'$")


def named(name: str) -> Callable[[Members], Members]:
    """Return what gives the last layer another name."""
    old = layer_name(METADATA).encode()
    key = "config.json"
    return lambda whole: whole | {key: whole[key].replace(old, name.encode())}


def packed(text: bytes) -> str:
    """Return the name of a layer that holds any text in the place of metadata."""
    return "facts_" + base64.urlsafe_b64encode(text).decode().rstrip("=")


NO_LABELS = r"holds no labels: .*`python -m fashion_keras.final` makes such a file\.$"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"a.jpg": b"a"}, r"is not a \.keras file: .* no item named 'config\.json' in "),
        (lambda whole: whole | {"config.json": b"{"}, NO_LABELS),
        (lambda whole: whole | {"config.json": b'{"config": 1}'}, NO_LABELS),
        (named("softmax"), NO_LABELS),
        (named(packed(b'["format"]')), NO_LABELS),
        (named(packed(b'{"labels": ["a"], "image_size": 8}')), NO_LABELS),
        (named(layer_name(METADATA | {"labels": []})), NO_LABELS),
        (named(layer_name(METADATA | {"labels": ["a", "\x1b[2J"]})), NO_LABELS),
        (
            named(layer_name({"format": 2, "classes": {"a": 0}})),
            r"has format 2; .* reads formats up to 1\. Install a newer one\.$",
        ),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_file_without_its_parts_is_refused(change, message, whole, file):
    write(file, change(whole))
    refuse(file, message)


def without_layer(weights: h5py.File) -> None:
    del weights["layers/conv2d"]


def with_storage(weights: h5py.File) -> None:
    del weights["layers/conv2d/vars/0"]
    place = {"external": [("other", 0, h5py.h5f.UNLIMITED)]}
    weights.create_dataset("layers/conv2d/vars/0", (3,), "float32", **place)


@pytest.mark.filterwarnings("ignore")  # As for a user: Keras' warnings are no errors.
@pytest.mark.parametrize(
    ("change", "message"),
    [(without_layer, "received 0 variables"), (with_storage, "Not allowed: H5 file")],
)
def test_weights_that_are_not_in_the_file_are_refused_in_one_line(change, message, whole, file):
    changed = io.BytesIO(whole["model.weights.h5"])
    with h5py.File(changed, "r+") as weights:
        change(weights)
    write(file, whole | {"model.weights.h5": changed.getvalue()})
    with pytest.raises(InputError, match=rf"our\.keras cannot be loaded: .*{message}") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)


# Code, by way of the configuration.


def layer(config: dict, name: str) -> dict:
    """Return the description of a layer."""
    head = next(one for one in config["config"]["layers"] if one["name"] == "head")
    layers = [*config["config"]["layers"], *head["config"]["layers"]]
    return next(one for one in layers if one["name"] == name)


def with_config(whole: Members, change: Callable[[dict], Any]) -> Members:
    """Return the members with another configuration."""
    config = json.loads(whole["config.json"])
    change(config)
    return whole | {"config.json": json.dumps(config).encode()}


def described(module: str | None, name: str, config: Any = None, **more: Any) -> dict:
    """Return how a configuration describes an object."""
    about = {"module": module, "class_name": name, "config": config, "registered_name": None}
    return about | more


def test_code_of_a_lambda_layer_is_never_run(whole, file):
    mark = file.with_name("mark")
    source = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    code = base64.b64encode(marshal.dumps(compile(source, "", "eval").co_consts[0])).decode()
    function = described(None, "__lambda__", {"code": code, "defaults": None, "closure": None})
    new = described("keras.layers", "Lambda", {"name": "inner", "function": function})
    write(file, with_config(whole, lambda config: layer(config, "inner").update(new)))
    with SafeModeScope(False):  # As for a user who has switched Keras' own check off.
        refuse(file, r"is refused: it holds custom code .*\('None': '__lambda__'\)")
        assert not mark.exists()
        keras.saving.load_model(file)
    assert mark.exists()  # Plain Keras runs it.


EVIL = described("os", "system", {"command": "touch mark"})
# Other classes and functions in place of a layer, or anywhere else, and other ways to name them.
LAYERS = [
    EVIL,
    described("keras.layers", "TFSMLayer", {"filepath": "saved_model"}),
    described("my_package", "Mine", {}, registered_name="my_package>Mine"),
    {"registered_name": "my_package>Dense"},
    described("keras", "layers.Lambda", {}),
    described(None, "Dense", {}),
    described("m" * 10_000, "\x1b[2J\n" * 10_000, {}),
]
PLACES: list[Callable[[dict], Any]] = [
    *(lambda config, new=new: layer(config, "inner").update(new) for new in LAYERS),
    lambda config: layer(config, "inner")["config"].update(activation=EVIL),
    lambda config: layer(config, "head").update(compile_config={"loss": [EVIL]}),
    lambda config: layer(config, "inner")["inbound_nodes"][0].update(kwargs={"a": [{"b": EVIL}]}),
]


@pytest.mark.parametrize("change", PLACES)
@pytest.mark.usefixtures("untouched")
def test_other_parts_than_a_classifier_needs_are_refused(change, whole, file):
    write(file, with_config(whole, change))
    refuse(file, r"is refused: it holds custom code or parts that a classifier does not need \(")
