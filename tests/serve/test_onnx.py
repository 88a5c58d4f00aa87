"""Serving an `.onnx` file: no Keras, photos one by one in their own sizes, nothing explained."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from fashion_keras.classifier import load_classifier
from fashion_keras.export.__main__ import main as export
from fashion_keras.serve.model import load_model
from tests.builders import LABELS, WITHOUT_KERAS, encoded, picture, save_strong, save_tiny_onnx
from tests.serve.running import RAW, command, form, running
from tests.serve.test_browser import SKIPPED, browser, upload

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'fashion_keras[export]'")
ROOT = Path(__file__).parents[2]
SIZES = [encoded(picture(number)) for number in range(3)]
__all__ = ["browser"]  # A fixture.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a small export."""
    save_tiny_onnx(tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def probabilities(row: dict) -> list[float]:
    """Return the probability of each label in a row with all of them."""
    found = {one["category"]: one["probability"] for one in row["top"]}
    return [found[label] for label in LABELS]


def expected(file: Path) -> Any:
    """Return what a classifier gives for `SIZES`."""
    found = np.stack([one.probabilities for one in load_classifier(file).predict(SIZES)])
    return pytest.approx(found, abs=1e-5)


def test_photos_go_one_by_one_and_nothing_is_explained(file):
    batches: list[int] = []
    model = load_model(file, 16, lambda photos, seconds: batches.append(photos))
    with running(model) as service:
        rows = service.ask("POST", "/predict", *form(*((str(len(one)), one) for one in SIZES))).json
        reply = service.ask("POST", "/explain", SIZES[0], RAW)
        labels = service.ask("GET", "/labels").json
    assert [row["top"][0]["probability"] for row in rows["photos"]] == [
        pytest.approx(one.probability, abs=1e-5) for one in load_classifier(file).predict(SIZES)
    ]
    assert batches == [1, 1, 1]
    assert (reply.status, labels["explains"]) == (501, False)
    assert reply.json["reason"].startswith("an .onnx file cannot be explained; Grad-CAM needs")


@pytest.mark.browser
@SKIPPED
def test_the_page_hides_what_it_cannot_explain(file: Path, browser: Browser) -> None:
    with running(load_model(file, 1, lambda photos, seconds: None)) as service:
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{service.port}/")
            expect(page.locator("#model")).to_contain_text(f". Categories: {', '.join(LABELS)}.")
            page.locator("#files").set_input_files(upload("a.png", SIZES[0]))
            expect(page.locator(".guesses li")).to_have_count(3)
            expect(page.locator(".why")).to_be_hidden()


@pytest.mark.slow
def test_the_command_answers_without_keras(file):
    with command(file, "--top", "4", python=WITHOUT_KERAS) as (service, _):
        rows = [service.predict(one).json["photos"][0] for one in SIZES]
    assert [probabilities(row) for row in rows] == expected(file)


def requirements(group: str) -> Iterator[str]:
    """Yield the requirements of a dependency group, as `pip install --group` takes them."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for one in groups[group]:
        yield from [one] if isinstance(one, str) else requirements(one["include-group"])


def test_the_short_list_asks_for_the_versions_of_the_long_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    assert set(requirements("onnx-serve")) <= {*project["dependencies"], *extras}


@pytest.mark.slow
def test_predict_and_serve_give_the_rows_of_the_keras_file_where_keras_is_not_installed(tmp_path):
    place, saved = tmp_path / "environment", save_strong(tmp_path / "our.keras")
    python = [str(place / "bin/python"), "-m"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    install = [sys.executable, "-m", "pip", "--python", python[0], "install", "--quiet"]
    done = subprocess.run([*install, "--no-compile", *requirements("onnx-serve")])
    if done.returncode:
        pytest.skip("pip cannot install the requirements here")
    assert not list(place.glob("lib/*/site-packages/keras"))
    export([str(saved), "--format", "onnx"])
    for number, photo in enumerate(SIZES):
        (tmp_path / f"{number}.png").write_bytes(photo)
    words = [saved.with_suffix(".onnx"), *sorted(tmp_path.glob("*.png"))]
    predict = [*python, "fashion_keras.predict", *words, "--format", "json", "--top", "4"]
    printed = subprocess.run(predict, cwd=ROOT, check=True, capture_output=True).stdout
    assert [probabilities(row) for row in json.loads(printed)] == expected(saved)
    with command(saved.with_suffix(".onnx"), "--top", "4", python=python) as (service, _):
        rows = [service.predict(one).json["photos"][0] for one in SIZES]
    assert [probabilities(row) for row in rows] == expected(saved)
