"""Tests of what is refused before anything of a saved file is loaded, and of its metadata."""

import base64
import importlib.metadata
import io
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.saving.serialization_lib import SafeModeScope

from fashion_keras.config import InputError
from fashion_keras.inspection import (
    OLDEST_KERAS,
    check_file,
    checked_members,
    layer_name,
    read_metadata,
)
from fashion_keras.saving import RELEASED, load_model

METADATA = {"format": 1, "labels": ["dress", "Schuhe für Kinder", 't-shirt "V"'], "image_size": 8}
Members = dict[str, bytes]


def small_model(name: str) -> keras.Model:
    """Return a classifier of three classes with hardly any weights, one model within another."""
    keras.utils.set_random_seed(1)
    pixels, features = keras.Input((None, None, 3)), keras.Input((2,))
    inner = keras.layers.Dense(3, activation="relu", name="inner")
    head = keras.Model(features, inner(features), name="head")
    x = keras.layers.Resizing(8, 8, name="resize")(pixels)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, name="conv")(x))
    return keras.Model(pixels, keras.layers.Softmax(name=name)(head(x)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """Return the members of a file that may be loaded."""
    file = tmp_path_factory.mktemp("whole") / "whole.keras"
    small_model(layer_name(METADATA)).save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the name of the file that a test makes."""
    return tmp_path / "our.keras"


def write(file: Path, members: Members, packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_config(whole: Members, change: Callable[[dict], Any]) -> Members:
    """Return the members with another configuration."""
    config = json.loads(whole["config.json"])
    change(config)
    return whole | {"config.json": json.dumps(config).encode()}


def with_name(whole: Members, name: str) -> Members:
    """Return the members with another name of the last layer."""
    config = whole["config.json"].replace(layer_name(METADATA).encode(), name.encode())
    return whole | {"config.json": config}


def with_weights(whole: Members, change: Callable[[h5py.File], Any]) -> Members:
    """Return the members with other weights."""
    changed = io.BytesIO(whole["model.weights.h5"])
    with h5py.File(changed, "r+") as weights:
        change(weights)
    return whole | {"model.weights.h5": changed.getvalue()}


def refuse(file: Path, message: str) -> None:
    """Assert that a file is neither checked nor loaded, with one line that begins with its name."""
    for act in (check_file, load_model):
        with pytest.raises(InputError, match=message) as caught:
            act(file)
        assert str(caught.value).startswith(f"{file} ")
        assert "\n" not in str(caught.value)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a file gets as far as Keras."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("Keras was called to load the file")

    monkeypatch.setattr("keras.saving.load_model", load)


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["our.keras", "download(1)"])
def test_whole_file_is_loaded(name: str, packed: int, whole: Members, tmp_path: Path) -> None:
    write(tmp_path / name, whole, packed)
    assert read_metadata(tmp_path / name) == check_file(tmp_path / name) == METADATA
    model, metadata = load_model(tmp_path / name)
    assert metadata == METADATA
    expected = small_model("same").get_weights()
    for found, weight in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, weight)


def test_released_file_is_accepted() -> None:
    metadata = check_file(RELEASED)
    assert (len(metadata["labels"]), metadata["image_size"]) == (10, 299)


def test_missing_file_names_the_command_that_makes_one(file: Path) -> None:
    for act in (read_metadata, check_file, load_model):
        with pytest.raises(InputError, match=r"^No model file .*; `python -m fashion_keras.final`"):
            act(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404 not found</html>", r"is not a \.keras file: File is not a zip"),
        (b"", r"is not a \.keras file: "),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"is not a \.keras file but HDF5, such as older"),
        (b"PK\x03\x04" + bytes(99), r"is cut off or damaged \(copy or download it again\): "),
    ],
)
def test_file_of_another_kind_is_refused(content: bytes, message: str, file: Path) -> None:
    file.write_bytes(content)
    refuse(file, message)
    with pytest.raises(InputError, match=message):
        read_metadata(file)


def test_folder_and_path_below_a_file_are_refused(file: Path) -> None:
    refuse(file.parent, r" cannot be opened: ")
    file.write_text("a file, not a folder")
    refuse(file / "our.keras", r"cannot be opened: Not a directory\.$")


def test_file_that_is_cut_off_anywhere_is_refused(whole: Members, file: Path) -> None:
    write(file, whole, zipfile.ZIP_DEFLATED)
    content = file.read_bytes()
    for length in [*range(2, len(content), len(content) // 20), len(content) - 1]:
        file.write_bytes(content[:length])
        refuse(file, r"is cut off or damaged \(copy or download it again\): ")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_flipped_bit_is_found(name: str, whole: Members, file: Path) -> None:
    write(file, whole)
    content = bytearray(file.read_bytes())
    content[content.index(whole[name]) + len(whole[name]) // 2] ^= 1
    file.write_bytes(content)
    refuse(file, rf"is cut off or damaged \(.*\): Bad CRC-32 for file '{name}'$")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_zip_without_a_member_is_refused(name: str, whole: Members, file: Path) -> None:
    write(file, {key: content for key, content in whole.items() if key != name})
    refuse(file, rf"is not a \.keras file: it is a zip without {name}\.$")


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "not JSON"), (b"\xff\xfe\xfd", "not JSON"), (b"[]", "not a JSON object")],
)
def test_configuration_that_is_no_json_object_is_refused(
    text: bytes, message: str, whole: Members, file: Path
) -> None:
    write(file, whole | {"config.json": text})
    refuse(file, rf"is damaged: its config\.json is {message}\.$")


def test_weights_that_are_not_hdf5_are_refused(whole: Members, file: Path) -> None:
    write(file, whole | {"model.weights.h5": b"weights"})
    refuse(file, r"is damaged: its model\.weights\.h5: .*file signature not found")


def arrays_of(weights: h5py.File) -> list[str]:
    """Return the places of all arrays."""
    places: list[str] = []
    weights.visititems(lambda name, item: places.append(name) if hasattr(item, "shape") else None)
    return places


@pytest.mark.filterwarnings("ignore")  # As for a user: Keras' warnings are no errors.
@pytest.mark.parametrize("shape", [(7,), None])
def test_weights_that_are_missing_or_of_another_shape_are_refused_in_one_line(
    shape: tuple[int] | None, whole: Members, file: Path
) -> None:
    def change(weights: h5py.File) -> None:
        place = arrays_of(weights)[0]
        del weights[place]
        if shape:
            weights[place] = np.ones(shape, "float32")

    write(file, with_weights(whole, change))
    with pytest.raises(InputError, match=r"our\.keras cannot be loaded: .*no matching") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= len(f"{file} cannot be loaded: ") + 300


@pytest.mark.parametrize(
    "form", [list, lambda outputs: {"a": outputs[0]}, lambda outputs: outputs[0]]
)
def test_labels_for_another_number_of_classes_are_refused(
    form: Callable[[list], Any], file: Path
) -> None:
    model = small_model(layer_name(METADATA | {"labels": ["a", "b"]}))
    keras.Model(model.inputs, form([model.output, model.output])).save(file)
    with pytest.raises(InputError, match=r"damaged: its model does not have 2 classes\.$"):
        load_model(file)


@pytest.mark.parametrize("functional", [True, False])
def test_model_without_labels_names_the_command_that_writes_them(
    functional: bool, file: Path
) -> None:
    inputs, layer = keras.Input((2,)), keras.layers.Dense(1)
    model = keras.Model(inputs, layer(inputs)) if functional else keras.Sequential([inputs, layer])
    model.save(file)
    refuse(file, r"holds no labels: .*`python -m fashion_keras.final` makes such a file\.$")


def packed(text: bytes) -> str:
    """Return the name of a layer that holds any text in the place of metadata."""
    return "facts_" + base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    "name",
    [
        "facts_a",
        "facts_äöü",
        packed(b'{"a": '),
        packed(b"\xff\xff\xff\xff"),
        packed(b'["format"]'),
        packed(b'{"labels": ["a"], "image_size": 8}'),
        packed(b'{"format": "1", "labels": ["a"], "image_size": 8}'),
        layer_name(METADATA).replace("facts_", "fact_"),
        *(
            layer_name(METADATA | {"labels": labels})
            for labels in (None, "abc", [], {"a": 1}, [1, 2], ["a", "\x1b[2J"])
        ),
    ],
)
def test_last_layer_without_labels_is_refused(name: str, whole: Members, file: Path) -> None:
    write(file, with_name(whole, name))
    refuse(file, "holds no labels: it was not saved by this project")


@pytest.mark.parametrize("size", [None, 0, -8, 8.0, "8", True])
def test_metadata_without_a_size_are_refused(size: Any, whole: Members, file: Path) -> None:
    write(file, with_name(whole, layer_name(METADATA | {"image_size": size})))
    refuse(file, r"is damaged: its metadata lack the size of photos\.$")


def test_newer_format_is_refused_whatever_else_it_holds(whole: Members, file: Path) -> None:
    newer = layer_name({"format": 2, "classes": {"a": 0}, "side": [8, 8]})
    write(file, with_name(whole, newer) | {"model.weights.h5": b"?"})
    refuse(file, r"has format 2; this version .* reads formats up to 1\. Install a newer one\.$")
    with pytest.raises(InputError, match="has format 2; "):
        read_metadata(file)


# Code and other files, by way of the configuration.


def layer(config: dict, name: str) -> dict:
    """Return the description of a layer of `small_model`."""
    head = next(one for one in config["config"]["layers"] if one["name"] == "head")
    layers = [*config["config"]["layers"], *head["config"]["layers"]]
    return next(one for one in layers if one["name"] == name)


def described(module: str | None, name: str, config: Any = None, **more: Any) -> dict:
    """Return how a configuration describes an object."""
    about = {"module": module, "class_name": name, "config": config, "registered_name": None}
    return about | more


@pytest.mark.parametrize(
    ("module", "name"), [("keras.layers", "Lambda"), ("keras", "layers.Lambda")]
)
def test_code_of_a_lambda_layer_is_never_run(
    module: str, name: str, whole: Members, file: Path
) -> None:
    mark = file.with_name("mark")
    source = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    code = base64.b64encode(marshal.dumps(compile(source, "", "eval").co_consts[0])).decode()
    function = described(None, "__lambda__", {"code": code, "defaults": None, "closure": None})
    new = described(module, name, {"name": "inner", "function": function})
    write(file, with_config(whole, lambda config: layer(config, "inner").update(new)))
    with SafeModeScope(False):  # As for a user who has switched Keras' own check off.
        refuse(file, rf"is refused: it holds custom code .*\('{module}': '{name}'\)")
        assert not mark.exists()
        keras.saving.load_model(file)
    assert mark.exists()  # Plain Keras runs it.


# What stands in place of a layer: any other class or function, and any other way to name one.
LAYERS = {
    "TFSMLayer": described("keras.layers", "TFSMLayer", {"filepath": "saved_model"}),
    "TFSMLayer, dotted": described("keras", "layers.TFSMLayer", {"filepath": "saved_model"}),
    "TorchModuleWrapper": described("keras.layers", "TorchModuleWrapper", {"module": "pickle"}),
    "StringLookup": described("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
    "custom": described("my_package", "Mine", {}, registered_name="my_package>Mine"),
    "custom, disguised": {"registered_name": "my_package>Dense"},
    "private class": described("keras.src.layers.core.lambda_layer", "Lambda", {}),
    "no module": described(None, "Dense", {}),
    "os.system": described("os", "system", {"command": "touch mark"}, registered_name="system"),
    "module is a list": described(["keras.layers"], "Dense", {}),  # type: ignore[arg-type]
    "typespec": described("os", "__typespec__", ["id"], spec_name="system"),
    "long": described("m" * 10_000, "\x1b[2J\n" * 10_000, {}),
}
EVIL = described("os", "system", {"command": "touch mark"})
PLACES: dict[str, Callable[[dict], Any]] = {
    **{
        key: lambda config, key=key: layer(config, "inner")["config"].update({key: EVIL})
        for key in ("activation", "kernel_initializer", "bias_constraint", "dtype", "anything")
    },
    "build_config": lambda config: layer(config, "inner").update(build_config={"shape": EVIL}),
    "compile_config of the head": lambda config: layer(config, "head").update(
        compile_config={"loss": [EVIL]}
    ),
    "argument of a call": lambda config: layer(config, "inner")["inbound_nodes"][0].update(
        kwargs={"training": [{"a": [EVIL]}]}
    ),
    "reference to a tensor": lambda config: layer(config, "inner")["inbound_nodes"][0]["args"][0][
        "config"
    ].update(shape=EVIL),
    "top": lambda config: config.update(evil=EVIL),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.usefixtures("untouched")
def test_other_parts_than_a_classifier_needs_are_refused(
    kind: str, whole: Members, file: Path
) -> None:
    write(file, with_config(whole, lambda config: layer(config, "inner").update(LAYERS[kind])))
    refuse(file, r"is refused: it holds custom code or parts that a classifier does not need \(")
    with pytest.raises(InputError) as caught:
        check_file(file)
    assert len(str(caught.value)) < len(str(file)) + 300


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("untouched")
def test_code_is_found_wherever_it_hides(place: str, whole: Members, file: Path) -> None:
    write(file, with_config(whole, PLACES[place]))
    refuse(file, r"is refused: .* need \('os': 'system'\)\.$")


@pytest.mark.usefixtures("untouched")
def test_compilation_of_the_model_is_left_out(whole: Members, file: Path) -> None:
    write(
        file, with_config(whole, lambda config: config.update(compile_config={"optimizer": EVIL}))
    )
    assert b"system" not in checked_members(file)[1]["config.json"]


# Other files, by way of the weights.


def external_link(weights: h5py.File, place: str, other: Path) -> None:
    del weights[place]
    weights[place] = h5py.ExternalLink(str(other), "secret")


def external_group(weights: h5py.File, place: str, other: Path) -> None:
    del weights["layers"]
    weights["layers"] = h5py.ExternalLink(str(other), "/")


def soft_link(weights: h5py.File, place: str, other: Path) -> None:
    weights.move(place, "elsewhere")
    weights[place] = h5py.SoftLink("/elsewhere")


def external_storage(weights: h5py.File, place: str, other: Path) -> None:
    shape = weights[place].shape  # type: ignore[union-attr]
    del weights[place]
    storage = [(str(other), 0, h5py.h5f.UNLIMITED)]
    weights.create_dataset(place, shape, "float32", external=storage)


def virtual_dataset(weights: h5py.File, place: str, other: Path) -> None:
    shape = weights[place].shape  # type: ignore[union-attr]
    del weights[place]
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource(str(other), "secret", shape)
    weights.create_virtual_dataset(place, layout)


@pytest.mark.parametrize(
    "change", [external_link, external_group, soft_link, external_storage, virtual_dataset]
)
@pytest.mark.usefixtures("untouched")
def test_weights_that_are_not_in_the_file_are_refused(
    change: Any, whole: Members, file: Path
) -> None:
    other = file.with_name("other.h5")
    with h5py.File(other, "w") as weights:
        weights["secret"] = np.ones((3, 3, 3, 2), "float32")
    write(file, with_weights(whole, lambda weights: change(weights, arrays_of(weights)[0], other)))
    refuse(file, r"is refused: its weights are not all in the file itself \('[a-z0-9_/]+'\)\.$")


def test_cycle_of_groups_ends(whole: Members, file: Path) -> None:
    def change(weights: h5py.File) -> None:
        weights["layers/again"] = weights["/"]

    write(file, with_weights(whole, change))
    assert check_file(file) == METADATA


# The installed Keras.

MAJOR, MINOR, _ = OLDEST_KERAS


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("2.15.0", True),
        (f"{MAJOR}.{MINOR - 1}.99", True),
        (f"{MAJOR}.{MINOR}.0", False),
        (f"{MAJOR}.{MINOR + 1}.0.dev1", False),
        (f"{MAJOR}.{MINOR + 1}.0rc0", False),
    ],
)
def test_keras_that_is_too_old_is_refused(
    version: str, refused: bool, whole: Members, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, whole)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert read_metadata(file) == METADATA  # The metadata need no Keras at all.
    if not refused:
        assert check_file(file) == METADATA
        return
    with pytest.raises(InputError, match=rf"need Keras 3\.15\.0 or newer\. Installed: {version}\."):
        check_file(file)
