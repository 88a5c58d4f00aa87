"""Looks at the vectors as a whole: photos unlike all others, and a map of all in two dimensions."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fashion_keras.check.directions import directions
from fashion_keras.check.findings import Finding
from fashion_keras.check.photo_facts import PhotoFacts
from fashion_keras.features import Features

_DIMENSIONS = 50  # What is left of 2048: enough to tell photos apart, few enough to compare all.
_NEIGHBOURS = 10
_COMPARED = 2**24  # Pairs of photos compared at once.
# Distances of outliers lie so many robust standard deviations over the median.
_FAR = 5.0
_MOST_ON_MAP = 5000
_PASSES, _REPELLED, _STEP = 300, 5, 0.3  # Of the map's layout.


def reduce_vectors(vectors: Sequence[Features]) -> np.ndarray:
    """Return directions of vectors as positions on their principal axes, `(photos, up to 50)`.

    Args:
        vectors: One or more arrays `(photos, 2048)`.
    """
    count = sum(map(len, vectors))
    size = vectors[0].shape[1]
    middle, squares = np.zeros(size), np.zeros((size, size))
    for block in directions(vectors):
        middle += block.sum(axis=0) / count
        squares += block.T @ block
    _, axes = np.linalg.eigh(squares - count * np.outer(middle, middle))
    main = axes[:, ::-1][:, :_DIMENSIONS].astype("float32")
    return np.concatenate(
        [(block - middle.astype("float32")) @ main for block in directions(vectors)]
    )


def find_nearest(points: np.ndarray, count: int = _NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other points of each, and how far they are.

    Args:
        points: `(photos, dimensions)`.
        count: How many; fewer if there are not so many others.

    Returns:
        Places and distances, both `(photos, count)`.
    """
    count = min(count, len(points) - 1)
    squares = (points**2).sum(axis=1)
    places, distances = [], []
    rows = max(1, _COMPARED // len(points))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        far = block @ (-2 * points.T)
        far += squares[start : start + rows, None]
        far += squares
        far[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        # Copied: a slice would hold on to the places of all photos.
        nearest = np.argpartition(far, count - 1, axis=1)[:, :count].copy()
        places.append(nearest)
        distances.append(np.sqrt(np.maximum(np.take_along_axis(far, nearest, axis=1), 0)))
    return np.concatenate(places), np.concatenate(distances)


def find_outliers(distances: np.ndarray) -> list[int]:
    """Return the places of photos that are far from all others, the farthest first.

    Args:
        distances: To the nearest others, `(photos, count)`.
    """
    mean = distances.mean(axis=1)
    middle = np.median(mean)
    spread = 1.4826 * np.median(np.abs(mean - middle))  # The standard deviation, were it normal.
    far = np.flatnonzero(mean > middle + _FAR * max(spread, 1e-6))
    return [int(place) for place in far[np.argsort(-mean[far])]]


def outlier_findings(outliers: Sequence[int], photos: Sequence[PhotoFacts]) -> list[Finding]:
    """Name the photos that are unlike all others."""
    if not outliers:
        return []
    items = [f"{photos[place].name} ({photos[place].label})" for place in outliers]
    return [
        Finding(
            "outliers",
            f"photos that are unlike all others: {len(outliers)}",
            "Look whether they belong here (outliers.png shows the farthest).",
            items,
        )
    ]


def lay_out(points: np.ndarray, seed: int) -> np.ndarray:
    """Put points on a plane so that neighbours stay neighbours.

    Neighbours attract each other, pairs drawn at random repel each other, after LargeVis (Tang et
    al. 2016). Distances between groups mean nothing; who is in a group does.

    Args:
        points: `(photos, dimensions)`.
        seed: Of the draws.

    Returns:
        Positions, `(photos, 2)`.
    """
    count = len(points)
    nearest, _ = find_nearest(points)
    one, other = np.repeat(np.arange(count), nearest.shape[1]), nearest.ravel()
    plane = points[:, :2] / max(float(points[:, :2].std()), 1e-12)
    generator = np.random.default_rng(seed)
    for number in range(_PASSES):
        moved = np.zeros((count, 2))
        gap = plane[one] - plane[other]
        pull = gap / (1 + (gap**2).sum(axis=1, keepdims=True)) / nearest.shape[1]
        _add(moved, one, -pull)
        _add(moved, other, pull)
        first = np.repeat(np.arange(count), _REPELLED)
        gap = plane[first] - plane[generator.integers(count, size=len(first))]
        square = (gap**2).sum(axis=1, keepdims=True)
        _add(moved, first, gap / (0.1 + square) / (1 + square) / _REPELLED)
        plane = plane + _STEP * 8 * (1 - number / _PASSES) * moved.clip(-1, 1)
    return plane


def _add(moved: np.ndarray, places: np.ndarray, steps: np.ndarray) -> None:
    for axis in range(2):
        moved[:, axis] += np.bincount(places, steps[:, axis], minlength=len(moved))


def draw_map(
    points: np.ndarray,
    numbers: np.ndarray,
    labels: Sequence[str],
    marked: Sequence[int],
    seed: int,
    file: Path,
) -> None:
    """Draw the map as PNG, one colour a class; of many photos a random part is drawn.

    Args:
        points: See `reduce_vectors`.
        numbers: Class number of each, `(photos,)`.
        labels: Name of each class.
        marked: Places of points to be circled: probable label errors.
        seed: Of the layout.
        file: Where to save the picture.
    """
    chosen = np.random.default_rng(seed).permutation(len(points))[:_MOST_ON_MAP]
    plane = lay_out(points[chosen], seed)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20" if len(labels) <= 20 else "hsv"]
    dots = []
    for number, label in enumerate(labels):
        mine = plane[numbers[chosen] == number]
        # Every second of twenty colours first: the ones between are paler twins of them.
        place = (2 * number % 20 + (number >= 10)) if len(labels) <= 20 else number / len(labels)
        dots.append(axes.scatter(*mine.T, s=9, color=colours(place)))
        if len(mine):
            across, down = np.median(mine, axis=0).tolist()
            axes.text(across, down, label, weight="bold", ha="center", parse_math=False)
    circled = plane[np.isin(chosen, list(marked))]
    axes.scatter(*circled.T, s=60, facecolors="none", edgecolors="black", linewidths=0.8)
    axes.set(xticks=[], yticks=[], title="photos with like vectors lie together; circles: suspects")
    counts = np.bincount(numbers[chosen], minlength=len(labels))
    told = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True)]
    columns = -(-len(labels) // 30)
    # Labels that begin with `_` are left out, unless they are given like this.
    legend = axes.legend(dots, told, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.savefig(file, dpi=110)
