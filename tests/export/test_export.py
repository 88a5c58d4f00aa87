"""Tests of exports: equal probabilities, labels inside, nothing half or wrong under their names."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.export.__main__ import MismatchError, export_classifier, main
from fashion_keras.export.formats import FORMATS, quiet
from fashion_keras.export.runtimes import Opened, open_export, read_photos
from fashion_keras.model import build_head
from fashion_keras.saving import save_classifier

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"', "<hat> & 服装"]
WHOLE = [(name, False) for name in FORMATS]
HALF = [(name, True) for name in FORMATS if FORMATS[name].half]


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype="uint8")


PHOTOS = [photo(90, 120), photo(71, 71)]


def needed(name: str) -> None:
    """Skip a test whose format needs packages that are not installed."""
    for package in FORMATS[name].packages:
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}: pip install 'fashion_keras[export]'")


@pytest.fixture
def model(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier whose probabilities differ much from photo to photo."""
    head = build_head(Config(inner_size=4), len(LABELS))
    head.set_weights([weight * 8 for weight in head.get_weights()])
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")
    return tmp_path / "our.keras"


def export(model: Path, name: str, half: bool = False, **options: Any) -> Path:
    """Export beside the model, and return where."""
    needed(name)
    target = model.with_name(f"our{FORMATS[name].ending}")
    export_classifier(model, name, target, PHOTOS, half, **options)
    return target


def run_onnx(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session: Any = onnxruntime.InferenceSession(str(file))
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    assert [side.shape for side in session.get_inputs()] == [["batch", "height", "width", 3]]
    return labels, session.run(["probabilities"], {"pixels": pixels})[0]


def run_litert(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        Interpreter,
    )

    labels = zipfile.ZipFile(file).read("labels.txt").decode().split("\n")
    run = Interpreter(str(file)).get_signature_runner()
    return labels, run(pixels=pixels)["probabilities"]


def run_openvino(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    import openvino  # pyright: ignore[reportMissingImports]

    model = openvino.Core().read_model(str(file))
    known = model.get_rt_info(["model_info", "labels"]).astype(str)
    assert known.split() == ["dress", "Schuhe_für_Kinder", 't-shirt_"V"', "<hat>_&_服装"]
    labels = json.loads(model.get_rt_info(["fashion_keras", "labels"]).astype(str))
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return labels, compiled({"pixels": pixels})["probabilities"]


def run_saved_model(folder: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    import tensorflow as tf

    labels = (folder / "assets.extra" / "labels.txt").read_text(encoding="utf-8").split("\n")
    loaded: Any = tf.saved_model.load(str(folder))
    found = loaded.signatures["serving_default"](pixels=tf.constant(pixels))
    return labels, found["probabilities"].numpy()


RUN: dict[str, Callable[[Path, np.ndarray], tuple[list[str], np.ndarray]]] = {
    "onnx": run_onnx,
    "litert": run_litert,
    "openvino": run_openvino,
    "saved_model": run_saved_model,
}


def model_weights(model: Path) -> int:
    return load_classifier(model).model.count_params()


def weight_bytes(target: Path) -> int:
    """Return the size of the file that holds the weights, as the JSON tells it."""
    sizes = json.loads(target.with_name(f"{target.name}.json").read_text("utf-8"))["bytes"]
    assert {(target.parent / file).stat().st_size for file in sizes} == set(sizes.values())
    return max(sizes.values())


@pytest.mark.parametrize(("name", "half"), [*WHOLE, *HALF])
def test_runtime_gives_the_probabilities_of_keras(name: str, half: bool, model: Path) -> None:
    target = export(model, name, half)
    called: Any = load_classifier(model).model
    for pixels in (photo(50, 200)[None], np.stack([photo(130, 80), photo(130, 80)[::-1]])):
        expected = np.asarray(called(pixels, training=False))
        with quiet():
            labels, found = RUN[name](target, pixels.astype("float32"))
        assert labels == LABELS
        assert found.shape == expected.shape == (len(pixels), len(LABELS))
        np.testing.assert_allclose(found, expected, atol=1e-3 if half else 1e-5)
    assert np.ptp(expected) > 0.1
    assert sys.modules.get("openvino_telemetry") is None  # No message to OpenVINO's maker.
    assert 0.9 < weight_bytes(target) / (model_weights(model) * (2 if half else 4)) < 1.1


def test_json_tells_what_a_user_needs(model: Path) -> None:
    target = export(model, "saved_model")
    facts = json.loads(target.with_name(f"{target.name}.json").read_text(encoding="utf-8"))
    assert facts["labels"] == facts["card"]["labels"] == LABELS
    assert facts["card"]["image_size"] == 71
    assert (facts["format"], facts["half"]) == ("saved_model", False)
    assert (facts["input"]["name"], facts["input"]["shape"][-1]) == ("pixels", 3)
    assert facts["output"] == {
        "name": "probabilities",
        "type": "float32",
        "shape": ["batch", len(LABELS)],
    }
    assert facts["compared_with_keras"]["photos"] == len(PHOTOS)
    assert facts["compared_with_keras"]["largest_difference"] < 1e-5
    assert "our_saved_model/saved_model.pb" in facts["bytes"]
    assert json.loads((target / "assets.extra" / "fashion.json").read_text()) == facts["card"]


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder but for those of locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


FILES = {
    "onnx": ["our.onnx", "our.onnx.json"],
    "litert": ["our.tflite", "our.tflite.json"],
    "openvino": ["our.bin", "our.xml", "our.xml.json"],
    "saved_model": ["our_saved_model", "our_saved_model.json"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_new_export_replaces_the_earlier_one(name: str, model: Path) -> None:
    needed(name)
    target = model.with_name(FILES[name][-2])
    if name == "saved_model":
        for part in ("assets.extra", "variables"):
            (target / part).mkdir(parents=True)
        (target / "saved_model.pb").touch()
        (target / "variables" / "stale").touch()
    for file in FILES[name][name == "saved_model" :]:
        model.with_name(file).write_text("of an earlier run")
    export(model, name)
    assert names_in(model.parent) == sorted(["our.keras", *FILES[name]])
    assert not (target / "variables" / "stale").exists()
    with quiet():
        assert open_export(name, target).labels == LABELS


def shifted(opened: Opened) -> Opened:
    return opened._replace(run=lambda pixels: opened.run(pixels) + np.float32(2e-4))


def without_numbers(opened: Opened) -> Opened:
    return opened._replace(run=lambda pixels: opened.run(pixels) * np.float32("nan"))


def wrong_in_batches(opened: Opened) -> Opened:
    return opened._replace(run=lambda pixels: opened.run(pixels)[[0] * len(pixels)])


def relabelled(opened: Opened) -> Opened:
    return opened._replace(labels=LABELS[::-1])


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("openvino", shifted, r"differs from that of Keras by 0\.0002; at most 0\.0001"),
        ("saved_model", without_numbers, "differs from that of Keras by nan"),
        ("saved_model", wrong_in_batches, "differs from that of Keras by 0"),
        ("saved_model", relabelled, "reads the labels"),
    ],
)
def test_export_that_does_not_match_is_not_written(
    name: str, change: Any, reason: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fashion_keras.export.__main__.open_export", lambda *given: change(open_export(*given))
    )
    with pytest.raises(MismatchError, match=f"nothing was written: .*{reason}"):
        export(model, name)
    assert names_in(model.parent) == ["our.keras"]


def test_command_ends_with_1_if_the_export_does_not_match(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = export(model, "saved_model")
    before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    monkeypatch.setattr("fashion_keras.export.__main__.largest_difference", lambda *given: 0.25)
    with pytest.raises(SystemExit, match="error: nothing was written: .* by 0.25; at most"):
        cli.run(lambda: main([str(model), "--format", "saved_model"]))
    assert before == {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}


def test_converter_that_fails_leaves_the_earlier_export_and_says_why(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    target = export(model, "saved_model")
    before = names_in(target), names_in(target.parent)

    def fail(traced: Path, target: Path, card: dict, half: bool) -> None:
        target.mkdir()
        os.write(1, b"no such operation")
        raise OSError("No space left on device")

    broken = FORMATS["saved_model"]._replace(write=fail)
    monkeypatch.setitem(FORMATS, "saved_model", broken)
    capfd.readouterr()
    with pytest.raises(OSError, match="No space left"):
        export(model, "saved_model")
    assert (names_in(target), names_in(target.parent)) == before
    assert capfd.readouterr().err == "no such operation"


def test_what_a_killed_export_left_is_cleared_first(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = model.with_name(".our_saved_model.abcd1234")
    (left / "new").mkdir(parents=True)

    def ended(given: Path) -> Any:
        raise PermissionError("it is left")

    monkeypatch.setattr("fashion_keras.export.__main__.load_classifier", ended)
    with pytest.raises(PermissionError, match="it is left"):
        export(model, "saved_model")
    assert not left.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_two_exports_to_the_same_place_never_cross(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(given: Path) -> Any:
        with pytest.raises(InputError, match="Another process is at the same export to .*our_sav"):
            export(model, "saved_model")
        raise PermissionError("it is left")

    monkeypatch.setattr("fashion_keras.export.__main__.load_classifier", other)
    with pytest.raises(PermissionError, match="it is left"):
        export(model, "saved_model")
    assert names_in(model.parent) == ["our.keras"]


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].packages])
def test_missing_package_is_told_before_anything_slow(
    name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fashion_keras.export.__main__.load_classifier", lambda path: pytest.fail("slow")
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    message = rf"Export to {name} needs {FORMATS[name].packages[0]}, .*fashion_keras\[export\]"
    with pytest.raises(InputError, match=message):
        main([str(model), "--format", name])


def test_other_backend_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(InputError, match="needs Keras on TensorFlow. Received: Keras on jax"):
        main([str(model), "--format", "saved_model"])


def test_saved_model_in_half_precision_is_refused(model: Path) -> None:
    message = "cannot hold them in half precision. Leave out `--half`, or choose one of onnx"
    with pytest.raises(InputError, match=message):
        main([str(model), "--format", "saved_model", "--half"])


def test_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No model file .*gone\.keras"):
        main([str(tmp_path / "gone.keras"), "--format", "onnx"])


def test_out_with_another_ending_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx\. Received: .*our\.tflite"):
        main([str(model), "--format", "onnx", "--out", str(tmp_path / "our.tflite")])


@pytest.mark.parametrize("name", FORMATS)
def test_folder_of_another_sort_is_never_replaced(name: str, model: Path) -> None:
    own = model.with_name(f"my{FORMATS[name].ending}")
    own.mkdir()
    (own / "photo.jpg").touch()
    with pytest.raises(InputError, match="exists and is no such export; choose another name"):
        main([str(model), "--format", name, "--out", str(own)])
    assert names_in(own) == ["photo.jpg"]


def test_photos_are_read_from_a_folder(sample_folder: Path, tmp_path: Path) -> None:
    photos = read_photos(sample_folder)
    assert len(photos) == 32
    assert {pixels.shape for pixels in photos} == {(320, 240, 3)}
    files = sorted(sample_folder.rglob("*.jpg"))
    for number in (0, 1, 31):
        expected = read_photo(files[number * len(files) // 32]).pixels
        np.testing.assert_array_equal(photos[number], expected)
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(InputError, match="No readable photo in"):
        read_photos(tmp_path)
    with pytest.raises(InputError, match=r"No folder .*gone"):
        read_photos(tmp_path / "gone")


def test_without_a_folder_photos_of_many_sizes_are_drawn() -> None:
    photos = read_photos(None)
    sizes = {pixels.shape[:2] for pixels in photos}
    assert len(sizes) == len(photos) >= 6
    assert (min(map(min, sizes)), max(map(max, sizes))) == (33, 1024)


def test_command_prints_one_line_for_each_step(model: Path, sample_folder: Path) -> None:
    names = [str(model), "--format", "saved_model", "--photos", str(sample_folder)]
    out = ["--out", str(model.parent / "new" / "other_saved_model")]
    ended = subprocess.run(
        [sys.executable, "-m", "fashion_keras.export", *names, *out],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    converted, compared, last = ended.stdout.splitlines()
    assert converted.startswith("converted to saved_model in ")
    assert compared.startswith("compared on 32 photos in ")
    assert last.startswith(f"{out[1]}: ")
    assert "MB, largest difference to Keras " in last
    assert ended.stderr == ""
    assert names_in(model.parent / "new") == ["other_saved_model", "other_saved_model.json"]


def test_released_model_gives_the_same_in_openvino(real_data: Path, tmp_path: Path) -> None:
    needed("openvino")
    released = Path(__file__).parents[2] / "fashion_keras" / "released" / "fashion.keras"
    photos = read_photos(real_data / "test")[::4]
    facts = export_classifier(released, "openvino", tmp_path / "our.xml", photos)
    assert facts["compared_with_keras"]["largest_difference"] < 1e-5
