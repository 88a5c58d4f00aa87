"""Tests of the facts that a saved file tells of its training."""

from pathlib import Path
from typing import Any

import keras
import pytest

from fashion_keras.card import facts_of, fingerprint
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, PreparedPhoto
from fashion_keras.model import build_head
from fashion_keras.saving import save_classifier

PHOTOS = [
    PreparedPhoto("train", "hat", "train/hat/0.jpg", "a.jpg", "1" * 64),
    PreparedPhoto("train", "tie", "train/tie/1.jpg", "b.jpg", "2" * 64),
    PreparedPhoto("validation", "hat", "validation/hat/2.jpg", "c.jpg", "3" * 64),
]
SCORES = {"accuracy": 0.5, "loss": 1.0}


def prepared(photos: list[PreparedPhoto]) -> Prepared:
    return Prepared(Path("anywhere"), ["hat", "tie"], photos, [])


def facts(licence: str = "", **knobs: Any) -> dict:
    return facts_of(Config(**knobs), prepared(PHOTOS), SCORES, licence)


def test_facts_tell_data_scores_and_backbone() -> None:
    found = facts(data="clothing")
    assert found["backbone"] == "xception"
    assert found["validation"] == SCORES
    assert found["data"] == {
        "name": "clothing-dataset-small",
        "fingerprint": fingerprint(prepared(PHOTOS)),
        "photos": {"train": 2, "validation": 1},
    }


def test_of_a_folder_only_its_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert facts(data=str(tmp_path / "shop"))["data"]["name"] == "shop"
    assert str(tmp_path) not in repr(facts(data=f"{tmp_path}/shop/"))


@pytest.mark.parametrize(
    ("data", "stated", "expected"),
    [
        ("clothing", "", "CC0-1.0"),
        ("clothing", "ours", "ours"),
        ("photos/", "", "not stated"),
        ("photos/", "CC-BY-4.0", "CC-BY-4.0"),
    ],
)
def test_licence_of_the_data(data: str, stated: str, expected: str) -> None:
    assert facts(stated, data=data)["licences"]["data"] == expected


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("imagenet", "MIT (Keras Applications; trained on ImageNet)"),
        ("none", "none: trained from random weights"),
        ("own.weights.h5", "not stated"),
    ],
)
def test_licence_of_the_weights(weights: str, expected: str) -> None:
    assert facts(weights=weights)["licences"]["weights"] == expected


@pytest.mark.parametrize("told", ["ours alone", "not stated"])
def test_licence_of_the_weights_is_handed_down(
    told: str, tiny_backbone: keras.Model, tmp_path: Path
) -> None:
    file = tmp_path / "before.keras"
    before = {} if told == "not stated" else {"licences": {"weights": told}}
    save_classifier(tiny_backbone, build_head(Config(), 2), ["hat", "tie"], 71, file, before)
    assert facts(weights=str(file))["licences"]["weights"] == told


def test_fingerprint_is_that_of_the_photos_alone() -> None:
    expected = fingerprint(prepared(PHOTOS))
    moved = [photo._replace(prepared="x", file="y") for photo in reversed(PHOTOS)]
    assert fingerprint(prepared(moved)) == expected
    others = [
        PHOTOS[:2],
        [PHOTOS[0]._replace(label="tie"), *PHOTOS[1:]],
        [PHOTOS[0]._replace(split="test"), *PHOTOS[1:]],
        [PHOTOS[0]._replace(sha256="4" * 64), *PHOTOS[1:]],
    ]
    assert len({expected, *(fingerprint(prepared(other)) for other in others)}) == 5
