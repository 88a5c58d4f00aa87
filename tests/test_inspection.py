"""Tests of what is refused before anything of a saved file is loaded, and of its card."""

import base64
import io
import json
import marshal
import os
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.saving.serialization_lib import SafeModeScope

from fashion_keras import archive, inspection
from fashion_keras.config import InputError
from fashion_keras.inspection import OLDEST_KERAS, check_file, name_of, read_card
from fashion_keras.saving import load_model

CARD = {"format": 1, "labels": ["dress", "Schuhe für Kinder", 't-shirt "V"'], "image_size": 8}
RELEASED = Path(__file__).parents[1] / "fashion_keras" / "released" / "fashion.keras"


def small_model(name: str) -> keras.Model:
    """Return a classifier of three classes with hardly any weights, one model within another."""
    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    vector = keras.Input((2,))
    inner = keras.layers.Dense(3, activation="relu", name="inner")
    head = keras.Model(vector, inner(vector), name="head")
    x = keras.layers.Resizing(8, 8, name="resize")(pixels)
    x = keras.layers.Conv2D(2, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Softmax(name=name)(head(x)))


def members_of(model: keras.Model, file: Path) -> dict[str, bytes]:
    """Save a model with plain Keras and return the members of the file by name."""
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the members of a file that may be loaded."""
    file = tmp_path_factory.mktemp("whole") / "whole.keras"
    members = members_of(small_model(name_of(CARD)), file)
    return members | {"fashion.json": json.dumps(CARD).encode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the name of the file that a test makes."""
    return tmp_path / "our.keras"


def write(file: Path, members: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> None:
    """Write a `.keras` file by hand."""
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_config(whole: dict[str, bytes], change: Callable[[dict], Any]) -> dict[str, bytes]:
    """Return the members with another configuration."""
    config = json.loads(whole["config.json"])
    change(config)
    return whole | {"config.json": json.dumps(config).encode()}


def with_name(whole: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Return the members, as plain Keras writes them, with another name of the last layer."""
    content = whole["config.json"].replace(name_of(CARD).encode(), name.encode())
    kept = {key: value for key, value in whole.items() if key != "fashion.json"}
    return kept | {"config.json": content}


def with_weights(whole: dict[str, bytes], change: Callable[[h5py.File], Any]) -> dict[str, bytes]:
    """Return the members with other weights."""
    changed = io.BytesIO(whole["model.weights.h5"])
    with h5py.File(changed, "r+") as weights:
        change(weights)
    return whole | {"model.weights.h5": changed.getvalue()}


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a file gets as far as Keras."""

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("Keras was asked to load the file")

    monkeypatch.setattr("keras.saving.load_model", load)


def refuse(file: Path, message: str) -> None:
    """Assert that a file is neither checked nor loaded, with one line that begins with its name."""
    for act in (check_file, load_model):
        with pytest.raises(InputError, match=message) as caught:
            act(file)
        assert str(caught.value).startswith(f"{file} ")
        assert "\n" not in str(caught.value)


def test_whole_file_is_loaded_and_tells_its_card(whole: dict[str, bytes], file: Path) -> None:
    write(file, whole)
    assert read_card(file) == check_file(file) == CARD
    model, card = load_model(file)
    assert card == CARD
    for found, weight in zip(
        model.get_weights(), small_model("same").get_weights(), strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(found, weight)


def test_file_of_any_name_is_loaded(whole: dict[str, bytes], tmp_path: Path) -> None:
    write(tmp_path / "download(1)", whole, zipfile.ZIP_DEFLATED)
    assert load_model(tmp_path / "download(1)")[1] == CARD


def test_released_file_is_accepted() -> None:
    card = check_file(RELEASED)
    assert (len(card["labels"]), card["image_size"]) == (10, 299)


# What is no `.keras` file at all, or not a whole one.


def test_missing_file_names_the_command_that_makes_one(file: Path) -> None:
    for act in (read_card, check_file, load_model):
        with pytest.raises(InputError, match=r"^No model file .*; `python -m fashion_keras.final`"):
            act(file)


SORTS = {
    "text": (b"<html>404 not found</html>", r"is not a \.keras file: File is not a zip"),
    "empty": (b"", r"is not a \.keras file but empty: "),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), r"is not a \.keras file but HDF5, such as older"),
    "zip that ends early": (b"PK\x03\x04" + bytes(99), r"is cut off or damaged \(copy or "),
}


@pytest.mark.parametrize("sort", SORTS)
def test_file_of_another_sort_is_refused(sort: str, file: Path) -> None:
    content, message = SORTS[sort]
    file.write_bytes(content)
    refuse(file, message)
    with pytest.raises(InputError, match=message):
        read_card(file)


def test_real_hdf5_is_refused(file: Path) -> None:
    with h5py.File(file, "w") as weights:
        weights["layers"] = np.ones(3)
    refuse(file, r"is not a \.keras file but HDF5")


def test_other_zip_is_refused(file: Path) -> None:
    write(file, {"readme.txt": b"hello"})
    refuse(file, r"is not a \.keras file: it is a zip without config\.json\.$")


def test_folder_is_refused(whole: dict[str, bytes], file: Path) -> None:
    file.mkdir()
    for name, content in whole.items():  # Keras itself would load such a folder.
        (file / name).write_bytes(content)
    refuse(file, r"is not a \.keras file but a folder or a device\.$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_pipe_is_refused_at_once(file: Path) -> None:
    os.mkfifo(file)
    refuse(file, r"is not a \.keras file but a folder or a device\.$")


def test_file_that_cannot_be_opened_is_refused(file: Path) -> None:
    file.write_text("a file, not a folder")
    refuse(file / "our.keras", r"cannot be opened: Not a directory\.$")


def test_file_that_is_cut_off_anywhere_is_refused(whole: dict[str, bytes], file: Path) -> None:
    write(file, whole, zipfile.ZIP_DEFLATED)
    content = file.read_bytes()
    for length in [*range(2, len(content), len(content) // 50), len(content) - 1]:
        file.write_bytes(content[:length])
        refuse(file, r"is cut off or damaged \(copy or download it again\): ")


def data_of(file: Path, name: str) -> int:
    """Return where the content of a member begins."""
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(name).header_offset
    lengths = struct.unpack("<HH", file.read_bytes()[start + 26 : start + 30])
    return start + 30 + sum(lengths)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "fashion.json"])
def test_flipped_bit_is_found(name: str, whole: dict[str, bytes], file: Path) -> None:
    write(file, whole)
    content = bytearray(file.read_bytes())
    content[data_of(file, name) + len(whole[name]) // 2] ^= 1
    file.write_bytes(content)
    refuse(file, rf"is cut off or damaged \(.*\): Bad CRC-32 for file '{name}'$")


def test_flipped_bits_in_compressed_members_are_found(whole: dict[str, bytes], file: Path) -> None:
    write(file, whole, zipfile.ZIP_DEFLATED)
    content, reasons = file.read_bytes(), []
    first, last = data_of(file, "config.json"), data_of(file, "fashion.json") - 50
    for place in range(first, last, 20):
        file.write_bytes(content[:place] + bytes([content[place] ^ 32]) + content[place + 1 :])
        try:
            card, members = inspection.checked_members(file)
        except InputError as error:
            reasons.append(str(error))
        else:  # The same content can be compressed in more than one way.
            assert (card, set(members)) == (CARD, {"config.json", "model.weights.h5"})
            assert members["model.weights.h5"] == whole["model.weights.h5"]
    assert len(reasons) > 100
    assert all(reason.startswith(f"{file} is cut off or damaged (copy ") for reason in reasons)


@pytest.mark.parametrize(
    "error",
    [
        *(zipfile.BadZipFile("a"), zlib.error("a"), struct.error("a"), EOFError("a")),
        *(RuntimeError("a"), NotImplementedError("a"), ValueError("a"), OverflowError("a")),
    ],
)
def test_whatever_reading_a_zip_raises_becomes_one_line(
    error: Exception, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole)
    with pytest.raises(InputError) as caught, archive.opened(file):
        raise error
    assert str(caught.value) == f"{file} is cut off or damaged (copy or download it again): a"


@pytest.mark.parametrize("value", [0, 255])
def test_wrong_bytes_around_the_members_never_cause_another_error(
    value: int, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole)
    content, refused = file.read_bytes(), 0
    starts = [data_of(file, name) - 30 - len(name) for name in whole]
    places = [place for start in starts for place in range(start, start + 50)]
    for place in [*places, *range(content.rindex(b"PK\1\2") - 200, len(content))]:
        file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        try:
            assert check_file(file) == CARD
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe\xfd", b"[" * 200_000])
def test_configuration_that_is_not_json_is_refused(
    text: bytes, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole | {"config.json": text})
    refuse(file, r"is damaged: its config\.json is not JSON\.$")


@pytest.mark.parametrize("text", [b"[]", b"1", b'"config"', b"null"])
def test_configuration_that_is_no_object_is_refused(
    text: bytes, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole | {"config.json": text})
    refuse(file, r"is damaged: its config\.json is not a JSON object\.$")


def test_deeply_nested_configuration_is_refused(whole: dict[str, bytes], file: Path) -> None:
    deep = json.loads("[" * 900 + "]" * 900)  # JSON can still be read, but not by all of Keras.

    def change(config: dict) -> None:
        layer(config, "inner")["inbound_nodes"][0]["kwargs"] = {"training": deep}

    write(file, with_config(whole, change))
    with pytest.raises(InputError, match=r"cannot be loaded: .*recursion"):
        load_model(file)


def test_file_without_weights_is_refused(whole: dict[str, bytes], file: Path) -> None:
    write(file, {name: content for name, content in whole.items() if name != "model.weights.h5"})
    assert read_card(file) == CARD
    refuse(file, r"is not a \.keras file: it is a zip without model\.weights\.h5\.$")


def test_weights_that_are_not_hdf5_are_refused(whole: dict[str, bytes], file: Path) -> None:
    write(file, whole | {"model.weights.h5": b"weights"})
    refuse(file, r"is damaged: its model\.weights\.h5: .*file signature not found")


@pytest.mark.filterwarnings("ignore")  # As for a user: Keras' warnings are no errors.
@pytest.mark.parametrize("shape", [(7,), None])
def test_weights_that_are_missing_or_of_another_shape_are_refused_in_one_line(
    shape: tuple[int] | None, whole: dict[str, bytes], file: Path
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


def test_long_error_of_keras_becomes_one_line(whole: dict[str, bytes], file: Path) -> None:
    write(file, with_config(whole, lambda config: in_config("unknown")(config, {"a": "b " * 999})))
    with pytest.raises(TypeError, match="\n") as of_keras:
        keras.saving.load_model(file)
    with pytest.raises(InputError, match=r"our\.keras cannot be loaded: .*\[\.\.\.\]$") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= len(f"{file} cannot be loaded: ") + 300
    assert len(str(of_keras.value)) > 600


def test_labels_for_other_classes_are_refused(whole: dict[str, bytes], file: Path) -> None:
    write(file, with_name(whole, name_of(CARD | {"labels": ["a", "b"]})))
    with pytest.raises(InputError, match=r"damaged: its model does not tell its 2 labels apart\.$"):
        load_model(file)


@pytest.mark.parametrize("form", [list, lambda outputs: {"a": outputs[0]}])
def test_model_with_outputs_of_another_form_is_refused(
    form: Callable[[list], Any], file: Path
) -> None:
    model = small_model(name_of(CARD))
    keras.Model(model.inputs, form([model.output, model.output])).save(file)
    with pytest.raises(InputError, match=r"damaged: its model does not tell its 3 labels apart\.$"):
        load_model(file)


# The card.


@pytest.mark.parametrize("functional", [True, False])
def test_model_without_labels_names_the_command_that_writes_them(
    functional: bool, file: Path
) -> None:
    inputs, layer = keras.Input((2,)), keras.layers.Dense(1)
    model = keras.Model(inputs, layer(inputs)) if functional else keras.Sequential([inputs, layer])
    model.save(file)
    refuse(file, r"holds no labels: .*`python -m fashion_keras.final` makes such a file\.$")


def packed(text: bytes) -> str:
    """Return the name of a layer that holds any text in the place of a card."""
    return "facts_" + base64.urlsafe_b64encode(text).decode().rstrip("=")


NAMES = {
    "too short": "facts_a",
    "not ASCII": "facts_äöü",
    "not JSON": packed(b'{"a": '),
    "not UTF-8": packed(b"\xff\xff\xff\xff"),
    "deep": packed(b"[" * 200_000),
    "a list": packed(b'["format"]'),
    "empty": packed(b"{}"),
    "without a format": packed(b'{"labels": ["a"], "image_size": 8}'),
    "format is text": packed(b'{"format": "1", "labels": ["a"], "image_size": 8}'),
    "format is true": packed(b'{"format": true, "labels": ["a"], "image_size": 8}'),
    "other prefix": name_of(CARD).replace("facts_", "fact_"),
}


@pytest.mark.parametrize("sort", NAMES)
def test_names_that_only_look_like_a_card_are_refused(
    sort: str, whole: dict[str, bytes], file: Path
) -> None:
    write(file, with_name(whole, NAMES[sort]))
    refuse(file, "holds no labels: it was not saved by this project")


@pytest.mark.parametrize(
    "labels", [None, "abc", [], {}, {"a": 1}, 3, [1, 2, 3], ["a", None, "c"], ["a", "b", "\x1b[2J"]]
)
def test_labels_that_are_no_names_are_refused(
    labels: Any, whole: dict[str, bytes], file: Path
) -> None:
    write(file, with_name(whole, name_of(CARD | {"labels": labels})))
    refuse(file, "holds no labels: it was not saved by this project")


@pytest.mark.parametrize("size", [None, 0, -8, 8.0, "8", True, [8]])
def test_card_without_a_size_is_refused(size: Any, whole: dict[str, bytes], file: Path) -> None:
    write(file, with_name(whole, name_of(CARD | {"image_size": size})))
    refuse(file, r"is damaged: it does not tell the size of its photos\.$")


@pytest.mark.parametrize("layers", [None, 1, "layers", {"a": 1}, [1], [{}], [{"config": []}], []])
def test_configuration_of_another_form_has_no_labels(
    layers: Any, whole: dict[str, bytes], file: Path
) -> None:
    write(file, with_config(whole, lambda config: config["config"].update(layers=layers)))
    refuse(file, "holds no labels: it was not saved by this project")


@pytest.mark.parametrize(
    "card", [CARD | {"format": 2}, {"format": 2, "classes": {"a": 0}, "side": [8, 8]}]
)
def test_newer_format_is_refused_whatever_else_it_holds(
    card: dict, whole: dict[str, bytes], file: Path
) -> None:
    newer = with_name(whole, name_of(card)) | {"model.weights.zarr": b"", "fashion.json": b"?"}
    del newer["model.weights.h5"]
    write(file, newer)
    refuse(file, r"has format 2; this version .* reads formats up to 1\. Install a newer one\.$")
    with pytest.raises(InputError, match="has format 2; "):
        read_card(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(CARD | {"labels": ["a", "b", "c"]}), "differs from what the model itself"),
        ("{}", "differs from what the model itself tells"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
    ],
)
def test_card_in_plain_sight_that_tells_something_else_is_refused(
    text: str, message: str, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole | {"fashion.json": text.encode()})
    refuse(file, rf"is damaged: its fashion\.json {message}")
    assert read_card(file) == CARD


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


def touching(mark: Path) -> str:
    """Return the code of a function, as Keras packs it, that makes a file and returns its input."""
    source = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    code = compile(source, "<file>", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def lambda_layer(mark: Path) -> dict:
    """Return a `Lambda` layer in place of the head's only layer."""
    code = {"code": touching(mark), "defaults": None, "closure": None}
    return described(
        "keras.layers", "Lambda", {"name": "inner", "function": described(None, "__lambda__", code)}
    )


@pytest.mark.parametrize("module", ["keras.layers", "keras"])
def test_code_of_a_lambda_layer_is_never_run(
    module: str, whole: dict[str, bytes], file: Path
) -> None:
    mark = file.with_name("mark")
    new = lambda_layer(mark) | {"module": module}
    new["class_name"] = "layers.Lambda" if module == "keras" else "Lambda"
    write(file, with_config(whole, lambda config: layer(config, "inner").update(new)))
    with SafeModeScope(False):  # As for a user who has switched Keras' own check off.
        refuse(file, rf"is refused: it holds custom code .*\('{module}': '{new['class_name']}'\)")
        assert not mark.exists()
        keras.saving.load_model(file)
    assert mark.exists()  # That code is run by whoever runs it.


def function(module: str, name: str) -> dict:
    """Return how a configuration describes a function."""
    return described(module, "function", name, registered_name="function")


LAMBDA = {"value": touching(Path("mark")), "defaults": None, "closure": None}
TOUCH = {"command": "touch mark"}
# What stands in place of a layer: any other class or function, and any other way to name one.
LAYERS = {
    "TFSMLayer": described("keras.layers", "TFSMLayer", {"filepath": "saved_model"}),
    "TFSMLayer, dotted": described("keras", "layers.TFSMLayer", {"filepath": "saved_model"}),
    "TorchModuleWrapper": described("keras.layers", "TorchModuleWrapper", {"module": "pickle"}),
    "StringLookup": described("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
    "StringLookup, dotted": described("keras", "layers.StringLookup", {"vocabulary": "passwd"}),
    "TextVectorization": described("keras.layers", "TextVectorization", {"vocabulary": "passwd"}),
    "custom": described("my_package", "Mine", {}, registered_name="my_package>Mine"),
    "custom, disguised": {"registered_name": "my_package>Dense"},
    "subclass": described("keras", "Model", {}, registered_name="Model"),
    "private class": described("keras.src.layers.core.lambda_layer", "Lambda", {}),
    "no module": described(None, "Dense", {}),
    "os.system": described("os", "system", TOUCH, registered_name="system"),
    "Keras Hub": described("keras_hub.layers", "Dense", {}),
    "module is a list": described(["keras.layers"], "Dense", {}),  # type: ignore[arg-type]
    "class is a list": {"class_name": ["Dense"]},
    "typespec": described("os", "__typespec__", ["id"], spec_name="system"),
}
# What stands in place of an activation.
ACTIVATIONS = {
    "lambda": described(None, "__lambda__", LAMBDA),
    "lambda, disguised": described("keras", "__lambda__", LAMBDA, registered_name="__lambda__"),
    "os.system": function("os", "system"),
    "builtins": function("builtins", "eval"),
    "download": function("keras", "datasets.mnist.load_data"),
    "unsafe": function("keras", "config.enable_unsafe_deserialization"),
    "plain": function("keras.activations", "relu"),
    "initializers": function("keras.initializers", "deserialize"),
    "layer": described("keras.layers", "Lambda", {}),
    "numpy": described(None, "__numpy__", {"value": [1], "dtype": "object"}),
    "nested": {"a": [{"b": described("os", "system", TOUCH)}]},
}


@pytest.mark.parametrize("sort", LAYERS)
@pytest.mark.usefixtures("untouched")
def test_other_parts_than_a_classifier_needs_are_refused(
    sort: str, whole: dict[str, bytes], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    write(file, with_config(whole, lambda config: layer(config, "inner").update(LAYERS[sort])))
    refuse(file, r"is refused: it holds custom code or parts that a classifier does not need \(")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("sort", ACTIVATIONS)
@pytest.mark.usefixtures("untouched")
def test_other_activations_than_names_are_refused(
    sort: str, whole: dict[str, bytes], file: Path
) -> None:
    new = ACTIVATIONS[sort]
    write(
        file,
        with_config(whole, lambda config: layer(config, "inner")["config"].update(activation=new)),
    )
    refuse(file, r"is refused: it holds custom code or parts that a classifier does not need \(")


def in_config(key: str) -> Callable[[dict, dict], Any]:
    """Return a change that sets a key of a layer's own configuration."""
    return lambda config, evil: layer(config, "inner")["config"].update({key: evil})


PLACES: dict[str, Callable[[dict, dict], Any]] = {
    "initializer": in_config("kernel_initializer"),
    "regularizer": in_config("kernel_regularizer"),
    "constraint": in_config("bias_constraint"),
    "dtype policy": in_config("dtype"),
    "quantization": in_config("quantization_config"),
    "unknown key": in_config("anything"),
    "build_config of a layer": lambda config, evil: layer(config, "inner").update(
        build_config={"input_shape": evil}
    ),
    "compile_config of the head": lambda config, evil: layer(config, "head").update(
        compile_config={"loss": [evil]}
    ),
    "argument of a call": lambda config, evil: layer(config, "inner")["inbound_nodes"][0].update(
        kwargs={"training": evil}
    ),
    "reference to a tensor": lambda config, evil: layer(config, "inner")["inbound_nodes"][0][
        "args"
    ][0]["config"].update(shape=evil),
    "top": lambda config, evil: config.update(evil=evil),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("untouched")
def test_code_is_found_wherever_it_hides(place: str, whole: dict[str, bytes], file: Path) -> None:
    evil = described("os", "system", TOUCH)
    write(file, with_config(whole, lambda config: PLACES[place](config, evil)))
    refuse(file, r"is refused: .* need \('os': 'system'\)\.$")


@pytest.mark.usefixtures("untouched")
def test_compilation_of_the_model_is_left_out(whole: dict[str, bytes], file: Path) -> None:
    compiled = {"optimizer": described("os", "system", TOUCH)}
    write(file, with_config(whole, lambda config: config.update(compile_config=compiled)))
    _, members = inspection.checked_members(file)
    assert b"system" not in members["config.json"]


def test_key_that_is_given_twice_is_read_as_keras_reads_it(
    whole: dict[str, bytes], file: Path
) -> None:
    both = b'"class_name": "Dense", "class_name": "Lambda"'
    text = whole["config.json"].replace(b'"class_name": "Dense"', both)
    write(file, whole | {"config.json": text})
    refuse(file, r"is refused: .* need \('keras\.layers': 'Lambda'\)\.$")


def test_long_names_of_parts_make_no_long_message(whole: dict[str, bytes], file: Path) -> None:
    new = described("m" * 10_000, "\x1b[2J\n" * 10_000, {})
    write(file, with_config(whole, lambda config: layer(config, "inner").update(new)))
    refuse(file, r"is refused: .*\('m{98}: '\\x1b\[2J\\n")
    with pytest.raises(InputError) as caught:
        check_file(file)
    assert len(str(caught.value)) < len(str(file)) + 300


# Other files, by way of the weights.


def arrays_of(weights: h5py.File) -> list[str]:
    """Return the places of all arrays."""
    places: list[str] = []
    weights.visititems(lambda name, item: places.append(name) if hasattr(item, "shape") else None)
    return places


def external_link(weights: h5py.File, place: str, other: Path) -> None:
    del weights[place]
    weights[place] = h5py.ExternalLink(str(other), "secret")


def external_group(weights: h5py.File, place: str, other: Path) -> None:
    del weights["layers"]
    weights["layers"] = h5py.ExternalLink(str(other), "/")


def soft_link(weights: h5py.File, place: str, other: Path) -> None:
    weights.move(place, "elsewhere")
    weights[place] = h5py.SoftLink("/elsewhere")


def broken_link(weights: h5py.File, place: str, other: Path) -> None:
    weights["more"] = h5py.SoftLink("/nowhere")


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


def unused_dataset(weights: h5py.File, place: str, other: Path) -> None:
    storage = [(str(other), 0, h5py.h5f.UNLIMITED)]
    weights.create_dataset("never/read", (9,), "uint8", external=storage)


def cycle(weights: h5py.File, place: str, other: Path) -> None:
    weights["layers/again"] = weights["layers"]


def cycle_to_the_root(weights: h5py.File, place: str, other: Path) -> None:
    weights["layers/again"] = weights["/"]


def two_names(weights: h5py.File, place: str, other: Path) -> None:
    weights["again"] = weights[place]


def many_ways(weights: h5py.File, place: str, other: Path) -> None:
    group = weights
    for number in range(60):  # A walk along every way would never end.
        inner = weights.create_group(f"group_{number}")
        group["a"] = group["b"] = inner
        group = inner


def other_filter(weights: h5py.File, place: str, other: Path) -> None:
    weights.create_dataset("more", data=np.ones(99), compression="lzf")


def named_type(weights: h5py.File, place: str, other: Path) -> None:
    weights["type"] = np.dtype("float32")


CHANGES = [
    *(external_link, external_group, soft_link, broken_link, external_storage, virtual_dataset),
    *(unused_dataset, cycle, cycle_to_the_root, two_names, many_ways, other_filter, named_type),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("untouched")
def test_weights_that_are_not_in_the_file_are_refused(
    change: Any, whole: dict[str, bytes], file: Path
) -> None:
    other = file.with_name("other.h5")
    with h5py.File(other, "w") as weights:
        weights["secret"] = np.ones((3, 3, 3, 2), "float32")

    def change_all(weights: h5py.File) -> None:
        change(weights, arrays_of(weights)[0], other)

    write(file, with_weights(whole, change_all))
    refuse(file, r"is refused: its weights are not all in the file itself \('/[a-z0-9_/]+'\)\.$")


def test_compressed_weights_are_accepted(whole: dict[str, bytes], file: Path) -> None:
    def compress(weights: h5py.File) -> None:
        for place in arrays_of(weights):
            values: Any = weights[place]
            values = values[()]
            del weights[place]
            weights.create_dataset(place, data=values, compression="gzip", shuffle=True)

    write(file, with_weights(whole, compress))
    assert load_model(file)[1] == CARD


# The zip.


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "fashion.json"])
def test_two_members_of_one_name_are_refused(
    name: str, whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, whole[name])
    refuse(file, rf"is refused: it holds '{name}', twice\.$")


@pytest.mark.parametrize(
    "name",
    [
        *("model.weights.npz", "model.weights.json", "model_00000.weights.h5", "assets/a.txt"),
        *("../outside.txt", "/outside.txt", "assets/", "CONFIG.JSON", "a\nb"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_other_members_are_refused(name: str, whole: dict[str, bytes], file: Path) -> None:
    write(file, whole | {name: b""})
    refuse(file, r"is refused: it holds '[^\n]+', which is no part of a classifier\.$")
    assert read_card(file) == CARD


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(packed: int, whole: dict[str, bytes], file: Path) -> None:
    write(file, whole, packed)
    refuse(file, r"is refused: its config\.json is encrypted or packed unusually\.$")


def overwrite(file: Path, name: str, local: int, central: int, value: bytes) -> None:
    """Overwrite a field of a member in both of its headers."""
    content = bytearray(file.read_bytes())
    start = data_of(file, name) - 30 - len(name)
    directory = content.index(name.encode(), content.index(b"PK\1\2")) - 46
    content[start + local : start + local + len(value)] = value
    content[directory + central : directory + central + len(value)] = value
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "fashion.json"])
def test_encrypted_member_is_refused(name: str, whole: dict[str, bytes], file: Path) -> None:
    write(file, whole)
    overwrite(file, name, 6, 8, b"\1")
    refuse(file, rf"is refused: its {name} is encrypted or packed unusually\.$")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "fashion.json"])
def test_member_that_is_too_large_is_refused(
    name: str, whole: dict[str, bytes], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, whole)
    size = len(whole[name])
    monkeypatch.setitem(archive._LARGEST, name, size)
    assert check_file(file) == CARD
    monkeypatch.setitem(archive._LARGEST, name, size - 1)
    refuse(file, rf"is refused: its {name} has over {size - 1} bytes\.$")


def test_member_that_claims_to_be_huge_is_refused(whole: dict[str, bytes], file: Path) -> None:
    write(file, whole)
    overwrite(file, "config.json", 22, 24, struct.pack("<I", 4_000_000_000))
    refuse(file, r"is refused: its config\.json has over 50000000 bytes\.$")


def test_member_that_claims_to_be_small_is_not_unpacked_further(
    whole: dict[str, bytes], file: Path
) -> None:
    write(file, whole | {"config.json": b" " * 100_000_000}, zipfile.ZIP_DEFLATED)
    overwrite(file, "config.json", 22, 24, struct.pack("<I", 100))
    tracemalloc.start()
    refuse(file, r"is cut off or damaged \(.*\): Bad CRC-32 for file 'config\.json'$")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


# The installed Keras.


def neighbours() -> Iterator[tuple[str, bool]]:
    """Yield versions around the oldest one, and whether they are old enough to be refused."""
    major, minor, patch = OLDEST_KERAS
    yield "2.15.0", True
    yield f"{major}.{minor - 1}.99", True
    yield f"{major}.{minor - 1}.0.dev1", True
    if patch:
        yield f"{major}.{minor}.{patch - 1}", True
    yield f"{major}.{minor}.{patch}", False
    yield f"{major}.{minor}.{patch + 10}", False
    yield f"{major}.{minor + 1}.0", False
    yield f"{major}.{minor + 1}.0.dev1", False
    yield f"{major}.{minor + 1}.0rc0", False
    yield "3.16.0.dev1", False
    yield f"{major + 1}.0.0", False


@pytest.mark.parametrize(("version", "refused"), list(neighbours()))
def test_keras_that_is_too_old_is_refused(
    version: str, refused: bool, whole: dict[str, bytes], file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write(file, whole)
    monkeypatch.setattr("keras.__version__", version)
    if not refused:
        assert check_file(file) == CARD
        return
    oldest = ".".join(map(str, OLDEST_KERAS))
    for act in (check_file, load_model):
        with pytest.raises(InputError) as caught:
            act(file)
        assert str(caught.value) == (
            f"Saved classifiers need Keras {oldest} or newer. Installed: {version}. "
            "Run `pip install --upgrade keras`."
        )
    assert read_card(file) == CARD  # The card needs no Keras at all.


def test_keras_of_this_environment_is_new_enough() -> None:
    inspection.check_keras()
