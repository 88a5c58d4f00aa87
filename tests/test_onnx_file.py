"""Tests of `.onnx` files: what is refused, and that all works where Keras cannot be imported."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras import load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.describe import main as describe
from fashion_keras.export.__main__ import main as export
from fashion_keras.inspection import read_metadata
from fashion_keras.onnx_file import open_onnx
from fashion_keras.predict.__main__ import main as predict
from fashion_keras.report.__main__ import main as report
from tests.builders import LABELS, WITHOUT_KERAS, picture, save_tiny_onnx

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'fashion_keras[export]'")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Write photos of different sizes."""
    for number in range(3):
        picture(number).rotate(90 * number).save(tmp_path / f"{number}.png")
    return [f"{number}.png" for number in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a small export."""
    save_tiny_onnx(tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def expected(weights: np.ndarray, photo: Path) -> np.ndarray:
    """Return the probabilities of a small export."""
    powers = np.exp(read_photo(photo).pixels.mean(axis=(0, 1)) @ weights)
    return powers / powers.sum()


def test_photos_of_different_sizes_are_predicted_without_keras(photos, tmp_path):
    weights = save_tiny_onnx(tmp_path / "tiny.onnx")
    words = ["tiny.onnx", *photos, "--format", "jsonl", "--top", "4"]
    code = [*WITHOUT_KERAS, "fashion_keras.predict", *words]
    home = tmp_path / "home"
    home.mkdir()
    variables = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        variables.pop(name, None)
    ended = subprocess.run(code, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert re.fullmatch(r"loading tiny\.onnx@\w{12}; photos: 3\n", ended.stderr)
    assert not list(home.iterdir())  # ONNX Runtime keeps a number of the computer for its maker.
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["file"] for row in rows] == photos
    for row in rows:
        found = {one["category"]: one["probability"] for one in row["top"]}
        probabilities = expected(weights, tmp_path / row["file"])
        assert found == pytest.approx(dict(zip(LABELS, probabilities, strict=True)), abs=1e-5)
        assert row["category"] == LABELS[probabilities.argmax()]


def test_in_python_photos_of_any_size_go_through_it_one_by_one(tmp_path):
    weights = save_tiny_onnx(tmp_path / "tiny.onnx")
    classifier = load_classifier(tmp_path / "tiny.onnx")
    assert (classifier.labels, classifier.image_size) == (LABELS, 71)
    pixels = [np.asarray(picture(number)) for number in range(5)]
    assert classifier.class_means is None  # As in exports of earlier versions.
    found = [one.probabilities for one in classifier.predict(pixels, batch_size=4)]
    assert found == [
        pytest.approx(expected(weights, one), abs=1e-5)  # pyright: ignore[reportArgumentType]
        for one in pixels
    ]


def test_metadata_are_those_of_the_keras_file(file, capsys):
    assert read_metadata(file) == {"format": 1, "labels": LABELS, "image_size": 71}
    describe([str(file)])
    assert "cap, hat, sock, tie" in capsys.readouterr().out


OTHER = {
    "html": (b"<html>404 not found</html>", "is damaged, or no .onnx file"),
    "empty": (b"", "is damaged, or no .onnx file"),
    "newer": ({"format": 2, "labels": LABELS}, "has format 2; this version"),
    "no labels": ({"format": 1}, "holds no labels"),
    "a list": (["hat"], "holds no labels"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_no_export_of_this_project_is_refused_in_one_line(kind, tmp_path):
    content, message = OTHER[kind]
    file = tmp_path / "other.onnx"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save_tiny_onnx(file, content)
    for act in (read_metadata, load_classifier):
        with pytest.raises(InputError, match=message) as caught:
            act(file)
        assert str(caught.value).startswith(f"{file} ")
        assert "\n" not in str(caught.value)


def test_file_that_is_cut_off_or_missing_is_refused(file):
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(InputError, match="is damaged"):
        load_classifier(file)
    file.write_bytes(content.replace(b'{"format"', b'["format"'))
    with pytest.raises(InputError, match="holds no labels"):
        load_classifier(file)
    file.unlink()
    with pytest.raises(InputError, match=r"No model file .*tiny\.onnx; .*export --format onnx`"):
        load_classifier(file)


@pytest.mark.parametrize("change", ["pixels", "metadata"])
def test_export_of_another_project_is_refused(change, file):
    file.write_bytes(file.read_bytes().replace(change.encode(), change[::-1].encode()))
    with pytest.raises(InputError, match=r"tiny\.onnx is no export of this project; `python -m"):
        load_classifier(file)


def test_missing_runtime_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs ONNX Runtime.* Run `pip install onnxruntime`"):
        load_classifier(file)


def test_threads_are_limited_where_several_processes_share_the_cores(file, monkeypatch):
    onnxruntime: Any = importlib.import_module("onnxruntime")
    threads, session = [], onnxruntime.InferenceSession

    def open_session(path: str, options: Any, *others: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        return session(path, options, *others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    for number in ("1", ""):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", number)
        open_onnx(file)
    assert threads == [1, 0]


def test_what_needs_keras_refuses_it(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    with pytest.raises(InputError, match=r"`--engine ray` takes a \.keras file. Received: tiny"):
        predict(["tiny.onnx", "hat.jpg", "--engine", "ray"])
    with pytest.raises(InputError, match=r"Expected a \.keras file to export. Received: tiny"):
        export(["tiny.onnx", "--format", "litert"])
    with pytest.raises(InputError, match=r"Grad-CAM needs a \.keras file\. Received: tiny"):
        report(["tiny.onnx", "sample"])
