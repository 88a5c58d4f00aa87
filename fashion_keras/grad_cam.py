"""Shows which part of a photo speaks for a category: Grad-CAM."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from matplotlib import colormaps
from PIL import Image

# Of the largest part of a vector: small, so that few kinks of ReLU lie between, yet logits change
# by far more than float32 rounds.
_STEP = 0.01
_STRENGTH = 0.75  # How much of the photo the heat map hides where it is hottest.
_COLOURS = "inferno"  # As bright as it is hot, so it can be read without seeing colours.


def explainer(model: keras.Model) -> Callable[[np.ndarray, Sequence[int]], list[np.ndarray]]:
    """Return what tells where a photo speaks for categories.

    Selvaraju et al. 2017, "Grad-CAM": the maps that the backbone gives for a photo, each weighted
    by how much it raises the category's logit, are summed; what speaks against it is left out.

    Args:
        model: Made by `model.build_classifier`.

    Returns:
        A function of a photo's pixels, `(height, width, 3)`, values in [0, 255], and of the
        numbers of the classes asked about; it gives one map for each, `(rows, columns)` from 0
        (says nothing, or speaks against it) to 1 (speaks for it most), over the photo from edge to
        edge.
    """
    resize, head = model.get_layer("resize"), model.get_layer("head")
    backbone = keras.Model(model.inputs, model.get_layer("vectors").input)  # Compiled only once.

    def heat_maps(pixels: np.ndarray, categories: Sequence[int]) -> list[np.ndarray]:
        resized = np.asarray(resize(pixels[None].astype("float32")))
        maps = np.asarray(backbone.predict_on_batch(resized))[0]
        slopes = _slopes(head, maps.mean(axis=(0, 1)))
        return [_heat(maps @ slopes[:, number]) for number in categories]

    return heat_maps


def _slopes(head: Any, vector: np.ndarray) -> np.ndarray:
    """Return how much each part of a vector raises each logit, `(parts, classes)`.

    As quotients of differences: Keras has no derivatives that work under all its backends, and
    between the kinks of ReLU a head is linear.
    """
    step = _STEP * max(float(np.abs(vector).max()), 1e-6)
    moved = vector + step * np.eye(len(vector), dtype="float32")
    logits = np.asarray(head.predict_on_batch(np.concatenate([vector[None], moved])))
    return (logits[1:] - logits[:1]) / step


def _heat(raised: np.ndarray) -> np.ndarray:
    heat = np.maximum(raised, 0)
    return heat / heat.max() if heat.max() > 0 else heat


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over a photo in greys: the hotter, the brighter its colour and the denser.

    Args:
        pixels: `(height, width, 3)` uint8.
        heat: See `explainer`.

    Returns:
        Pixels of the same shape, uint8.
    """
    height, width = pixels.shape[:2]
    small = Image.fromarray(heat.astype("float32"))
    wide = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), "float32")[..., None]
    colours = colormaps[_COLOURS](wide)[..., :3] * 255
    hidden = _STRENGTH * wide[..., None]
    return (grey * (1 - hidden) + colours * hidden).round().astype("uint8")
