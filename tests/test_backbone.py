"""Tests of the backbone: its weights from all places, and its blocks."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from fashion_keras.backbone import (
    BACKBONE,
    VECTOR_SIZE,
    blocks,
    build_backbone,
    check_weights,
    unfreeze,
)
from fashion_keras.config import Config, InputError
from fashion_keras.model import build_head
from fashion_keras.saving import save_classifier
from tests.conftest import normalised_backbone


def test_imagenet_backbone_is_frozen_and_gives_maps(real_weights: Path) -> None:
    backbone = build_backbone(str(real_weights))
    assert (backbone.trainable_weights, backbone.name) == ([], BACKBONE)
    assert backbone(np.zeros((1, 71, 71, 3))).shape == (1, 3, 3, VECTOR_SIZE)


def test_random_backbone_is_trained() -> None:
    backbone = build_backbone("none")
    # Each of the 40 batch normalisations has two numbers a channel that are never trained.
    assert len(backbone.trainable_weights) == len(backbone.weights) - 2 * 40


def test_missing_weights_file_names_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No weights file .*gone\.h5\. .* takes `imagenet`, "):
        build_backbone(str(tmp_path / "gone.h5"))


def write_other_h5(file: Path) -> None:
    with h5py.File(file, "w") as content:
        content["numbers"] = [1, 2, 3]


def write_text(file: Path) -> None:
    file.write_text("<html>404 not found</html>")


def write_other_model(file: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(file)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("other.weights.h5", write_other_h5),
        ("other.h5", write_other_h5),
        ("text.h5", write_text),
        ("text.keras", write_text),
        ("other.keras", write_other_model),
    ],
)
def test_weights_file_of_another_sort_is_refused(
    name: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each file is refused by Keras' own reader; a small model only saves building Xception.
    monkeypatch.setattr("keras.applications.Xception", small_xception)
    write(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} does not hold the weights of an Xception"):
        build_backbone(str(tmp_path / name))


def small_xception(weights: str | None, **options: Any) -> keras.Model:
    backbone = normalised_backbone()
    backbone.set_weights([weight * 0 for weight in backbone.get_weights()])
    if weights:
        backbone.load_weights(weights)
    return backbone


def test_xception_itself_refuses_weights_of_another_sort(tmp_path: Path) -> None:
    write_other_h5(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match="does not hold the weights of an Xception"):
        build_backbone(str(tmp_path / "other.weights.h5"))


def test_saved_classifier_gives_back_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.applications.Xception", small_xception)
    original = normalised_backbone()
    save_classifier(original, build_head(Config(), 2), ["a", "b"], 71, tmp_path / "our.keras")
    backbone = build_backbone(str(tmp_path / "our.keras"))
    assert backbone.trainable_weights == []
    for weight, expected in zip(backbone.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def failing_with(message: str) -> Any:
    def fail(**options: Any) -> None:
        raise Exception(message)  # Keras itself raises a bare one.

    return fail


def test_failed_download_names_the_address_and_both_ways_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = "URL fetch failure on https://weights.example/x.h5: None -- timed out"
    monkeypatch.setattr("keras.applications.Xception", failing_with(message))
    advice = r"https://weights\.example/x\.h5.*`--weights FILE`, .*`--weights none`"
    with pytest.raises(InputError, match=advice):
        build_backbone("imagenet")


def test_other_failures_are_not_called_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.applications.Xception", failing_with("out of memory"))
    with pytest.raises(Exception, match="^out of memory$"):
        build_backbone("imagenet")


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), TimeoutError("timed out")])
def test_download_that_breaks_off_names_the_address(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr("keras.applications.Xception", fail)
    with pytest.raises(InputError, match=r"storage\.googleapis\.com/.*`--weights FILE`"):
        build_backbone("imagenet")


def test_a_copy_of_the_weights_can_be_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASHION_KERAS_WEIGHTS", str(tmp_path / "copy.h5"))
    with pytest.raises(InputError, match=r"No weights file .*copy\.h5.*correct it"):
        check_weights("imagenet")
    (tmp_path / "copy.h5").write_text("x")
    with pytest.raises(InputError, match="does not hold the weights of an Xception"):
        build_backbone("imagenet")


def test_blocks_have_the_same_names_in_every_backbone() -> None:
    first, second = build_backbone("none"), build_backbone("none")
    names = [f"block{number}" for number in range(2, 15)]
    assert list(blocks(first)) == list(blocks(second)) == names
    assert [tensor.shape[-1] for tensor in blocks(first).values()] == [
        64,
        128,
        256,
        *[728] * 9,
        1024,
    ]


def test_batch_normalisation_stays_frozen() -> None:
    backbone = normalised_backbone()
    backbone.trainable = False
    unfreeze(backbone)
    assert len(backbone.trainable_weights) == 4  # Kernels and biases of two layers.
