"""Tests of neighbours, outliers and the map."""

import tracemalloc

import numpy as np
from matplotlib.figure import Figure

from fashion_keras.check import vector_map
from fashion_keras.check.vector_map import (
    draw_map,
    find_nearest,
    find_outliers,
    lay_out,
    reduce_vectors,
)


def clusters(count=40):
    """Return vectors around three directions."""
    generator = np.random.default_rng(1)
    return np.eye(20)[np.repeat([0, 1, 2], count)] + generator.normal(0, 0.05, (3 * count, 20))


def test_nearest_points_and_their_distances():
    points = np.array([[0.0], [1.0], [3.0], [10.0]])
    places, distances = find_nearest(points, 1)
    assert places.ravel().tolist() == [1, 0, 1, 2]
    assert distances.ravel().tolist() == [1, 1, 2, 7]


def test_neighbours_are_the_same_however_many_pairs_are_compared_at_once(monkeypatch):
    points = clusters().astype("float32")
    places, distances = find_nearest(points)
    monkeypatch.setattr(vector_map, "_COMPARED", 1000)
    np.testing.assert_array_equal(np.sort(find_nearest(points)[0]), np.sort(places))
    np.testing.assert_allclose(np.sort(find_nearest(points)[1]), np.sort(distances), atol=1e-3)


def test_neighbours_take_no_more_memory_than_their_own(monkeypatch):
    monkeypatch.setattr(vector_map, "_COMPARED", 30_000)
    points = np.random.default_rng(1).normal(size=(3000, 5)).astype("float32")
    tracemalloc.start()
    find_nearest(points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6  # All pairs are 36 MB.


def test_reduced_vectors_do_not_depend_on_where_the_arrays_end():
    whole, parts = clusters(), [clusters()[:50], clusters()[50:]]
    np.testing.assert_allclose(
        np.abs(reduce_vectors([whole])), np.abs(reduce_vectors(parts)), atol=1e-3
    )


def test_reduced_vectors_keep_directions_apart_and_forget_lengths():
    points = reduce_vectors([clusters() * 7])
    np.testing.assert_allclose(np.abs(points), np.abs(reduce_vectors([clusters()])), atol=1e-4)
    own, other = np.linalg.norm(points[0] - points[1]), np.linalg.norm(points[0] - points[50])
    assert other > 3 * own


def test_the_far_one_is_the_outlier():
    points = np.concatenate([clusters(), np.full((1, 20), 5.0)])
    assert find_outliers(find_nearest(points)[1]) == [120]


def test_the_map_keeps_neighbours_together():
    plane = lay_out(reduce_vectors([clusters()]), seed=1)
    groups = np.repeat([0, 1, 2], 40)
    places, _ = find_nearest(plane, 5)
    assert (groups[places] == groups[:, None]).mean() > 0.98
    np.testing.assert_array_equal(plane, lay_out(reduce_vectors([clusters()]), seed=1))


def test_the_legend_names_every_class(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    numbers = np.repeat([0, 1, 2], 40)
    labels = ["_old", "$hat", "bag"]
    draw_map(reduce_vectors([clusters()]), numbers, labels, [0], 1, tmp_path / "map.png")
    told = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert told == ["_old (40)", "$hat (40)", "bag (40)"]
