"""Tests of what features reveal: label errors, outliers and the map."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fashion_keras.check.embeddings import (
    draw_map,
    find_outliers,
    find_suspects,
    predict_labels,
    reduce_features,
)
from fashion_keras.data.split import deal_folds

NUMBERS = np.repeat([0, 1, 2], 40)


def clusters() -> np.ndarray:
    """Return features around three directions."""
    noise = np.random.default_rng(1).normal(0, 0.05, (len(NUMBERS), 20))
    return (np.eye(20)[NUMBERS] + noise).astype("float32")


@pytest.mark.parametrize(
    ("numbers", "probabilities", "expected"),
    [
        # Thresholds: the mean of 0.9, 0.8, 0.1 for the first class, of 0.7, 0.6 for the second.
        ([0, 0, 0, 1, 1], [0.9, 0.8, 0.1, 0.3, 0.4], {2: 1}),
        # The second class is never sure.
        ([0, 0, 0, 1, 1], [0.9, 0.9, 0.6, 0.7, 0.7], {2: 1}),
        # The most confident comes first.
        ([0, 0, 0, 0, 1], [0.4, 0.1, 0.9, 0.9, 0.5], {1: 1, 0: 1}),
    ],
)
def test_suspects_reach_the_threshold_of_another_class(numbers, probabilities, expected):
    table = np.array([probabilities, [1 - one for one in probabilities]]).T
    found = find_suspects(np.array(numbers), table)
    assert list(found.items()) == list(expected.items())


def test_each_photo_is_predicted_from_other_folds():
    points, numbers = reduce_features([clusters()], seed=1), NUMBERS.copy()
    numbers[5] = 1
    folds = deal_folds(numbers, [], seed=1)
    probabilities = predict_labels(points, numbers, folds)
    assert probabilities is not None
    assert find_suspects(numbers, probabilities) == {5: 0}
    points[5] = points[100]  # Another photo does not change the prediction of its own fold.
    changed = predict_labels(points, numbers, folds)
    assert changed is not None
    same = (folds == folds[5]) & (np.arange(len(folds)) != 5)
    np.testing.assert_allclose(probabilities[same], changed[same], atol=1e-4)


def test_class_in_one_fold_is_predicted_with_zero_and_one_class_not_at_all():
    points, folds = reduce_features([clusters()], seed=1), np.arange(len(NUMBERS)) % 2
    alone = np.zeros(len(NUMBERS), int)
    alone[[4, 6]], alone[[1, 2]] = 1, 2
    probabilities = predict_labels(points, alone, folds)
    assert probabilities is not None
    assert probabilities[[4, 6], 1].tolist() == [0, 0]
    assert predict_labels(points, np.where(alone == 1, 1, 0), folds) is None


def test_reduced_features_ignore_lengths_and_how_they_are_stored():
    whole = reduce_features([clusters()], seed=1)
    parts = reduce_features([clusters()[:50] * 7, clusters()[50:]], seed=1)
    assert whole.dtype == "float32"
    np.testing.assert_allclose(whole, parts, atol=1e-4)
    own, other = np.linalg.norm(whole[0] - whole[1]), np.linalg.norm(whole[0] - whole[50])
    assert other > 3 * own


def test_photo_far_from_all_others_is_the_outlier():
    assert find_outliers(np.concatenate([clusters(), np.full((1, 20), 5.0)])) == [120]
    assert find_outliers(np.ones((3, 2))) == []


def test_map_shows_each_photo_and_class(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_map(clusters(), NUMBERS, ["cap", "hat", "bag"], [0, 50], 1, tmp_path / "map.png")
    axes = drawn[0].axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]  # pyright: ignore
    assert labels == ["cap (40)", "hat (40)", "bag (40)"]
    groups = [np.asarray(dots.get_offsets()) for dots in axes.collections]
    assert [len(group) for group in groups] == [40, 40, 40, 2]
    middle = np.array([group.mean(axis=0) for group in groups[:3]])
    gaps = np.linalg.norm(np.concatenate(groups[:3])[:, None] - middle, axis=-1)
    assert (gaps.argmin(axis=1) == NUMBERS).mean() > 0.98
