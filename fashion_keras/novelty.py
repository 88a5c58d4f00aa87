"""Recognises photos that show none of the classes, by the distance of their features to all."""

import io
from pathlib import Path

import numpy as np

from fashion_keras.config import InputError

NONE = "none of these"  # The category of a photo that is far from all classes.
NOVELTY = "novelty"  # The key of what is known about it in the metadata of a saved file.
CLASS_MEANS = "class_means"  # Where the means are: a member of a `.keras` file, a text in `.onnx`.
PASSED = 0.95  # Share of the photos for validation that the threshold lets pass.


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
    units = _units(features)
    means = [units[numbers == number].mean(axis=0) for number in range(classes)]
    return _units(np.stack(means)).astype("float16")


def distances(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the cosine distance of each photo to the nearest class mean, `(photos,)`, in [0, 2].

    Args:
        features: `(photos, channels)`.
        means: See `class_means`.
    """
    return 1 - (_units(features) @ means.T.astype("float32")).max(axis=1)


def threshold(own: np.ndarray, others: np.ndarray) -> float:
    """Return the distance above which a photo shows none of the classes.

    Args:
        own: Distances of photos of the classes, not trained on; at least one.
        others: Distances of photos of none of the classes; there may be none.

    Returns:
        The least distance that lets `PASSED` of `own` pass; with `others`, the one that is right
        most often (Youden 1950): the share of `own` that passes and that of `others` that does not
        are as high as possible together.
    """
    if not len(others):
        return float(np.quantile(own, PASSED, method="higher"))
    passed = np.sort(own)
    shares = np.arange(1, len(passed) + 1) / len(passed)
    refused = (others[:, None] > passed).mean(axis=0)
    best = np.flatnonzero(np.isclose(shares + refused, (shares + refused).max()))[-1]
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
    return line


def to_bytes(means: np.ndarray) -> bytes:
    """Return class means as the content of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, means, allow_pickle=False)
    return file.getvalue()


def read_class_means(content: bytes, metadata: dict, path: Path) -> np.ndarray | None:
    """Return the class means in a `.npy` file's content; None if there is nothing.

    Raises:
        InputError: If `content` is damaged, or does not go with the metadata of the file `path`.
    """
    if not content or NOVELTY not in metadata:
        return None
    try:
        means = np.load(io.BytesIO(content), allow_pickle=False)
        if means.ndim != 2 or len(means) != len(metadata["labels"]):
            raise ValueError(f"class means of the shape {means.shape}")
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged (copy or download it again): {error}") from error
    return means


def _units(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype("float32")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
