"""Tests of the directions of vectors."""

import numpy as np

from fashion_keras.check import directions as module
from fashion_keras.check.directions import directions


def test_rows_of_all_arrays_come_in_order_with_the_length_of_one(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 2)
    blocks = list(directions([np.array([[3.0, 4], [0, 0], [5, 0]]), np.array([[0.0, -2]])]))
    assert [block.shape for block in blocks] == [(2, 2), (1, 2), (1, 2)]
    expected = np.array([[0.6, 0.8], [0, 0], [1, 0], [0, -1]], "float32")
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=1e-6)
