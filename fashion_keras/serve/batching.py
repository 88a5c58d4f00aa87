"""Micro-batching: photos that wait at the same time go through the model together."""

import collections
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np


class ModelQueue:
    """A queue of photos in front of the model, which runs in one thread.

    A lone photo never waits for others; while the model works on a batch, the next one gathers.
    Batches have fixed sizes, so that the model is compiled for these alone: of five photos, four
    go first. Splitting costs next to nothing on a CPU; padding to eight would cost three photos.

    Args:
        predict: Pixels `(batch, height, width, 3)` to rows `(batch, ...)`.
        sizes: Allowed sizes of a batch; 1 must be among them.
    """

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray], sizes: Sequence[int]) -> None:
        self._predict = predict
        self._sizes = sorted(sizes, reverse=True)
        self.largest = self._sizes[0]  # Size of a batch.
        self._waiting: collections.deque[tuple[np.ndarray, Future]] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, pixels: np.ndarray) -> Future:
        """Queue one photo, `(height, width, 3)`, of one size in a batch; return its row to come.

        If it is cancelled before its batch has begun, the photo costs nothing.
        """
        row: Future = Future()
        with self._changed:
            self._waiting.append((pixels, row))
            self._changed.notify()
        return row

    def close(self) -> None:
        """Finish what is queued, then end the thread; returns when it has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _size(self, count: int) -> int:
        return next((size for size in self._sizes if size <= count), 0)

    def _work(self) -> None:
        while taken := self._take():
            # Without those that were cancelled, the rest may need smaller batches.
            photos = [one for one in taken if one[1].set_running_or_notify_cancel()]
            while photos:
                size = self._size(len(photos))
                self._answer(photos[:size])
                del photos[:size]

    def _take(self) -> list[tuple[np.ndarray, Future]]:
        """Wait for photos and return the largest possible batch; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(self._size(len(self._waiting)))]

    def _answer(self, batch: list[tuple[np.ndarray, Future]]) -> None:
        try:
            rows = self._predict(np.stack([pixels for pixels, _ in batch]))
        except Exception as error:  # The next batch may succeed.
            for _, row in batch:
                row.set_exception(error)
        else:
            for (_, row), result in zip(batch, rows, strict=True):
                row.set_result(result)
