"""Recognises photos that show none of the classes, by the distance of their features to all."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashion_keras import cli
from fashion_keras.classifier import (
    CLASS_MEANS,
    NONE,
    NOVELTY,
    Prediction,
    distances,
    load_classifier,
    unit_vectors,
)
from fashion_keras.config import InputError
from fashion_keras.data.layout import OTHER
from fashion_keras.evaluate import Labelled, labelled, predict_photos
from fashion_keras.saving import add_metadata

if TYPE_CHECKING:
    from fashion_keras.data.prepare import Prepared

_LEAST_OF_A_CLASS, _MOST_IN_ALL = 5, 300  # Photos of which the class means are computed.
PASSED = 0.95  # Share of the photos for validation that the threshold lets pass.
_FEW = 50  # Photos for validation.
_LEAST_PASSED = 0.9  # With photos of other things: to refuse one's own is worse.


def class_means(features: np.ndarray, numbers: np.ndarray, classes: int) -> np.ndarray:
    """Return the mean direction of the features of each class.

    The nearest class mean in features that were trained for other classes, too, is a classifier of
    its own (Mensink et al. 2013); the distance to it separates photos of other things better than
    probabilities do (docs/novelty.md).

    Args:
        features: `(photos, channels)`, of photos of each class.
        numbers: Class number of each photo, `(photos,)`.
        classes: How many there are.

    Returns:
        `(classes, channels)` float16, each row of length 1.
    """
    units = unit_vectors(features)
    means = [units[numbers == number].mean(axis=0) for number in range(classes)]
    return unit_vectors(np.stack(means)).astype("float16")


def threshold(own: np.ndarray, others: np.ndarray) -> float:
    """Return the distance above which a photo shows none of the classes.

    Args:
        own: Distances of photos of the classes, not trained on; at least one.
        others: Distances of photos of none of the classes; there may be none.

    Returns:
        The least distance that lets `PASSED` of `own` pass; with `others`, of all that let
        `_LEAST_PASSED` pass the one that is right most often (Youden 1950): the share of `own` that
        passes and that of `others` that does not are as high as possible together.
    """
    if not len(others):
        return float(np.quantile(own, PASSED, method="inverted_cdf"))
    passed = np.sort(own)
    shares = np.arange(1, len(passed) + 1) / len(passed)
    refused = 1 - np.searchsorted(np.sort(others), passed, side="right") / len(others)
    right = np.where(shares >= _LEAST_PASSED, shares + refused, 0)
    best = np.flatnonzero(np.isclose(right, right.max()))[-1]
    # Between the last photo that passes and the next one that does not, if there is one.
    above = others[others > passed[best]]
    return float((passed[best] + above.min()) / 2 if len(above) else passed[best])


def learnt(own: np.ndarray, others: np.ndarray) -> dict:
    """Return the threshold, and what it does to the photos that it was set on.

    `own` and `others` are as for `threshold`.

    Returns:
        `threshold`, the share of `own` that passes (`passed`) of so many `photos`, and the share of
        `others` that does not (`refused`, None without any) of so many (`others`).
    """
    limit = threshold(own, others)
    refused = float((others > limit).mean()) if len(others) else None
    passed = float((own <= limit).mean())
    return {
        "threshold": limit,
        "passed": passed,
        "photos": len(own),
        "refused": refused,
        "others": len(others),
    }


def in_words(known: dict) -> str:
    """Return what `learnt` returns as a line for people."""
    line = (
        f"`{NONE}`: photos farther than {known['threshold']:.3f} from each class; "
        f"{known['passed']:.1%} of {known['photos']} validation photos are not"
    )
    if known["others"]:
        line += f", {known['refused']:.1%} of {known['others']} others are"
    few = "; with so few photos this is little more than a guess"
    return line + (few if known["photos"] < _FEW else "")


def to_bytes(means: np.ndarray) -> bytes:
    """Return class means as the content of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, means, allow_pickle=False)
    return file.getvalue()


@cli.stage("none of these")
def learn_novelty(
    file: Path,
    prepared: Prepared,
    validation: Sequence[tuple[Labelled, Prediction]],
    table: Path,
    cache: Path,
) -> None:
    """Add to a saved file what recognises photos of none of its categories.

    A sample of the photos for training gives the class means, those for validation, with what the
    classifier predicted for them, and those in folders named `other` the threshold. The distances
    of the latter are written to `table`.
    """
    train, others = _sample(labelled(prepared, "train")), labelled(prepared, OTHER)
    classifier = load_classifier(file).for_photos(len(train) + len(others), cache)
    doing = "finding what is none of these"
    found, unreadable = predict_photos(classifier, [*train, *others], doing)
    if unreadable:
        raise InputError(f"This photo can no longer be read: {unreadable[0]}.")
    numbers = np.array([prepared.labels.index(photo.label) for photo in train])
    means = class_means(_features(found[: len(train)]), numbers, len(prepared.labels))
    rest = [*validation, *found[len(train) :]]
    far = distances(_features(rest), means)
    known = learnt(far[: len(validation)], far[len(validation) :])
    add_metadata(file, {NOVELTY: known}, {CLASS_MEANS: to_bytes(means)})
    print(in_words(known), flush=True)
    with table.open("w", newline="", encoding="utf-8") as target:
        rows = csv.writer(target)
        rows.writerow(["file", "split", "distance"])
        for (photo, _), distance in zip(rest, far, strict=True):
            split = OTHER if photo.label == OTHER else "validation"
            rows.writerow([photo.name, split, f"{distance:.6f}"])


def _features(found: Sequence[tuple[Labelled, Prediction]]) -> np.ndarray:
    return np.stack([prediction.features for _, prediction in found])


def _sample(photos: Sequence[Labelled]) -> list[Labelled]:
    """Return photos of each category, evenly spread over its own; few of each are enough."""
    by_label: dict[str, list[Labelled]] = {}
    for photo in photos:
        by_label.setdefault(photo.label, []).append(photo)
    most = max(_LEAST_OF_A_CLASS, _MOST_IN_ALL // len(by_label))
    return [photo for own in by_label.values() for photo in own[:: -(-len(own) // most)]]
