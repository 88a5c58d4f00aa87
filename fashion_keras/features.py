"""Photos become vectors or maps through the frozen backbone, once; they are kept on disk."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from fashion_keras.backbone import blocks
from fashion_keras.command import progress
from fashion_keras.config import Config, InputError
from fashion_keras.data import class_numbers, load_split
from fashion_keras.devices import precision_in_force
from fashion_keras.forward import augmented, forward, narrowed
from fashion_keras.growing import GrowingArray
from fashion_keras.model import build_augmentation
from fashion_keras.prepare import Prepared

_LAYOUT = 1  # Raise it when features made by older versions must not be used any more.
# Half precision halves the maps on disk; their values are of the order of 1, far from its limits.
_TYPES = {"vectors": "<f4", "maps": "<f2"}


class FeatureStore:
    """The vectors and maps of one data set through one backbone, computed at first need.

    Args:
        prepared: The data set.
        config: `image_size`, `batch_size`, `seed` and the augmentation decide the features.
        backbone: See `backbone.build_backbone`; its weights must not change before all is computed.
        cache: Folder in which features are kept.
    """

    def __init__(
        self, prepared: Prepared, config: Config, backbone: keras.Model, cache: Path
    ) -> None:
        self._prepared = prepared
        self._config = config
        self._backbone = backbone
        self._weights_digest = _weights_digest(backbone)
        self._folder = cache / f"vectors-{_LAYOUT}"

    def vectors(self, split: str, view: int = 0) -> np.ndarray:
        """Return one view of all photos of a split as vectors.

        A file gets its name when it is whole; a view that was interrupted goes on after the last
        whole batch (see `growing.GrowingArray`).

        Args:
            split: `train`, `validation` or `test`.
            view: 0 for the photos themselves; 1, 2, ... for augmented views.

        Returns:
            `(photos, 2048)` float32, mapped from disk, in the order of `Prepared.split`.
        """
        file = self._file(split, view)
        if not file.exists():
            self._compute(split, view, None, {"vectors": file})
        return np.load(file, mmap_mode="r")

    def maps(self, split: str, view: int, cut: str) -> np.ndarray:
        """Return one view of all photos of a split as maps; its vectors are kept on the way.

        Args:
            split: See `vectors`.
            view: See `vectors`.
            cut: Name of the block of the backbone whose input is kept.

        Returns:
            `(photos, rows, columns, channels)` float16, mapped from disk.
        """
        file = self._file(split, view, cut)
        if not file.exists():
            files = {"maps": file}
            if self.missing(split, view):
                files["vectors"] = self._file(split, view)
            self._compute(split, view, cut, files)
        return np.load(file, mmap_mode="r")

    def make_maps(self, views: int, cut: str) -> None:
        """Make the maps of validation and of views 0 to `views` of training, and their vectors.

        Raises:
            InputError: If the disk has no room for them.
        """
        wanted = [("train", view) for view in range(views + 1)] + [("validation", 0)]
        wanted = [(split, view) for split, view in wanted if self.missing(split, view, cut)]
        size = self._config.image_size
        lower = keras.Model(self._backbone.inputs, blocks(self._backbone)[cut])
        shape = lower.compute_output_shape((1, size, size, 3))
        photos = sum(len(self._prepared.split(split)) for split, _ in wanted)
        needed = photos * math.prod(shape) * np.dtype(_TYPES["maps"]).itemsize
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise InputError(
                f"Fine-tuning keeps {needed / 1e9:.1f} GB of maps in {self._folder}, where "
                f"{free / 1e9:.1f} GB are free. Give another `--cache`, or fewer "
                "`--fine-tuning-views`."
            )
        if wanted:
            print(f"maps for fine-tuning take {needed / 1e9:.1f} GB in {self._folder}", flush=True)
        for split, view in wanted:
            self.maps(split, view, cut)

    def missing(self, split: str, view: int, cut: str | None = None) -> bool:
        """Tell whether this view still has to be computed."""
        return not self._file(split, view, cut).exists()

    def _file(self, split: str, view: int, cut: str | None = None) -> Path:
        return self._folder / f"{self.key(split, view, cut)}.npy"

    def key(self, split: str, view: int = 0, cut: str | None = None) -> str:
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
        if precision_in_force(config.precision) != "float32":
            facts["precision"] = config.precision
        if view:
            facts["augmentation"] = [config.rotation, config.zoom, config.seed]
        if cut:
            facts["maps"] = [cut, _TYPES["maps"]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]

    def _compute(self, split: str, view: int, cut: str | None, files: dict[str, Path]) -> None:
        """Write vectors or maps, or both, of all photos to their files; go on where it stopped."""
        if _weights_digest(self._backbone) != self._weights_digest:
            raise RuntimeError("The backbone was trained on; its features would be kept as others.")
        numbers = class_numbers(self._prepared, split)
        kind = "maps" if cut else "vectors"
        label = f"{split} {kind} at {self._config.image_size} px, view {view}"
        seen: list[np.ndarray] = []
        with contextlib.ExitStack() as stack:
            targets = {name: GrowingArray(file, len(numbers)) for name, file in files.items()}
            for target in targets.values():
                stack.callback(target.close)
            if all(target.ready for target in targets.values()):
                return
            done = _common_end(list(targets.values()))
            if done:
                print(f"{label}: going on after {done} photos", flush=True)
            batches = self._batches(split, view, cut, done)
            for features, true in progress(batches, len(numbers), label, _batch_length):
                for name, target in targets.items():
                    if features:
                        target.append(narrowed(features[name], _TYPES[name]))
                seen.append(true)
            if not np.array_equal(np.concatenate(seen), numbers):
                raise RuntimeError(f"the photos in {self._prepared.folder} are not those it lists")
            for target in targets.values():
                target.finish()

    def _batches(
        self, split: str, view: int, cut: str | None, done: int
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield vectors (and maps) and the class numbers of each batch of photos; see `forward`."""
        config = self._config
        batches = load_split(self._prepared, split, config.image_size, config.batch_size)
        if view:
            batches = augmented(batches, build_augmentation(config, config.seed + 1000 * view))
        return forward(batches, self._backbone, cut, done, precision_in_force(config.precision))


def _common_end(targets: list[GrowingArray]) -> int:
    """Return after how many rows all of them stopped at the end of a batch, and cut them there."""
    ends = set.intersection(*(set(target.ends) for target in targets))
    done = max(ends, default=0)
    for target in targets:
        target.keep(done)
    return done


def _batch_length(batch: tuple[dict[str, np.ndarray], np.ndarray]) -> int:
    return len(batch[1])


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
