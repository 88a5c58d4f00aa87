"""Tests of plain Xception with ImageNet's classes, on a stand-in of a thousand classes."""

import json
import socket
import urllib.error
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.applications import imagenet_utils, xception
from keras.src.utils import file_utils
from PIL import Image

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.model import patient_download
from fashion_keras.predict.__main__ import main
from fashion_keras.predict.imagenet import load_imagenet


def stand_in(weights: str) -> keras.Model:
    """Return a model whose class is the photo's red, from 0 (none) to 999 (full).

    Of the classes' places c in [-1, 1] it chooses the one next to r, the mean of the scaled red:
    -(r - c)^2 is greatest there, and so is 2rc - c^2, which a dense layer can give.
    """
    assert weights == "imagenet"
    pixels = keras.Input((299, 299, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    classes = keras.layers.Dense(1000, activation="softmax")
    model = keras.Model(pixels, classes(means), name="xception")
    places = np.linspace(-1, 1, 1000)
    kernel = np.zeros((3, 1000))
    kernel[0] = 2e5 * places
    classes.set_weights([kernel, -1e5 * places**2])
    return model


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Serve weights and class index without a download; return the addresses asked for."""
    asked = []
    index = tmp_path / "index.json"
    index.write_text(json.dumps({str(one): [f"n{one:08}", f"name_{one}"] for one in range(1000)}))

    def get_file(name: str, origin: str, **options: Any) -> str:
        asked.append(origin)
        print(f"Downloading data from {origin}")  # As Keras does.
        return str(index)

    monkeypatch.setattr("keras.applications.Xception", stand_in)
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    monkeypatch.setattr(file_utils, "get_file", get_file)
    return asked


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every download of Keras fail as it does without a connection, and nothing be cached."""

    def fail(*_: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))


@pytest.mark.parametrize("red", [0, 100, 255])
@pytest.mark.parametrize("size", [(299, 299), (60, 90)])
def test_answer_has_the_name_of_the_class(
    red: int, size: tuple[int, int], downloads: list[str]
) -> None:
    classifier = load_imagenet()
    assert classifier.labels == [f"name_{number}" for number in range(1000)]
    assert classifier.image_size == 299
    assert classifier.metadata["backbone"] == "xception"
    [prediction] = classifier.predict(Image.new("RGB", size, (red, 40, 80)))
    assert prediction.category == f"name_{round(red / 255 * 999)}"
    assert prediction.probabilities.shape == (1000,)


def test_command_answers_with_names(
    downloads: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (60, 90), (255, 0, 0)).save(tmp_path / "red.png")
    main(["imagenet", str(tmp_path / "red.png"), "--format", "jsonl", "--top", "2000"])
    shown = capsys.readouterr()
    row = json.loads(shown.out)
    assert shown.err.startswith("Downloading data")
    assert row["category"] == "name_999"
    assert len(row["top"]) == 1000
    assert downloads == [imagenet_utils.CLASS_INDEX_PATH]


def test_rows_of_imagenet_can_be_resumed(downloads: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (60, 90), (255, 0, 0)).save(tmp_path / "red.png")
    rows = tmp_path / "rows.csv"
    rows.with_name(".rows.csv.unfinished").touch()
    main(["imagenet", str(tmp_path / "red.png"), "--out", str(rows), "--format", "csv", "--resume"])
    assert "name_999" in rows.read_text()


def error_of_command(photo: Path, capsys: pytest.CaptureFixture[str]) -> str:
    Image.new("RGB", (9, 9)).save(photo)
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main(["imagenet", str(photo)]))
    shown = capsys.readouterr()
    *told, error = [line for line in shown.err.splitlines() if line]
    assert shown.out == ""
    assert all(line.startswith("Downloading data from ") for line in told)
    assert error.startswith("error: Cannot download the ImageNet weights of Xception and the names")
    assert error.endswith("Try again with a connection.")
    return error


def test_weights_that_cannot_be_fetched_are_a_clear_error(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of_command(tmp_path / "photo.png", capsys)
    assert f"URL fetch failure on {xception.WEIGHTS_PATH}" in error
    assert "Name or service not known" in error


def test_class_index_that_cannot_be_fetched_is_a_clear_error(
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("keras.applications.Xception", stand_in)
    error = error_of_command(tmp_path / "photo.png", capsys)
    assert f"URL fetch failure on {imagenet_utils.CLASS_INDEX_PATH}" in error


def test_class_index_of_another_content_is_a_clear_error(
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def serve(origin: str, target: str, *_: Any) -> None:
        Path(target).write_text("<html>please log in</html>")

    monkeypatch.setattr("keras.applications.Xception", stand_in)
    monkeypatch.setattr(file_utils, "urlretrieve", serve)
    assert "corrupted file" in error_of_command(tmp_path / "photo.png", capsys)


@pytest.mark.parametrize("before", [None, 5.0])
def test_download_does_not_wait_for_ever(before: float | None) -> None:
    try:
        socket.setdefaulttimeout(before)
        with patient_download("it"):
            assert socket.getdefaulttimeout() == 20
        assert socket.getdefaulttimeout() == before
        with pytest.raises(InputError), patient_download("it"):
            raise TimeoutError("timed out")
        assert socket.getdefaulttimeout() == before
    finally:
        socket.setdefaulttimeout(None)


def test_failed_download_tells_what_why_and_what_to_do() -> None:
    with pytest.raises(InputError, match=r"^Cannot download the names: reset\. Wait a little\.$"):
        with patient_download("the names", "Wait a little."):
            raise ConnectionResetError("reset")
    with pytest.raises(ZeroDivisionError), patient_download("it"):
        raise ZeroDivisionError  # Not of the download.
