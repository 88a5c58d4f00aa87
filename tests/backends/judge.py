"""Decides whether what an environment found is right."""

import numpy as np

from tests.backends.environments import Found

OLDEST_KERAS = "3.15.0"  # Older versions do not know `input_axes`, which 3.15 writes.
LIMIT = 1e-4  # The largest difference of a probability from TensorFlow's.
REPEATED_LIMIT = 1e-6  # The same process, the same photo: only sums in another order.


def is_too_old(keras_version: str) -> bool:
    """Tell whether this version of Keras is expected not to read the file."""
    return _numbers(keras_version) < _numbers(OLDEST_KERAS)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of probabilities, infinite if shapes do not go together.

    Args:
        found: Of the first photos or of all, `(photos, classes)`.
        expected: Of all photos.
    """
    first = expected[: len(found)]
    if found.shape != first.shape or not found.size:
        return float("inf")
    return float(np.abs(found.astype("float64") - first).max())


def problems(found: Found, base: Found, alone: bool = True) -> list[str]:
    """Return what is wrong, a sentence each; an empty list if all is right.

    Args:
        found: Of the environment that is judged.
        base: Of TensorFlow.
        alone: Whether this project must not be installed there.
    """
    return [
        *_wrong_probabilities(found.probabilities, base.probabilities, found.facts["precision"]),
        *_wrong_labels(found.labels, base.probabilities["called"].shape[-1]),
        *(["fashion_keras is installed there"] if alone and found.facts["has_project"] else []),
    ]


def _wrong_probabilities(
    found: dict[str, np.ndarray], base: dict[str, np.ndarray], precision: str
) -> list[str]:
    expected = base["called"]
    if len(found["called"]) != len(expected):
        return [f"the model gave {len(found['called'])} answers for {len(expected)} photos"]
    comparisons = [
        ("called photo by photo, differs from TensorFlow", "called", expected, LIMIT),
        ("called again, differs from before", "repeated", found["called"], REPEATED_LIMIT),
        ("saved and loaded again, differs from TensorFlow", "saved_again", expected, LIMIT),
    ]
    if precision == "float32":
        text = "under `predict`, differs from TensorFlow"
        comparisons.append((text, "predicted", expected, LIMIT))
    return [
        f"the model, {text} by {difference(found[name], other):.2g}; at most {limit:g} is allowed"
        for text, name, other, limit in comparisons
        if not difference(found[name], other) <= limit  # Also true of NaN.
    ]


def _wrong_labels(labels: dict[str, dict], classes: int) -> list[str]:
    expected = labels["original"]["member"]
    places = {
        "the layer's name": labels["original"]["layer"],
        "the layer's name, saved again,": labels["saved_again"]["layer"],
    }
    wrong = [
        f"{place} says {received}, but fashion.json {expected}"
        for place, received in places.items()
        if received != expected
    ]
    if not expected or len(expected) != classes:
        wrong.append(f"fashion.json holds the labels {expected} for {classes} classes")
    return wrong
