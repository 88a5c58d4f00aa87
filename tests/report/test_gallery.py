"""Tests of the photos on the page."""

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config
from fashion_keras.model import build_classifier, build_head
from fashion_keras.report.gallery import cells, worst_predictions
from fashion_keras.report.outcome import Predictions

ROWS = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]])
# Five photos, of which numbers 1 and 2 are predicted as the second class.
SCORED = Predictions([f"a/{number}.jpg" for number in range(5)], np.zeros(5, int), ROWS, ["a", "b"])


@pytest.fixture
def files(tmp_path):
    """Draw a photo for each."""
    pixels = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return dict.fromkeys(SCORED.names, tmp_path / "photo.jpg")


def test_the_highest_losses_come_first_with_heat_maps(files, tiny_backbone):
    model = build_classifier(tiny_backbone, build_head(Config(inner_size=0), 2), 71)
    found = worst_predictions(SCORED, files, model)
    assert [loss["file"] for loss in found] == [f"a/{number}.jpg" for number in (2, 1, 4, 3, 0)]
    worst, best = found[0], found[-1]
    assert (worst["predicted"], worst["true"], worst["correct"]) == ("b", "a", False)
    assert worst["loss"] == pytest.approx(-np.log(0.2))
    assert [heat["label"] for heat in worst["heats"]] == ["b", "a"]
    assert [heat["label"] for heat in best["heats"]] == ["a"]
    assert (worst["photo"]["width"], worst["photo"]["height"]) == (173, 260)
    assert worst["photo"]["address"].startswith("data:image/jpeg;base64,")


def test_cells_show_confident_mistakes_and_unsure_correct_predictions(files):
    wrong, correct = cells(SCORED, files)
    assert (wrong["id"], wrong["count"], wrong["share"]) == ("cell-0-1", 2, 0.4)
    assert (wrong["correct"], correct["correct"]) == (False, True)
    assert [photo["file"] for photo in wrong["photos"]] == ["a/2.jpg", "a/1.jpg"]
    assert [photo["file"] for photo in correct["photos"]] == ["a/4.jpg", "a/3.jpg", "a/0.jpg"]
    assert all(photo["address"].startswith("data:image/jpeg;") for photo in wrong["photos"])
