"""Tests of exports: equal probabilities, labels inside, nothing half or wrong under their names."""

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.artifacts import only_one
from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.backend import keras, quiet
from fashion_keras.classifier import CLASS_MEANS, NONE, NOVELTY, distances, load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.export.__main__ import export_classifier, main, options
from fashion_keras.export.formats import FORMATS
from fashion_keras.export.runtimes import Opened, open_export, read_photos
from fashion_keras.inspection import read_metadata
from fashion_keras.model import build_head
from fashion_keras.novelty import class_means, to_bytes
from fashion_keras.saving import add_metadata, save_classifier
from tests.builders import contents, options_of
from tests.conftest import small_backbone

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"', "<hat> & 服装"]
KINDS = [(name, half) for name in FORMATS for half in (False, True)[: 1 + FORMATS[name].half]]


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype="uint8")


PHOTOS = [photo(90, 120), photo(71, 71), photo(130, 80)]


def needed(name: str) -> None:
    """Skip a test whose format needs packages that are not installed."""
    for package in FORMATS[name].packages:
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}: pip install 'fashion_keras[export]'")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a classifier whose probabilities differ much from photo to photo."""
    backbone = small_backbone()  # It sets the seed.
    head = build_head(Config(inner_size=4), len(LABELS))
    head.set_weights([weight * 30 for weight in head.get_weights()])
    file = tmp_path_factory.mktemp("saved") / "our.keras"
    save_classifier(backbone, head, LABELS, 71, file)
    features = np.stack([one.features for one in load_classifier(file).predict(PHOTOS)])
    means = class_means(features[[0] * len(LABELS)], np.arange(len(LABELS)), len(LABELS))
    far = distances(features, means)  # The first photo is near all classes, the others are not.
    known = {NOVELTY: {"threshold": float(far[1:].min() / 2)}}
    add_metadata(file, known, {CLASS_MEANS: to_bytes(means)})
    return file


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of it in a folder of its own."""
    return Path(shutil.copy(saved, tmp_path))


def check_documented(name: str, target: Path) -> None:
    """Check what other programs find in an export to ONNX or OpenVINO."""
    if name == "onnx":
        onnxruntime: Any = importlib.import_module("onnxruntime")
        inputs = onnxruntime.InferenceSession(str(target)).get_inputs()
        assert [side.shape for side in inputs] == [["batch", "height", "width", 3]]
    elif name == "openvino":
        openvino: Any = importlib.import_module("openvino")
        known = openvino.Core().read_model(str(target)).get_rt_info(["model_info", "labels"])
        assert known.astype(str).split() == [label.replace(" ", "_") for label in LABELS]


def check_classifier(export: Path, model: Path, most: float) -> None:
    """Check that an export to ONNX, loaded, gives the rows of the saved file."""
    found, expected = (list(load_classifier(file).predict(PHOTOS)) for file in (export, model))
    assert [one.category for one in expected] == [expected[0].category, NONE, NONE]
    assert [one.category for one in found] == [one.category for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=most)
        np.testing.assert_allclose(one.features, other.features, atol=most)
    assert read_metadata(export) == read_metadata(model)


def write_earlier(target: Path) -> list[str]:
    """Write what an earlier export and a killed one left; return the names of an export."""
    work = target.with_name(f".{target.name}.unfinished")
    work.mkdir()
    (work / "half.bin").touch()
    if target.suffix:
        target.touch()
    else:
        (target / "assets.extra").mkdir(parents=True)
        (target / "stale").touch()
    names = [f"{target.name}.json", *(["our.bin"] if target.suffix == ".xml" else [])]
    for name in names:
        target.with_name(name).write_text("of an earlier export")
    return sorted([target.name, *names])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "half"), KINDS)
def test_runtime_gives_the_probabilities_of_keras(name, half, model):
    needed(name)
    target = model.with_name(f"our{FORMATS[name].ending}")
    names = write_earlier(target)
    export_classifier(model, name, target, [photo(90, 120), photo(71, 71)], half)
    called: Any = load_classifier(model).model
    with quiet(1, 2):
        opened = open_export(name, target)
        check_documented(name, target)
    assert opened.labels == LABELS
    if name == "onnx":
        check_classifier(target, model, 1e-2 if half else 1e-5)
    for pixels in (photo(50, 200)[None], np.stack([photo(130, 80), photo(130, 80)[::-1]])):
        expected = np.asarray(called(pixels, training=False))
        found = opened.run(pixels.astype("float32"))
        assert found.shape == (len(pixels), len(LABELS))
        np.testing.assert_allclose(found, expected, atol=1e-2 if half else 1e-5)
    assert np.ptp(expected) > 0.1
    assert sys.modules.get("openvino_telemetry") is None  # No message to OpenVINO's maker.
    description = json.loads(target.with_name(f"{target.name}.json").read_text("utf-8"))
    sizes = {file: len(content) for file, content in contents(model.parent).items()}
    del sizes["our.keras"]
    assert description["bytes"].items() <= sizes.items()
    assert len(description["bytes"]) == len(sizes) - 1  # Without the JSON file itself.
    assert "our_saved_model/stale" not in sizes
    assert sorted({file.partition("/")[0] for file in sizes}) == names
    assert 0.9 < max(sizes.values()) / (called.count_params() * (2 if half else 4)) < 1.2


def save_backbone(name: str, maps: Callable[[Any], Any], file: Path) -> None:
    """Save a classifier whose backbone is a convolution and more."""
    pixels = keras.Input((None, None, 3))
    channels = ARCHITECTURES[name].features
    top = maps(keras.layers.Conv2D(channels, 5, strides=16)(pixels))
    backbone = keras.Model(pixels, top, name=name)
    save_classifier(backbone, build_head(Config(backbone=name), 2), ["a", "b"], 71, file)


def test_onnx_of_a_sum_with_a_number_as_in_mobilenet(tmp_path, monkeypatch):
    needed("onnx")
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "FALSE")  # It is put back in the end.
    file = tmp_path / "our.keras"
    save_backbone("mobilenetv3-large", lambda maps: maps + 3.0, file)
    description = export_classifier(file, "onnx", tmp_path / "our.onnx", [photo(90, 120)])
    assert description["compared_with_keras"]["largest_difference"] < 1e-5


def test_onnx_that_keras_writes_wrong_is_refused_in_one_line(tmp_path, capfd):
    needed("onnx")
    file = tmp_path / "our.keras"
    save_backbone("convnext-tiny", keras.layers.Conv2D(768, 3, groups=768), file)
    capfd.readouterr()
    with pytest.raises(InputError, match="no valid ONNX .* convnext-tiny. Choose another"):
        export_classifier(file, "onnx", tmp_path / "our.onnx", [photo(90, 120)])
    assert not (tmp_path / "our.onnx").exists()
    assert "StatefulPartitionedCall" not in "".join(capfd.readouterr())


def test_json_describes_the_export(model):
    target = model.with_name("our_saved_model")
    description = export_classifier(model, "saved_model", target, [photo(90, 120)])
    assert json.loads(target.with_name("our_saved_model.json").read_text("utf-8")) == description
    assert description["labels"] == description["metadata"]["labels"] == LABELS
    assert description["metadata"]["image_size"] == 71
    assert (description["format"], description["half"]) == ("saved_model", False)
    assert (description["input"]["name"], description["input"]["shape"][-1]) == ("pixels", 3)
    shape = ["batch", len(LABELS)]
    assert description["output"] == {"name": "probabilities", "type": "float32", "shape": shape}
    assert description["compared_with_keras"]["photos"] == 1
    assert description["compared_with_keras"]["largest_difference"] < 1e-5
    inside = json.loads((target / "assets.extra" / "fashion.json").read_text())
    assert inside == description["metadata"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": lambda found: found + np.float32(2e-4)}, r"by 0\.0002; at most 0\.0001"),
        ({"run": lambda found: found * np.float32("nan")}, "by nan"),
        ({"labels": LABELS[::-1]}, "the labels are"),
    ],
)
def test_export_that_does_not_match_is_not_written(change, reason, model, monkeypatch):
    def opened(*given: Any) -> Opened:
        export = open_export(*given)
        changed = change.get("run", lambda found: found)
        labels = change.get("labels", export.labels)
        return Opened(lambda pixels: changed(export.run(pixels)), labels, export.runtime)

    write_earlier(model.with_name("our_saved_model"))
    before = contents(model.parent)
    monkeypatch.setattr("fashion_keras.export.__main__.open_export", opened)
    with pytest.raises(SystemExit, match=f"error: nothing was written: .*{reason}"):
        cli.run(lambda: main([str(model), "--format", "saved_model"]))
    del before[".our_saved_model.unfinished/half.bin"]
    assert contents(model.parent) == before


def test_converter_that_fails_leaves_the_earlier_export_and_shows_why(model, monkeypatch, capfd):
    def fail(model: Any, target: Path, metadata: dict, half: bool) -> None:
        target.mkdir()
        os.write(1, b"no such operation")
        raise OSError("No space left on device")

    target = model.with_name("our_saved_model")
    write_earlier(target)
    before = contents(target)
    monkeypatch.setitem(FORMATS, "saved_model", FORMATS["saved_model"]._replace(write=fail))
    with pytest.raises(OSError, match="No space left"):
        export_classifier(model, "saved_model", target, [])
    assert contents(target) == before
    assert not model.with_name(".our_saved_model.unfinished").exists()
    assert "no such operation" in capfd.readouterr().err


def test_two_exports_to_the_same_place_never_cross(model):
    lock = model.with_name(".our_saved_model.lock")
    message = r"Another process .* export to .*our_saved_model"
    with only_one(lock, "export"), pytest.raises(InputError, match=message):
        main([str(model), "--format", "saved_model"])


def test_missing_package_and_other_backend_are_errors(model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"Export to onnx needs onnx, .*fashion_keras\[export\]"):
        main([str(model), "--format", "onnx"])
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(InputError, match="needs Keras on TensorFlow. Received: Keras on jax"):
        main([str(model), "--format", "saved_model"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("our.keras --format saved_model --half", "Omit `--half`, or choose one of onnx"),
        ("gone.keras --format onnx", r"gone\.keras"),
        ("our.keras --format onnx --out our.tflite", r"must end in \.onnx\. Received"),
        ("our.keras --format onnx --photos gone", r"No folder .*gone"),
    ],
)
def test_wrong_usage_is_an_error(arguments, message, model, monkeypatch):
    monkeypatch.chdir(model.parent)
    with pytest.raises(InputError, match=message):
        main(arguments.split())
    assert [*contents(model.parent)] == ["our.keras"]


@pytest.mark.parametrize("name", FORMATS)
def test_folder_of_another_kind_is_never_replaced(name, model):
    own = model.with_name(f"my{FORMATS[name].ending}")
    own.mkdir()
    (own / "photo.jpg").touch()
    with pytest.raises(InputError, match="exists and is no such export; choose another name"):
        main([str(model), "--format", name, "--out", str(own)])
    assert [*contents(own)] == ["photo.jpg"]


def test_photos_are_read_from_a_folder_or_drawn(sample_folder, tmp_path):
    photos = read_photos(sample_folder)
    files = sorted(sample_folder.rglob("*.jpg"))
    assert len(photos) == 32
    for number in (0, 1, 31):
        expected = read_photo(files[number * len(files) // 32]).pixels
        np.testing.assert_array_equal(photos[number], expected)
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(InputError, match="No readable photo in"):
        read_photos(tmp_path)
    sizes = {pixels.shape[:2] for pixels in read_photos(None)}  # Drawn.
    assert len(sizes) >= 6
    assert (min(map(min, sizes)), max(map(max, sizes))) == (33, 1024)


CHANGES = {
    "model": "other.keras",
    "--format": "our.keras --format saved_model",
    "--half": "our.keras --half",
    "--out": "our.keras --out new/place.xml",
    "--photos": "our.keras --photos photos",
}


@pytest.fixture(scope="module")
def exported(saved: Path) -> Path:
    """Return a folder with the classifier and its export to OpenVINO."""
    needed("openvino")
    main([str(saved), "--format", "openvino"])
    return saved.parent


@pytest.mark.slow
@pytest.mark.parametrize("option", options_of(options()))
def test_option_changes_the_export(option, exported, sample_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(exported, tmp_path / "ours"))
    shutil.copy("our.keras", "other.keras")
    Path("photos").symlink_to(sample_folder)
    before = contents(Path())
    main(["--format", "openvino", *CHANGES[option].split()])
    assert re.search(r"\n\S+: \S+ MB, largest difference to Keras ", capsys.readouterr().out)
    assert contents(Path()) != before
