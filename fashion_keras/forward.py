"""Batches of photos to what the frozen backbone gives for them: augmented, computed, narrowed."""

import collections
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from fashion_keras import devices
from fashion_keras.headroom import for_forward
from fashion_keras.memory import Fitting
from fashion_keras.model import build_feature_model

Batch = tuple[Any, Any]  # Pixels `(batch, height, width, 3)` in [0, 255], class numbers `(batch,)`.


def augmented(batches: Iterable, augmentation: keras.Sequential) -> Iterator[Batch]:
    """Yield augmented batches; the next one is made while the backbone works on the last.

    Args:
        batches: Pixels `(batch, height, width, 3)` in [0, 255] and class numbers `(batch,)`.
        augmentation: See `model.build_augmentation`.
    """
    waiting: collections.deque[tuple[Future, Any]] = collections.deque()
    with ThreadPoolExecutor(max_workers=1) as pool:  # One: the draws keep their order.
        for pixels, numbers in batches:
            waiting.append((pool.submit(augmentation, pixels, training=True), numbers))
            if len(waiting) > 1:
                ready, its_numbers = waiting.popleft()
                yield ready.result(), its_numbers
        for ready, numbers in waiting:
            yield ready.result(), numbers


def forward(
    batches: Iterable, backbone: keras.Model, fine_tune_from: str | None, precision: str = "float32"
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield what the backbone gives for each batch, and its class numbers.

    With several devices each works on a batch of its own. A batch that memory does not suffice for
    is computed in parts, which may change the last bits of its numbers.

    Args:
        batches: Pixels `(batch, height, width, 3)` in [0, 255] and class numbers `(batch,)`.
        backbone: See `backbone.build_backbone`.
        fine_tune_from: Name of the block whose input is wanted besides the vectors (see
            `backbone.blocks`).
        precision: What to compute in (see `devices.precision_in_force`).

    Yields:
        `vectors`, `(batch, 2048)`, and, with a cut, `maps`, by name; class numbers `(batch,)`.
    """
    compute = _Compute(backbone, fine_tune_from, precision)
    waiting: list[Batch] = []  # Of one size, at most one for each device.
    for pixels, numbers in batches:
        if waiting and len(waiting[0][1]) != len(numbers):
            yield from compute(waiting)
            waiting = []
        waiting.append((pixels, numbers))
        if len(waiting) == devices.count():
            yield from compute(waiting)
            waiting = []
    if waiting:
        yield from compute(waiting)


class _Compute:
    """The way through the backbone, in parts where memory does not suffice for a whole batch."""

    def __init__(self, backbone: keras.Model, fine_tune_from: str | None, precision: str) -> None:
        with devices.strategy().scope():
            if precision != "float32" or devices.count() > 1:
                backbone = devices.copied(backbone, precision)
            self._step = devices.on_each(build_feature_model(backbone, fine_tune_from))
        self._backbone = backbone
        self._fitting: Fitting | None = None  # The size of photos is told by the first batch.

    def __call__(self, batches: list[Batch]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Return what the backbone gives for batches of one size, and their class numbers."""
        if not self._fitting:
            needed = functools.partial(self._needed, len(batches[0][0][0]))
            self._fitting = Fitting("the backbone", needed)
        found = self._fitting(
            len(batches[0][1]), lambda part: self._step([one[part] for one, _ in batches])
        )
        return [
            (_joined([part[number] for part in found]), np.asarray(numbers))
            for number, (_, numbers) in enumerate(batches)
        ]

    def _needed(self, size: int) -> float:
        return devices.count() * for_forward(self._backbone, size)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def narrowed(rows: np.ndarray, kind: str) -> np.ndarray:
    """Return rows as numbers of a kind that may hold less, such as `<f2`.

    Raises:
        RuntimeError: If one of them is infinite or no number then.
    """
    with np.errstate(over="ignore"):  # What is too large becomes infinite, which is refused.
        rows = rows.astype(kind)
    if not np.isfinite(rows).all():
        raise RuntimeError(f"The backbone gives numbers that {rows.dtype} cannot hold.")
    return rows
