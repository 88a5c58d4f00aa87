"""Tests of plain Xception with ImageNet's classes, on a stand-in of a thousand classes."""

import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from keras.src.applications import imagenet_utils, xception
from keras.src.utils import file_utils
from PIL import Image

from fashion_keras.backend import keras


def stand_in(weights):
    """Return a model whose class is 999 for photos with more than half of the red, else 0."""
    assert weights == "imagenet"
    pixels = keras.Input((299, 299, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    classes = keras.layers.Dense(1000, activation="softmax")
    model = keras.Model(pixels, classes(means), name="xception")
    kernel = np.zeros((3, 1000))
    kernel[0, 0], kernel[0, 999] = -1e4, 1e4
    classes.set_weights([kernel, np.zeros(1000)])
    return model


@pytest.fixture
def downloads(monkeypatch, tmp_path) -> list[str]:
    """Serve weights and class index without a download; return the addresses asked for."""
    asked = []
    index = tmp_path / "index.json"
    index.write_text(json.dumps({str(one): [f"n{one:08}", f"name_{one}"] for one in range(1000)}))

    def get_file(name, origin, **options):
        asked.append(origin)
        print(f"Downloading data from {origin}")  # As Keras does.
        return str(index)

    monkeypatch.setattr("keras.applications.Xception", stand_in)
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    monkeypatch.setattr(file_utils, "get_file", get_file)
    return asked


def test_command_prints_names_of_classes_and_can_be_resumed(downloads, run, photos):
    for red in (0, 126, 129):
        image = Image.new("RGB", (90, 80), (red, 200, 10))
        image.putpixel((0, 0), (red, 200, 20))
        image.save(f"{red}.png")
    ended = run("imagenet", "0.png", "126.png", "129.png", "--format", "jsonl", "--top", 2000)
    assert ended.err.startswith("Downloading data")
    assert [row["category"] for row in ended.rows] == ["name_0", "name_0", "name_999"]
    assert len(ended.rows[0]["top"]) == 1000
    assert downloads == [imagenet_utils.CLASS_INDEX_PATH]
    Path(".rows.unfinished").touch()
    assert run("imagenet", "129.png", "--out", "rows", "--format", "csv", "--resume").code == 0
    assert "name_999" in Path("rows").read_text()


def test_weights_that_cannot_be_fetched_are_a_clear_error(run, photos, monkeypatch, tmp_path):
    def fail(*_):  # As without a connection.
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    ended = run("imagenet", "0.png")
    error = ended.err.splitlines()[-1]
    assert (ended.code, ended.out) == (2, "")
    assert error.startswith("error: Cannot download the ImageNet weights of Xception and the names")
    assert f"URL fetch failure on {xception.WEIGHTS_PATH}" in error
    assert "Name or service not known" in error
