"""Batches of photos to what the frozen backbone gives for them: augmented, computed, narrowed."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from fashion_keras.model import build_feature_model


def augmented(batches: Iterable, augmentation: keras.Sequential) -> Iterator[tuple[Any, Any]]:
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
    batches: Iterable, backbone: keras.Model, cut: str | None
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield what the backbone gives for each batch, and its class numbers.

    Args:
        batches: Pixels `(batch, height, width, 3)` in [0, 255] and class numbers `(batch,)`.
        backbone: See `backbone.build_backbone`.
        cut: Name of the block whose input is wanted besides the vectors (see `backbone.blocks`).

    Yields:
        `vectors`, `(batch, 2048)`, and, with a cut, `maps`, by name; class numbers `(batch,)`.
    """
    model = build_feature_model(backbone, cut)
    for pixels, numbers in batches:
        yield model.predict_on_batch(pixels), np.asarray(numbers)


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
