"""Photos that wait at the same time go through the model together, in one thread of its own."""

import collections
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]  # Pixels of a batch to a row for each photo.


class _Waiting(NamedTuple):
    pixels: np.ndarray
    answer: Future


class ModelQueue:
    """Photos in, rows out; while the model works on a batch, the next one gathers.

    A lone photo never waits for others. Batches have fixed sizes, so that the model is compiled
    for these alone: of five photos four go first. Splitting costs a plain computer next to nothing,
    while filling up to eight would cost it three photos.
    """

    def __init__(self, predict: Predict, sizes: Sequence[int]) -> None:
        """Start the thread.

        Args:
            predict: Pixels `(batch, height, width, 3)` to rows `(batch, ...)`.
            sizes: Sizes of the batches; 1 must be among them.
        """
        self._predict = predict
        self._sizes = sorted(sizes, reverse=True)
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, pixels: np.ndarray) -> Future:
        """Queue one photo, `(height, width, 3)`, all of the same size; return its row to come.

        A row that is cancelled before its batch has begun costs nothing.

        Raises:
            RuntimeError: If the queue is closed.
        """
        answer: Future = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._waiting.append(_Waiting(pixels, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Finish what is queued, then end the thread; returns when it has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while taken := self._take():
            # Some may have been cancelled, so that the rest has no allowed size any more.
            batch = [one for one in taken if one.answer.set_running_or_notify_cancel()]
            while batch:
                size = next(size for size in self._sizes if size <= len(batch))
                self._answer(batch[:size])
                del batch[:size]

    def _take(self) -> list[_Waiting]:
        """Wait for photos and take as many as make the largest batch; none at the end."""
        with self._changed:
            while not (self._waiting or self._closed):
                self._changed.wait()
            size = next((size for size in self._sizes if size <= len(self._waiting)), 0)
            return [self._waiting.popleft() for _ in range(size)]

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            rows = self._predict(np.stack([one.pixels for one in batch]))
        except Exception as error:  # The next batch may well go.
            for one in batch:
                one.answer.set_exception(error)
        else:
            for one, row in zip(batch, rows, strict=True):
                one.answer.set_result(row)
