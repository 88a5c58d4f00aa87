"""Tests of exports: equal probabilities, labels inside, nothing half or wrong under their names."""

import importlib.util
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.artifacts import only_one
from fashion_keras.backend import quiet
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.export.__main__ import export_classifier, main, options
from fashion_keras.export.formats import FORMATS
from fashion_keras.export.runtimes import Opened, open_export, read_photos
from fashion_keras.model import build_head
from fashion_keras.saving import RELEASED, save_classifier
from tests.builders import options_of
from tests.conftest import small_backbone

LABELS = ["dress", "Schuhe für Kinder", 't-shirt "V"', "<hat> & 服装"]
KINDS = [(name, half) for name in FORMATS for half in (False, True)[: 1 + FORMATS[name].half]]


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype="uint8")


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
    return file


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of it in a folder of its own."""
    return Path(shutil.copy(saved, tmp_path))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder and below, but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run_onnx(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(file))
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    assert [side.shape for side in session.get_inputs()] == [["batch", "height", "width", 3]]
    return labels, session.run(["probabilities"], {"pixels": pixels})[0]


def run_litert(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    interpreters: Any = importlib.import_module("ai_edge_litert.interpreter")
    labels = zipfile.ZipFile(file).read("labels.txt").decode().split("\n")
    run = interpreters.Interpreter(str(file)).get_signature_runner()
    return labels, run(pixels=pixels)["probabilities"]


def run_openvino(file: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    openvino: Any = importlib.import_module("openvino")
    model = openvino.Core().read_model(str(file))
    known = model.get_rt_info(["model_info", "labels"]).astype(str)
    assert known.split() == ["dress", "Schuhe_für_Kinder", 't-shirt_"V"', "<hat>_&_服装"]
    labels = json.loads(model.get_rt_info(["fashion_keras", "labels"]).astype(str))
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return labels, compiled({"pixels": pixels})["probabilities"]


def run_saved_model(folder: Path, pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    tf: Any = importlib.import_module("tensorflow")
    labels = (folder / "assets.extra" / "labels.txt").read_text(encoding="utf-8").split("\n")
    loaded = tf.saved_model.load(str(folder))
    found = loaded.signatures["serving_default"](pixels=tf.constant(pixels))["probabilities"]
    assert loaded.serve({"pixels": tf.constant(pixels)})["probabilities"].shape == found.shape
    return labels, found.numpy()


RUN: dict[str, Callable[[Path, np.ndarray], tuple[list[str], np.ndarray]]] = {
    "onnx": run_onnx,
    "litert": run_litert,
    "openvino": run_openvino,
    "saved_model": run_saved_model,
}


def write_earlier(target: Path) -> list[str]:
    """Write what an earlier export and a killed one left; return the names of an export."""
    work = target.with_name(f".{target.name}.unfinished")
    work.mkdir()
    (work / "half.bin").touch()
    names = [target.name, f"{target.name}.json"]
    if target.suffix == ".xml":
        names.append("our.bin")
    if target.suffix:
        target.touch()
    else:
        for part in ("assets.extra/labels.txt", "saved_model.pb", "variables/stale"):
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            (target / part).touch()
    for name in names[1:]:
        target.with_name(name).write_text("of an earlier export")
    return sorted(names)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "half"), KINDS)
def test_runtime_gives_the_probabilities_of_keras(name: str, half: bool, model: Path) -> None:
    needed(name)
    target = model.with_name(f"our{FORMATS[name].ending}")
    names = write_earlier(target)
    export_classifier(model, name, target, [photo(90, 120), photo(71, 71)], half)
    called: Any = load_classifier(model).model
    for pixels in (photo(50, 200)[None], np.stack([photo(130, 80), photo(130, 80)[::-1]])):
        expected = np.asarray(called(pixels, training=False))
        with quiet(1, 2):
            labels, found = RUN[name](target, pixels.astype("float32"))
        assert labels == LABELS
        assert found.shape == expected.shape == (len(pixels), len(LABELS))
        np.testing.assert_allclose(found, expected, atol=1e-2 if half else 1e-5)
    assert np.ptp(expected) > 0.1
    assert sys.modules.get("openvino_telemetry") is None  # No message to OpenVINO's maker.
    description = json.loads(target.with_name(f"{target.name}.json").read_text("utf-8"))
    sizes = {file: len(content) for file, content in contents(model.parent).items()}
    del sizes["our.keras"]
    assert description["bytes"].items() <= sizes.items()
    assert len(description["bytes"]) == len(sizes) - 1  # Without the JSON file itself.
    assert "our_saved_model/variables/stale" not in sizes
    assert sorted({file.partition("/")[0] for file in sizes}) == names
    assert 0.9 < max(sizes.values()) / (called.count_params() * (2 if half else 4)) < 1.2


def test_json_describes_the_export(model: Path) -> None:
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
        ({"run": lambda found: found[:, ::-1]}, "a probability differs from that of"),
        ({"labels": LABELS[::-1]}, "the labels are"),
    ],
)
def test_export_that_does_not_match_is_not_written(
    change: dict[str, Any], reason: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_converter_that_fails_leaves_the_earlier_export_and_shows_why(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
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


def test_two_exports_to_the_same_place_never_cross(model: Path) -> None:
    with (
        only_one(model.with_name(".our_saved_model.lock"), "export"),
        pytest.raises(InputError, match=r"Another process .* export to .*our_saved_model"),
    ):
        main([str(model), "--format", "saved_model"])


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].packages])
def test_missing_package_is_an_error(
    name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    message = rf"Export to {name} needs {FORMATS[name].packages[0]}, .*fashion_keras\[export\]"
    with pytest.raises(InputError, match=message):
        main([str(model), "--format", name])


def test_other_backend_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_wrong_usage_is_an_error(
    arguments: str, message: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    with pytest.raises(InputError, match=message):
        main(arguments.split())
    assert [*contents(model.parent)] == ["our.keras"]


@pytest.mark.parametrize("name", FORMATS)
def test_folder_of_another_kind_is_never_replaced(name: str, model: Path) -> None:
    own = model.with_name(f"my{FORMATS[name].ending}")
    own.mkdir()
    (own / "photo.jpg").touch()
    with pytest.raises(InputError, match="exists and is no such export; choose another name"):
        main([str(model), "--format", name, "--out", str(own)])
    assert [*contents(own)] == ["photo.jpg"]


def test_photos_are_read_from_a_folder_or_drawn(sample_folder: Path, tmp_path: Path) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("option", options_of(options()))
def test_option_changes_the_export(
    option: str,
    model: Path,
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed("openvino")
    monkeypatch.chdir(model.parent)
    shutil.copy(model, "other.keras")
    Path("photos").symlink_to(sample_folder)
    main(["our.keras", "--format", "openvino"])
    assert capsys.readouterr().out.startswith("our.xml: ")
    before = contents(model.parent)
    main(["--format", "openvino", *CHANGES[option].split()])
    assert "MB, largest difference to Keras " in capsys.readouterr().out
    assert contents(model.parent) != before


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_released_model_gives_the_same_on_real_photos(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    needed(name)
    target = tmp_path / f"our{FORMATS[name].ending}"
    description = export_classifier(RELEASED, name, target, read_photos(real_data / "test")[::4])
    assert description["compared_with_keras"]["largest_difference"] < 1e-5
