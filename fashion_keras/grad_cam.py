"""Shows which part of a photo supports a category: Grad-CAM."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from fashion_keras.backend import array, keras
from fashion_keras.inspection import POOLING

# Relative to the largest feature: small, so that few kinks of ReLU lie between, yet logits change
# by far more than float32 rounds.
_STEP = 0.01
_STRENGTH = 0.75  # How much of the photo the heat map hides where it is hottest.
_COLOURS = "inferno"  # As bright as it is hot, so it can be read without seeing colours.


def explainer(model: keras.Model) -> Callable[[np.ndarray, Sequence[int]], list[np.ndarray]]:
    """Return a function that maps where a photo supports categories.

    Selvaraju et al. 2017, "Grad-CAM": the feature maps of a photo, each weighted by how much it
    raises the category's logit, are summed; what lowers the logit is left out.

    Args:
        model: See `model.build_classifier`.

    Returns:
        A function of a photo's pixels, `(height, width, 3)`, values in [0, 255], and of class
        numbers; it returns one heat map for each class, `(rows, columns)` from 0 (no support) to
        1 (most support), over the photo from edge to edge.
    """
    resize, head = model.get_layer("resize"), model.get_layer("head")
    backbone = keras.Model(model.input, model.get_layer(POOLING).input)  # Compiled only once.

    def heat_maps(pixels: np.ndarray, categories: Sequence[int]) -> list[np.ndarray]:
        resized = array(resize(pixels[None].astype("float32")))
        feature_maps = np.asarray(backbone.predict_on_batch(resized))[0]
        slopes = _slopes(head, feature_maps.mean(axis=(0, 1)))
        support = [np.maximum(feature_maps @ slopes[:, number], 0) for number in categories]
        return [heat / heat.max() if heat.any() else heat for heat in support]

    return heat_maps


def _slopes(head: Any, features: np.ndarray) -> np.ndarray:
    """Return how much each feature raises each logit, `(features, classes)`.

    As difference quotients: Keras has no gradients that work under all its backends, and between
    the kinks of ReLU a head is linear.
    """
    step = _STEP * max(float(np.abs(features).max()), 1e-6)
    moved = features + step * np.eye(len(features), dtype="float32")
    logits = np.asarray(head.predict_on_batch(np.concatenate([features[None], moved])))
    return (logits[1:] - logits[:1]) / step


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over a grey photo: the hotter, the brighter and denser its colour.

    Pixels, `(height, width, 3)` uint8, keep their shape; for `heat` see `explainer`.
    """
    height, width = pixels.shape[:2]
    small = Image.fromarray(heat.astype("float32"))
    wide = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), "float32")[..., None]
    colours = colormaps[_COLOURS](wide)[..., :3] * 255
    hidden = _STRENGTH * wide[..., None]
    return (grey * (1 - hidden) + colours * hidden).round().astype("uint8")
