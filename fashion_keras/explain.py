"""Shows which part of a photo speaks for a category: Grad-CAM."""

from collections.abc import Sequence
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


def heat_maps(
    model: keras.Model, photos: Sequence[np.ndarray], categories: Sequence[Sequence[int]]
) -> list[list[np.ndarray]]:
    """Return where photos speak for categories.

    Selvaraju et al. 2017, "Grad-CAM": the maps that the backbone gives for a photo, each weighted
    by how much it raises the category's logit, are summed; what speaks against it is left out.

    Args:
        model: Made by `model.build_classifier`.
        photos: Pixels, each `(height, width, 3)`, values in [0, 255].
        categories: Of each photo, the numbers of the classes asked about.

    Returns:
        Of each photo one map for each class, `(rows, columns)` from 0 (says nothing, or speaks
        against it) to 1 (speaks for it most), over the photo from edge to edge.
    """
    resize = model.get_layer("resize")
    backbone = keras.Model(model.inputs, model.get_layer("vectors").input)
    found = []
    for pixels, asked in zip(photos, categories, strict=True):
        resized = np.asarray(resize(pixels[None].astype("float32")))
        maps = np.asarray(backbone.predict_on_batch(resized))[0]
        slopes = _slopes(model.get_layer("head"), maps.mean(axis=(0, 1)))
        found.append([_heat(maps @ slopes[:, number]) for number in asked])
    return found


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
        heat: See `heat_maps`.

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
