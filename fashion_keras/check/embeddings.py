"""Examines the features of photos: probable label errors, outliers, and a map of all photos."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from fashion_keras.features import Features
from fashion_keras.figures import drawable_labels

_BLOCK = 2048  # Photos whose features are in memory at the same time.
_SAMPLE = 5000  # Photos on the map, and photos that the components are computed of, at most.
_COMPONENTS = 256  # Of 2048 numbers: labels are predicted about as well (0.785, 0.793 correct).
CLOSE_COMPONENTS = 50  # The first of these, for distances and the map.
_NEIGHBOURS = 10
_FAR = 5.0  # Distance of outliers above the median, in robust standard deviations.


def reduce_features(features: Sequence[Features], seed: int) -> np.ndarray:
    """Return the first principal components of normalised features, `(photos, up to 256)` float32.

    `features` are those of each split. Only a block of photos and a sample, of which the
    components are computed, are in memory at once.
    """
    step = _step(sum(map(len, features)))
    sample = np.concatenate([np.asarray(normalize(part[::step])) for part in features])
    pca = PCA(min(_COMPONENTS, *sample.shape), svd_solver="randomized", random_state=seed)
    with np.errstate(invalid="ignore"):  # Copies of one photo have no variance.
        pca.fit(sample)
    starts = ((part, start) for part in features for start in range(0, len(part), _BLOCK))
    blocks = (part[start : start + _BLOCK] for part, start in starts)
    return np.concatenate([pca.transform(normalize(block)) for block in blocks])


def _step(photos: int) -> int:
    """Return the distance from one photo of the sample to the next."""
    return -(-photos // _SAMPLE)


def predict_labels(points: np.ndarray, numbers: np.ndarray, folds: np.ndarray) -> np.ndarray | None:
    """Return probabilities `(photos, classes)`, of each photo from those of the other folds only.

    None if the other photos of a fold are of one class, so that there is nothing to compare.
    """
    if any(len(np.unique(numbers[folds != fold])) < 2 for fold in np.unique(folds)):
        return None
    model, split = LogisticRegression(C=10, max_iter=1000), PredefinedSplit(folds)
    with warnings.catch_warnings():  # A class of few photos may be in one fold only.
        warnings.filterwarnings("ignore", "Number of classes in training fold", RuntimeWarning)
        predicted = cross_val_predict(model, points, numbers, cv=split, method="predict_proba")
    return np.asarray(predicted)


def find_suspects(numbers: np.ndarray, probabilities: np.ndarray) -> dict[int, int]:
    """Return photos that are confidently of another class, the most confident first.

    A class's threshold is its mean probability over the photos with that label; a photo counts as
    the class with the highest probability of those that reach their threshold, and is a suspect if
    that is not its label (confident learning: Northcutt, Jiang and Chuang 2021). So a class of
    which the model is never sure does not fill the list.

    Args:
        numbers: Class number of each photo's label, `(photos,)`; each class occurs.
        probabilities: Out-of-fold, `(photos, classes)`.

    Returns:
        The likelier class number of each suspect, by the suspect's place.
    """
    classes = range(probabilities.shape[1])
    thresholds = [probabilities[numbers == label, label].mean() for label in classes]
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    likelier = confident.argmax(axis=1)
    suspects = np.flatnonzero((confident.max(axis=1) > 0) & (likelier != numbers))
    given = probabilities[suspects, numbers[suspects]]
    order = np.argsort(given - probabilities[suspects, likelier[suspects]], kind="stable")
    return {int(place): int(likelier[place]) for place in suspects[order]}


def find_outliers(points: np.ndarray) -> list[int]:
    """Return the places of photos that are far from all others, the farthest first."""
    count = min(_NEIGHBOURS, len(points) - 1)
    neighbours = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points)
    mean = neighbours.kneighbors()[0].mean(axis=1)
    median = np.median(mean)
    deviation = 1.4826 * np.median(np.abs(mean - median))  # The standard one, if it were normal.
    far = np.flatnonzero(mean > median + _FAR * max(deviation, 1e-6))
    return far[np.argsort(-mean[far])].tolist()


def draw_map(
    points: np.ndarray,
    numbers: np.ndarray,
    labels: Sequence[str],
    marked: Sequence[int],
    seed: int,
    file: Path,
) -> None:
    """Draw a map of the photos as PNG (t-SNE), one colour a class; of many a sample.

    `points` are the reduced features, `(photos, components)`, `numbers` the class numbers, `marked`
    the places of photos to be circled.
    """
    chosen = np.arange(0, len(points), _step(len(points)))
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    tsne = TSNE(init="random", perplexity=perplexity, max_iter=500, random_state=seed)
    plane, numbers = tsne.fit_transform(points[chosen]), numbers[chosen]
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    palette = matplotlib.colormaps["tab20" if len(labels) <= 20 else "hsv"]
    colours = palette(np.linspace(0, 1, len(labels)))
    for number, label in enumerate(drawable_labels(labels)):
        own = plane[numbers == number]
        axes.scatter(*own.T, s=9, color=colours[number], label=f"{label} ({len(own)})")
    circled = plane[np.isin(chosen, list(marked))]
    axes.scatter(*circled.T, s=60, facecolors="none", edgecolors="black", linewidths=0.8)
    axes.set(xticks=[], yticks=[], title="similar photos are close; circles: probable label errors")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(labels) // 30))
    figure.savefig(file, dpi=110)
