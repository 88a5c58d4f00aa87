"""Tests of the pictures: they are written, can be opened, and show the data they were given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.figures import draw_confusion, draw_learning_curves


def history(epochs: int, loss: float) -> list[dict[str, Any]]:
    """Return a history whose loss falls from a first value."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return [
        {"stage": "head 1", "epoch": epoch} | dict.fromkeys(names, loss / epoch)
        for epoch in range(1, epochs + 1)
    ]


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def two_heads() -> list[dict[str, Any]]:
    return history(3, 2.0) + [{**row, "stage": "head 2", "loss": 9.0} for row in history(3, 2.0)]


@pytest.mark.parametrize("rows", [history(3, 1.0), history(4, 2.0), two_heads()])
def test_learning_curves_follow_the_history(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    draw_learning_curves(history(3, 2.0), tmp_path / "first.png")
    draw_learning_curves(rows, tmp_path / "second.png")
    first, second = pixels(tmp_path / "first.png"), pixels(tmp_path / "second.png")
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_same_history_gives_the_same_picture(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        draw_learning_curves(history(3, 2.0), tmp_path / name)
    np.testing.assert_array_equal(pixels(tmp_path / "first.png"), pixels(tmp_path / "second.png"))


def test_learning_curves_of_one_epoch(tmp_path: Path) -> None:
    draw_learning_curves(history(1, 2.0), tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("classes", [2, 40])
def test_confusion_of_few_and_many_classes(classes: int, tmp_path: Path) -> None:
    labels = [f"class {number}" for number in range(classes)]
    draw_confusion(np.eye(classes, dtype=int) * 5, labels, "all right", tmp_path / "table.png")
    draw_confusion(np.full((classes, classes), 3), labels, "all right", tmp_path / "other.png")
    table, other = pixels(tmp_path / "table.png"), pixels(tmp_path / "other.png")
    assert min(table.shape[:2]) >= 110 * (3 + 0.5 * classes) - 1
    assert not np.array_equal(table, other)


def test_confusion_colours_shares_of_each_true_class(tmp_path: Path) -> None:
    draw_confusion(np.array([[9, 0], [0, 1]]), ["a", "b"], "", tmp_path / "table.png")
    picture = pixels(tmp_path / "table.png")
    darkest = (picture == [8, 48, 107]).all(axis=-1)  # Where `Blues` ends: a share of 1.
    # Nine photos and one are both all of their class: the two fields are equally dark.
    height, width = darkest.shape
    upper, lower = darkest[: height // 2, : width // 2], darkest[height // 2 :, width // 2 :]
    assert min(upper.sum(), lower.sum()) > 0.4 * darkest.sum() > 1000


def test_confusion_of_a_class_without_photos(tmp_path: Path) -> None:
    draw_confusion(np.array([[2, 1], [0, 0]]), ["a", "b"], "", tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 1000


@pytest.mark.parametrize("label", ["$\\oops$", "5 % $ 10 $", "a_b^c", "<b>"])
def test_labels_are_no_formulas(label: str, tmp_path: Path) -> None:
    draw_confusion(np.eye(2, dtype=int), [label, "other"], "", tmp_path / "table.png")
    assert (tmp_path / "table.png").exists()
