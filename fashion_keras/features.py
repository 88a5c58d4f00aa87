"""Photos become vectors through the frozen backbone, once; they are kept on disk."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from fashion_keras.command import progress
from fashion_keras.config import Config
from fashion_keras.data import load_split
from fashion_keras.model import VECTOR_SIZE, build_augmentation, build_vector_model
from fashion_keras.prepare import Prepared


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
        self._folder = cache / "vectors"

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
        count = len(self._prepared.split(split))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        target = np.lib.format.open_memmap(
            unfinished, mode="w+", dtype="float32", shape=(count, VECTOR_SIZE)
        )
        label = f"{split} vectors at {self._config.image_size} px, view {view}"
        start = 0
        try:
            for batch in progress(self._batches(split, view), count, label, len):
                target[start : start + len(batch)] = batch
                start += len(batch)
            if start != count:
                raise RuntimeError(f"{start} vectors were made of {count} photos of {split}")
            target.flush()
            del target  # Windows renames no file that is mapped.
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)

    def _batches(self, split: str, view: int) -> Iterator[np.ndarray]:
        """Yield the vectors of each batch of photos."""
        augment = build_augmentation(self._config, self._config.seed + 1000 * view)
        for pixels, _ in load_split(
            self._prepared, split, self._config.image_size, self._config.batch_size
        ):
            if view:
                pixels = augment(pixels, training=True)
            yield self._model.predict_on_batch(pixels)


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
    return __import__(keras.backend.backend()).__version__
