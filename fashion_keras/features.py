"""Photos become vectors through the frozen backbone, once; they are kept on disk."""

import collections
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras.command import progress
from fashion_keras.config import Config
from fashion_keras.data import class_numbers, load_split
from fashion_keras.model import VECTOR_SIZE, build_augmentation, build_vector_model
from fashion_keras.prepare import Prepared

_LAYOUT = 1  # Raise it when vectors made by older versions must not be used any more.


class VectorStore:
    """The vectors of one data set through one backbone, computed at first need.

    Args:
        prepared: The data set.
        config: `image_size`, `rotation`, `zoom`, `batch_size` and `seed` decide the vectors.
        backbone: See `model.build_backbone`.
        cache: Folder in which vectors are kept.
    """

    def __init__(
        self, prepared: Prepared, config: Config, backbone: keras.Model, cache: Path
    ) -> None:
        self._prepared = prepared
        self._config = config
        self._model = build_vector_model(backbone)
        self._weights_digest = _weights_digest(backbone)
        self._folder = cache / f"vectors-{_LAYOUT}"

    def vectors(self, split: str, view: int = 0) -> np.ndarray:
        """Return one view of all photos of a split as vectors.

        The file is written under another name and renamed when it is whole; so a view that was
        interrupted is made again, and a finished one never.

        Args:
            split: `train`, `validation` or `test`.
            view: 0 for the photos themselves; 1, 2, ... for augmented views.

        Returns:
            `(photos, 2048)` float32, mapped from disk, in the order of `Prepared.split`.
        """
        file = self._folder / f"{self.key(split, view)}.npy"
        if not file.exists():
            self._compute(split, view, file)
        return np.load(file, mmap_mode="r")

    def key(self, split: str, view: int = 0) -> str:
        """Hash all that decides the numbers of a view, down to the last bit, on one machine."""
        config = self._config
        facts = {
            "photos": _photos_digest(self._prepared, split),
            "image_size": config.image_size,
            "weights": self._weights_digest,
            # Sums are added up in another order in batches of another size.
            "batch_size": config.batch_size,
            "versions": [keras.__version__, keras.backend.backend(), _backend_version()],
            "view": view,
        }
        if view:
            facts["augmentation"] = [config.rotation, config.zoom, config.seed]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]

    def _compute(self, split: str, view: int, file: Path) -> None:
        numbers = class_numbers(self._prepared, split)
        label = f"{split} vectors at {self._config.image_size} px, view {view}"
        seen: list[np.ndarray] = []
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            with unfinished.open("wb") as target:
                shape = (len(numbers), VECTOR_SIZE)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(target, header)
                batches = self._batches(split, view)
                for vectors, true in progress(batches, len(numbers), label, _batch_length):
                    target.write(vectors.astype("<f4").tobytes())
                    seen.append(true)
                target.flush()
                os.fsync(target.fileno())
            if not np.array_equal(np.concatenate(seen), numbers):
                raise RuntimeError(f"the photos in {self._prepared.folder} are not those it lists")
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)

    def _batches(self, split: str, view: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the vectors and the class numbers of each batch of photos."""
        config = self._config
        batches = load_split(self._prepared, split, config.image_size, config.batch_size)
        if view:
            batches = _augmented(batches, build_augmentation(config, config.seed + 1000 * view))
        for pixels, numbers in batches:
            yield self._model.predict_on_batch(pixels), np.asarray(numbers)


def _augmented(batches: Iterable, augmentation: keras.Sequential) -> Iterator[tuple[Any, Any]]:
    """Yield augmented batches; the next one is made while the backbone works on the last."""
    waiting: collections.deque[tuple[Future, Any]] = collections.deque()
    with ThreadPoolExecutor(max_workers=1) as pool:  # One: the draws keep their order.
        for pixels, numbers in batches:
            waiting.append((pool.submit(augmentation, pixels, training=True), numbers))
            if len(waiting) > 1:
                ready, its_numbers = waiting.popleft()
                yield ready.result(), its_numbers
        for ready, numbers in waiting:
            yield ready.result(), numbers


def _batch_length(batch: tuple[np.ndarray, np.ndarray]) -> int:
    return len(batch[0])


def _photos_digest(prepared: Prepared, split: str) -> str:
    digest = hashlib.sha256()
    for photo in prepared.split(split):
        digest.update(bytes.fromhex(photo.sha256))
    return digest.hexdigest()


def _weights_digest(backbone: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in backbone.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _backend_version() -> str:
    return importlib.metadata.version(keras.backend.backend())
