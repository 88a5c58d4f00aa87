"""Photos for the page: the worst predictions with their heat maps, and some of each cell."""

import base64
import collections
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from fashion_keras.data.photo import read_photo
from fashion_keras.grad_cam import explainer, overlay
from fashion_keras.report.outcome import Tested

TOP = 18  # Photos with heat maps.
_SIDE, _SMALL_SIDE = 260, 112  # Longest side in pixels.
_MOST_SMALL = 300  # Small photos in all: about 1.5 MB.
_WRONG, _RIGHT = 12, 4  # Most small photos of one cell.


def top_losses(tested: Tested, files: Mapping[str, Path], model: keras.Model) -> list[dict]:
    """Return the photos whose true class got the least probability, with heat maps.

    Args:
        tested: What the saved file said.
        files: Where each photo lies, by its name.
        model: That of the saved file, for Grad-CAM.
    """
    worst = tested.top_losses(TOP)
    # Of a wrong prediction both are shown: what spoke for it, and what for the truth.
    asked = [list(dict.fromkeys([int(tested.predicted[at]), int(tested.true[at])])) for at in worst]
    photos = [read_photo(files[tested.names[at]]).pixels for at in worst]
    maps = map(explainer(model), photos, asked)
    return [
        _loss(tested, at, pixels, dict(zip(categories, heats, strict=True)))
        for at, pixels, categories, heats in zip(worst, photos, asked, maps, strict=True)
    ]


def _loss(tested: Tested, at: int, pixels: np.ndarray, heats: dict[int, np.ndarray]) -> dict:
    small = _reduced(pixels, _SIDE)
    return {
        "file": tested.names[at],
        "true": tested.labels[tested.true[at]],
        "predicted": tested.labels[tested.predicted[at]],
        "right": bool(tested.correct[at]),
        "probability": float(tested.confidence[at]),
        "true_probability": float(tested.true_probability[at]),
        "loss": float(tested.losses[at]),
        "photo": _picture(small),
        "heats": [
            {"label": tested.labels[number], **_picture(overlay(small, heat))}
            for number, heat in heats.items()
        ],
    }


def cells(tested: Tested, files: Mapping[str, Path]) -> list[dict]:
    """Return photos of each cell of the confusion matrix; the most frequent mistakes first.

    Of right predictions the least sure are shown, of wrong ones the surest. Where there are too
    many for one page, the name alone is told.
    """
    members: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
    for at, (true, said) in enumerate(zip(tested.true, tested.predicted, strict=True)):
        members[int(true), int(said)].append(at)
    order = sorted(members, key=lambda pair: (pair[0] == pair[1], -len(members[pair]), pair))
    share = max(1, _MOST_SMALL // len(order))
    found, left = [], _MOST_SMALL
    for pair in order:
        shown = _members_shown(tested, members[pair], share)
        found.append(_cell(tested, files, pair, len(members[pair]), shown, left))
        left -= len(shown)
    return found


def _members_shown(tested: Tested, members: list[int], share: int) -> list[int]:
    right = bool(tested.correct[members[0]])
    sign = 1 if right else -1
    ordered = sorted(members, key=lambda at: (sign * tested.confidence[at], at))
    return ordered[: min(share, _RIGHT if right else _WRONG)]


def _cell(
    tested: Tested,
    files: Mapping[str, Path],
    pair: tuple[int, int],
    count: int,
    shown: Sequence[int],
    left: int,
) -> dict:
    photos = [
        {"file": tested.names[at], "probability": float(tested.confidence[at])}
        | (_small_picture(files[tested.names[at]]) if number < left else {"address": ""})
        for number, at in enumerate(shown)
    ]
    true, predicted = (tested.labels[number] for number in pair)
    return {
        "id": cell_id(*pair),
        "true": true,
        "predicted": predicted,
        "right": pair[0] == pair[1],
        "count": count,
        "photos": photos,
    }


def cell_id(true: int, predicted: int) -> str:
    """Return the name of a cell inside the page; of numbers, since labels may be any text."""
    return f"cell-{true}-{predicted}"


def _small_picture(file: Path) -> dict:
    return _picture(_reduced(read_photo(file).pixels, _SMALL_SIDE))


def _reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    return np.asarray(image)


def _picture(pixels: np.ndarray) -> dict:
    """Return a picture as an address that holds all of it, with its size."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=76, optimize=True)
    text = base64.b64encode(packed.getvalue()).decode()
    height, width = pixels.shape[:2]
    return {"address": f"data:image/jpeg;base64,{text}", "width": width, "height": height}
