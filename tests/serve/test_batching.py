"""The queue in front of the model: which photos go together, and what becomes of each."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future, wait

import numpy as np
import pytest

from fashion_keras.serve.batching import ModelQueue


def queued(
    levels: Iterable[int], sizes: list[int], cancelled: Iterable[int] = ()
) -> tuple[list[Future], list[int]]:
    """Queue grey photos, and cancel some, while the model works on a first one.

    The model answers with the level of each photo, and fails for 13.

    Returns:
        The row of each photo, and the sizes of the batches that the model received.
    """
    begun, go, batches = threading.Event(), threading.Event(), []

    def model(pixels: np.ndarray) -> np.ndarray:
        batches.append(len(pixels))
        begun.set()
        assert go.wait(20)
        if 13 in pixels:
            raise ValueError("unlucky")
        return pixels[:, 0, 0, 0]

    queue = ModelQueue(model, sizes)
    queue.submit(np.zeros((4, 4, 3)))
    assert begun.wait(20)
    rows = [queue.submit(np.full((4, 4, 3), level)) for level in levels]
    assert all(rows[number].cancel() for number in cancelled)
    go.set()
    wait(rows, 20)
    return rows, batches


def test_waiting_photos_go_together_in_fixed_sizes() -> None:
    rows, batches = queued(range(1, 8), [1, 4, 2])
    assert [row.result() for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert batches == [1, 4, 2, 1]


def test_cancelled_photos_cost_nothing_and_sizes_stay_fixed() -> None:
    rows, batches = queued(range(1, 5), [1, 2, 4], cancelled=[1])
    assert [rows[number].result() for number in (0, 2, 3)] == [1, 3, 4]
    assert batches == [1, 2, 1]


def test_an_error_reaches_only_its_batch() -> None:
    (*bad, good), _ = queued([13, 1, 2], [1, 2])
    for row in bad:
        with pytest.raises(ValueError, match="unlucky"):
            row.result()
    assert good.result() == 2
