"""The queue in front of the model: which photos go together, and what becomes of each."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from fashion_keras.serve.batching import ModelQueue


class Recorder:
    """A model that records the sizes of batches and answers with the first pixel of each photo."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Wait, then answer; fail for 13."""
        self.sizes.append(len(pixels))
        self.begun.set()
        assert self.go.wait(20)
        levels = pixels[:, 0, 0, 0]
        if 13 in levels:
            raise ValueError("unlucky")
        return levels


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, "float32")


@pytest.fixture
def model() -> Recorder:
    return Recorder()


@pytest.fixture
def busy(model: Recorder) -> Callable[..., ModelQueue]:
    """Return what makes a queue whose model works on a first photo until it is let go."""

    def make(*sizes: int) -> ModelQueue:
        queue = ModelQueue(model, sizes)
        queue.submit(grey(0))
        assert model.begun.wait(20)
        return queue

    return make


def test_waiting_photos_go_together_in_fixed_sizes(
    model: Recorder, busy: Callable[..., ModelQueue]
) -> None:
    queue = busy(1, 4, 2)
    rows = [queue.submit(grey(level)) for level in range(1, 8)]
    model.go.set()
    assert [row.result(5) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert model.sizes == [1, 4, 2, 1]


def test_cancelled_photos_cost_nothing_and_sizes_stay_fixed(
    model: Recorder, busy: Callable[..., ModelQueue]
) -> None:
    queue = busy(1, 2, 4)
    rows = [queue.submit(grey(level)) for level in range(1, 5)]
    assert rows[1].cancel()
    model.go.set()
    assert [rows[at].result(5) for at in (0, 2, 3)] == [1, 3, 4]
    assert model.sizes == [1, 2, 1]


def test_an_error_reaches_only_its_batch(model: Recorder, busy: Callable[..., ModelQueue]) -> None:
    queue = busy(1, 2)
    bad = [queue.submit(grey(level)) for level in (13, 1)]
    good = queue.submit(grey(2))
    model.go.set()
    for row in bad:
        with pytest.raises(ValueError, match="unlucky"):
            row.result(5)
    assert good.result(5) == 2
