"""Tests of what a worker of Ray is given and gives back."""

import importlib.util
from pathlib import Path

import keras
import pytest

from fashion_keras.classifier import Classifier
from fashion_keras.config import Config, InputError
from fashion_keras.model import build_classifier, build_head
from fashion_keras.predict import ray_worker
from fashion_keras.predict.ray_worker import _load, _photos, as_columns, as_lines, names_table, ship
from fashion_keras.saving import save_classifier

LABELS = ["cap", "hat", "sock", "tie"]
ROWS = [
    {
        "file": "a\udcff.jpg",
        "category": "hat",
        "probability": 0.7,
        "top": [
            {"category": "hat", "probability": 0.7},
            {"category": "tie", "probability": 0.1 + 0.2},
        ],
        "reason": "",
    },
    {"file": "b", "category": "", "probability": None, "top": [], "reason": "empty file"},
]
needs_arrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="needs the extra `ray`"
)


def test_a_classifier_is_shipped_with_its_card(tiny_backbone: keras.Model, tmp_path: Path) -> None:
    head = build_head(Config(inner_size=16), len(LABELS))
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")
    shipped, labels = ship(str(tmp_path / "our.keras"))
    assert labels == LABELS
    assert _load(shipped).metadata["labels"] == LABELS
    with pytest.raises(InputError, match=r"No model file gone\.keras"):
        ship("gone.keras")


def test_imagenet_is_shipped_without_a_file(
    tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build_head(Config(inner_size=16), len(LABELS))
    classifier = Classifier(build_classifier(tiny_backbone, head, 71), {"labels": LABELS})
    monkeypatch.setattr(ray_worker, "load_imagenet", lambda: classifier)
    shipped, labels = ship("imagenet")
    assert labels == _load(shipped).labels == LABELS
    for weight, other in zip(
        _load(shipped).model.get_weights(), classifier.model.get_weights(), strict=True
    ):
        assert (weight == other).all()


@needs_arrow
def test_any_name_comes_through() -> None:
    names = ["hat.jpg", "\udcff \n.jpg", "ä"]
    assert [photo.name for photo in _photos(names_table(names))] == names


@needs_arrow
def test_lines_lose_nothing() -> None:
    import json

    lines = as_lines(ROWS, 2)["row"].to_pylist()
    assert [json.loads(line) for line in lines] == ROWS


@needs_arrow
def test_columns_have_the_same_types_whatever_is_in_them() -> None:
    readable, unreadable = as_columns(ROWS[:1], 2), as_columns(ROWS[1:], 2)
    assert readable.schema.equals(unreadable.schema)
    assert readable.to_pylist() == [
        {
            **{"file": "a?.jpg", "category": "hat", "probability": 0.7},
            **{"category_1": "hat", "probability_1": 0.7},
            **{"category_2": "tie", "probability_2": 0.1 + 0.2, "reason": ""},
        }
    ]
    assert unreadable.to_pylist()[0]["probability_2"] is None
