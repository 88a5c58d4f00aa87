"""Tests of every backbone of the table, with random weights: from features to heat maps."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras.src.applications import convnext, efficientnet_v2, resnet

from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.backend import keras
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.sample import LABELS, draw_photo
from fashion_keras.fine_tuning import fine_tune
from fashion_keras.grad_cam import explainer
from fashion_keras.model import (
    build_classifier,
    build_feature_model,
    build_head,
    build_top,
    input_of,
)
from fashion_keras.saving import save_classifier
from fashion_keras.training import open_datasets, train_head

SIZE = 71
# Each takes half a minute, and all go the same way.
VARIABLE, USUAL = "FASHION_KERAS_BACKBONES", "xception,efficientnetv2-b0,mobilenetv3-large"
CHOSEN = os.environ.get(VARIABLE, USUAL).split(",")


@pytest.fixture
def eager(name: str) -> Iterator[None]:
    """Compute without graphs: tracing them takes longer than a few photos."""
    tf = pytest.importorskip("tensorflow")
    # Keras compiles each grouped convolution by itself, on a CPU; without a graph in every call.
    tf.config.run_functions_eagerly(name != "convnext-tiny")
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the largest networks have few blocks in each stage: all kinds of layers, in less time."""
    stack = resnet.stack_residual_blocks_v2
    few: Any = lambda maps, filters, blocks, **options: stack(maps, filters, 2, **options)  # noqa: E731
    monkeypatch.setattr(resnet, "stack_residual_blocks_v2", few)
    monkeypatch.setitem(convnext.MODEL_CONFIGS["tiny"], "depths", [1, 1, 1, 1])
    for name in ("efficientnetv2-b0", "efficientnetv2-s"):
        for stage in efficientnet_v2.DEFAULT_BLOCKS_ARGS[name]:
            monkeypatch.setitem(stage, "num_repeat", 1)


@pytest.mark.parametrize("name", ["convnext-tiny", "xception"])
def test_a_layer_of_one_backbone_is_loaded_for_it_alone(name: str, tmp_path: Path) -> None:
    pixels, channels = keras.Input((None, None, 3)), ARCHITECTURES[name].features
    maps = keras.layers.Conv2D(channels, 5, strides=16)(pixels)
    maps = convnext.LayerScale(1.0, channels)(maps)
    backbone, head = keras.Model(pixels, maps, name=name), build_head(Config(backbone=name), 2)
    known = name == "convnext-tiny"
    refused = pytest.raises(InputError, match=r"custom code or parts .*'LayerScale'\)")
    with contextlib.nullcontext() if known else refused:
        save_classifier(backbone, head, ["a", "b"], SIZE, tmp_path / "our.keras")


def random_weights(name: str, file: Path) -> Path:
    """Save random weights with which features differ from photo to photo."""
    known = ARCHITECTURES[name]
    build = getattr(keras.applications, known.constructor)
    backbone = build(include_top=False, weights=None, input_shape=(None, None, 3), **known.options)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # The statistics of the next batch count alone.
    photos = [draw_photo(label, np.random.default_rng(1), SIZE, SIZE) for label in LABELS]
    pixels = np.stack([np.asarray(photo) for photo in photos])
    backbone(pixels * np.asarray(known.scale) + np.asarray(known.offset), training=True)
    backbone.save_weights(file)
    return file


def changed(before: keras.Model, after: keras.Model) -> set[str]:
    """Return the paths of weights that differ between a model and a copy of it."""
    pairs = zip(before.weights, before.get_weights(), after.get_weights(), strict=True)
    return {weight.path for weight, old, new in pairs if not np.array_equal(old, new)}


def trainable(model: keras.Model) -> set[str]:
    """Return the paths of all weights that do not belong to batch normalisation."""
    normalising = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    kept = {weight.path for layer in normalising for weight in layer.weights}
    return {weight.path for weight in model.weights} - kept


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the")  # That tf.data is not eager.
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_head_fine_tuning_saved_file_and_heat_map(
    name: str, prepared: Prepared, tmp_path: Path, eager: None, shallow: None
) -> None:
    if name not in CHOSEN:
        pytest.skip(f"name {name} in {VARIABLE}, separated by commas, to train it")
    known = ARCHITECTURES[name]
    block = known.blocks[-1]  # Training few layers takes less time.
    config = Config(
        backbone=name,
        weights=str(random_weights(name, tmp_path / "random.weights.h5")),
        image_size=SIZE,
        augmented_copies=0,
        epochs=2,
        fine_tune_from=block,
        fine_tuning_copies=0,
        fine_tuning_epochs=1,
    )
    datasets = open_datasets(config, prepared, tmp_path)
    assert all(input_of(datasets.backbone, place) is not None for place in known.blocks)
    assert known.block in known.blocks
    datasets.store.make_feature_maps(0, block)
    trained = train_head(config, datasets, tmp_path)
    features: Any = datasets.store.features("validation")
    assert features.shape == (20, known.features)
    assert features.std(axis=0).mean() > 0.01
    pixels = [np.asarray(draw_photo(label, np.random.default_rng(2), 90, 80)) for label in LABELS]
    both = build_feature_model(datasets.backbone, block)(np.stack(pixels), training=False)
    found: Any = build_top(datasets.backbone, trained.head, block)(both["feature_maps"])
    np.testing.assert_allclose(found, np.asarray(trained.head(both["features"])), 1e-3, 1e-3)

    tuned = fine_tune(config, datasets, trained, tmp_path)
    upper = keras.Model(input_of(datasets.backbone, block), datasets.backbone.output)
    assert changed(datasets.backbone, tuned.backbone) == trainable(upper)
    file = tmp_path / "our.keras"
    save_classifier(tuned.backbone, tuned.head, prepared.labels, SIZE, file)
    loaded = load_classifier(file)
    assert loaded.metadata["backbone"] == name
    rows = np.stack([row.probabilities for row in loaded.predict(pixels)])
    model: Any = build_classifier(tuned.backbone, tuned.head, SIZE)
    np.testing.assert_allclose(rows, model(np.stack(pixels), training=False), atol=1e-4)
    (heat,) = explainer(loaded.model)(pixels[0], [0])
    assert heat.shape == features_side(tuned.backbone)
    assert 0 <= heat.min() <= heat.max() == 1


def features_side(backbone: keras.Model) -> tuple[int, int]:
    """Return rows and columns of the feature maps of one photo."""
    return backbone.compute_output_shape((1, SIZE, SIZE, 3))[1:3]  # type: ignore[return-value]
