"""Photos for the page: the worst predictions with heat maps, and some of each kind of mistake."""

import base64
import collections
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.data.photo import read_photo
from fashion_keras.grad_cam import explainer, overlay
from fashion_keras.report.outcome import Predictions

TOP = 18  # Photos with heat maps.
_THUMBNAILS = 300  # In all; about 1.5 MB.
_SIDE, _SMALL = 260, 112  # Longest side in pixels.
_WRONG, _CORRECT = 12, 4  # Most thumbnails of one cell.


def worst_predictions(scored: Predictions, files: Mapping[str, Path], model: Any) -> list[dict]:
    """Return the photos with the highest losses and their heat maps, the highest first.

    `files` has the path of each photo by its name; `model` is the classifier's Keras model.
    """
    explain = explainer(model)
    found = []
    for at in scored.top_losses(TOP):
        pixels = read_photo(files[scored.names[at]]).pixels
        true, predicted = int(scored.true[at]), int(scored.predicted[at])
        classes = list(dict.fromkeys([predicted, true]))
        small = _reduced(pixels, _SIDE)
        found.append(
            {
                "file": scored.names[at],
                "true": scored.labels[true],
                "predicted": scored.labels[predicted],
                "correct": true == predicted,
                "probability": float(scored.confidence[at]),
                "true_probability": float(scored.true_probability[at]),
                "loss": float(scored.losses[at]),
                "photo": _picture(small),
                "heats": [
                    {"label": scored.labels[number], **_picture(overlay(small, heat))}
                    for number, heat in zip(classes, explain(pixels, classes), strict=True)
                ],
            }
        )
    return found


def cells(scored: Predictions, files: Mapping[str, Path]) -> list[dict]:
    """Return the cells of the confusion matrix with photos; the most frequent mistakes first.

    Of correct predictions the least confident are shown, of mistakes the most confident; fewer of
    each cell if there are many cells.
    """
    counts = collections.Counter(zip(scored.true.tolist(), scored.predicted.tolist(), strict=True))
    order = sorted(counts, key=lambda pair: (pair[0] == pair[1], -counts[pair], pair))
    share = max(1, _THUMBNAILS // len(order))
    found = []
    for pair in order:
        true, predicted = pair
        members = np.flatnonzero((scored.true == true) & (scored.predicted == predicted))
        sign, most = (1, _CORRECT) if true == predicted else (-1, _WRONG)
        ordered = members[np.argsort(sign * scored.confidence[members], kind="stable")]
        found.append(
            {
                "id": cell_id(true, predicted),
                "true": scored.labels[true],
                "predicted": scored.labels[predicted],
                "correct": true == predicted,
                "count": counts[pair],
                "share": counts[pair] / int((scored.true == true).sum()),
                "photos": [_thumbnail(scored, at, files) for at in ordered[: min(share, most)]],
            }
        )
    return found


def _thumbnail(scored: Predictions, at: int, files: Mapping[str, Path]) -> dict:
    name = scored.names[at]
    picture = _picture(_reduced(read_photo(files[name]).pixels, _SMALL))
    return {"file": name, "probability": float(scored.confidence[at]), **picture}


def cell_id(true: int, predicted: int) -> str:
    """Return the id of a cell in the page; made of numbers, since labels may be any text."""
    return f"cell-{true}-{predicted}"


def _reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    return np.asarray(image)


def _picture(pixels: np.ndarray) -> dict:
    """Return a picture as a data URL, with its size."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=76, optimize=True)
    text = base64.b64encode(packed.getvalue()).decode()
    height, width = pixels.shape[:2]
    return {"address": f"data:image/jpeg;base64,{text}", "width": width, "height": height}
