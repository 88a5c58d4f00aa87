"""Tests of the photos on the page."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config
from fashion_keras.model import build_classifier, build_head
from fashion_keras.report import gallery, outcome
from fashion_keras.report.gallery import cells, top_losses

ROWS = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]])


@pytest.fixture
def tested() -> outcome.Tested:
    """Return five photos, of which numbers 1 and 2 are taken for the second class."""
    return outcome.Tested(
        [f"a/{number}.jpg" for number in range(5)], np.zeros(5, int), ROWS, ["a", "b"]
    )


@pytest.fixture
def files(tested: outcome.Tested, tmp_path: Path) -> dict[str, Path]:
    """Draw a photo for each."""
    pixels = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return dict.fromkeys(tested.names, tmp_path / "photo.jpg")


def test_the_least_probable_truths_come_first(
    tested: outcome.Tested, files: dict[str, Path], tiny_backbone: keras.Model
) -> None:
    model = build_classifier(tiny_backbone, build_head(Config(inner_size=0), 2), 71)
    found = top_losses(tested, files, model)
    assert [loss["file"] for loss in found] == [f"a/{number}.jpg" for number in (2, 1, 4, 3, 0)]
    worst, best = found[0], found[-1]
    assert (worst["predicted"], worst["true"], worst["right"]) == ("b", "a", False)
    assert worst["loss"] == pytest.approx(-np.log(0.2))
    assert [heat["label"] for heat in worst["heats"]] == ["b", "a"]
    assert [heat["label"] for heat in best["heats"]] == ["a"]
    assert (worst["photo"]["width"], worst["photo"]["height"]) == (173, 260)
    assert worst["photo"]["address"].startswith("data:image/jpeg;base64,")


def test_cells_show_the_surest_mistakes_and_the_least_sure_right_answers(
    tested: outcome.Tested, files: dict[str, Path]
) -> None:
    wrong, right = cells(tested, files)
    assert (wrong["id"], wrong["count"], wrong["right"]) == ("cell-0-1", 2, False)
    assert [photo["file"] for photo in wrong["photos"]] == ["a/2.jpg", "a/1.jpg"]
    assert [photo["file"] for photo in right["photos"]] == ["a/4.jpg", "a/3.jpg", "a/0.jpg"]


def test_too_many_photos_are_told_by_name(
    tested: outcome.Tested, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "_MOST_SMALL", 1)
    wrong, right = cells(tested, files)
    assert [bool(photo["address"]) for photo in wrong["photos"]] == [True]
    assert [bool(photo["address"]) for photo in right["photos"]] == [False]
    assert right["count"] == 3
