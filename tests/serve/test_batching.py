"""The queue in front of the model: which photos go together, and what becomes of each."""

import threading

import numpy as np
import pytest

from fashion_keras.serve.batching import ModelQueue


class Recorder:
    """Stands in for a model: notes the sizes of batches, waits when told to, answers the level."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Answer with the first pixel of each photo; of 13 with an error."""
        self.sizes.append(len(pixels))
        self.begun.set()
        self.go.wait()
        levels = pixels[:, 0, 0, 0]
        if 13 in levels:
            raise ValueError("unlucky")
        return levels


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, "float32")


@pytest.fixture
def model() -> Recorder:
    return Recorder()


def held_up(model: Recorder, sizes: list[int]) -> ModelQueue:
    """Return a queue whose model works on a photo of the level 0 until it is let go."""
    queue = ModelQueue(model, sizes)
    model.go.clear()
    queue.submit(grey(0))
    model.begun.wait()
    return queue


def test_photos_that_wait_go_together_in_fixed_sizes(model: Recorder) -> None:
    queue = held_up(model, [1, 4, 2])
    answers = [queue.submit(grey(level)) for level in range(1, 8)]
    model.go.set()
    assert [answer.result(5) for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
    assert model.sizes == [1, 4, 2, 1]
    queue.close()


def test_cancelled_photos_cost_nothing_and_sizes_stay_fixed(model: Recorder) -> None:
    queue = held_up(model, [1, 2, 4])
    answers = [queue.submit(grey(level)) for level in range(1, 5)]
    assert answers[1].cancel()
    model.go.set()
    assert [answers[at].result(5) for at in (0, 2, 3)] == [1, 3, 4]
    assert model.sizes == [1, 2, 1]
    queue.close()


def test_an_error_reaches_its_batch_alone(model: Recorder) -> None:
    queue = held_up(model, [1, 2])
    bad = [queue.submit(grey(level)) for level in (13, 1)]
    good = queue.submit(grey(2))
    model.go.set()
    for answer in bad:
        with pytest.raises(ValueError, match="unlucky"):
            answer.result(5)
    assert good.result(5) == 2
    queue.close()


def test_a_closed_queue_finishes_what_it_has_and_takes_no_more(model: Recorder) -> None:
    queue = held_up(model, [1])
    answer = queue.submit(grey(5))
    closing = threading.Thread(target=queue.close)
    closing.start()
    model.go.set()
    closing.join(5)
    assert answer.result(0) == 5
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(grey(6))
