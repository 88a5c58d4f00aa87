"""Tests of heat maps: they are Grad-CAM, and they lie over the photo."""

import importlib
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras.config import Config
from fashion_keras.grad_cam import explainer, overlay
from fashion_keras.model import build_classifier, build_head

PHOTO = np.random.default_rng(1).integers(0, 256, (90, 60, 3), dtype="uint8")


def expected(model: keras.Model, pixels: np.ndarray, category: int) -> np.ndarray:
    """Compute Grad-CAM with TensorFlow's derivatives."""
    tf: Any = importlib.import_module("tensorflow")
    maps_of = keras.Model(model.inputs, model.get_layer("vectors").input)
    maps = maps_of.predict_on_batch(pixels[None].astype("float32"))
    vector = tf.constant(maps.mean(axis=(1, 2)))
    with tf.GradientTape() as tape:
        tape.watch(vector)
        head: Any = model.get_layer("head")
        logit = head(vector, training=False)[:, category]
    heat = np.maximum(maps[0] @ np.asarray(tape.gradient(logit, vector))[0], 0)
    return heat / max(heat.max(), 1e-9)


@pytest.mark.parametrize("inner_size", [0, 16])
def test_heat_maps_are_grad_cam(inner_size, tiny_backbone):
    head = build_head(Config(inner_size=inner_size), 3)
    model = build_classifier(tiny_backbone, head, 71)
    explain = explainer(model)
    assert [len(maps) for maps in (explain(PHOTO, [2, 0]), explain(PHOTO[:40], [1]))] == [2, 1]
    for heat, category in zip(explain(PHOTO, [2, 0]), (2, 0), strict=True):
        np.testing.assert_allclose(heat, expected(model, PHOTO, category), atol=0.02)
        assert (heat.min(), heat.max()) == (0, 1)


def test_what_speaks_against_a_category_alone_gives_no_heat(tiny_backbone):
    head = build_head(Config(inner_size=0), 2)
    weights = head.get_weights()
    head.set_weights([-np.ones_like(weights[0]), weights[1]])
    model = build_classifier(tiny_backbone, head, 71)
    assert not explainer(model)(PHOTO, [1])[0].any()


def test_a_photo_without_heat_is_grey_and_hot_places_are_coloured():
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    laid = overlay(PHOTO, heat)
    assert laid.shape == PHOTO.shape
    assert laid.dtype == np.uint8
    assert (np.ptp(laid[60:, 40:], axis=-1) == 0).all()
    assert (np.ptp(laid[:10, :8].astype(int), axis=-1) > 40).all()
