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

from fashion_keras.backbone import blocks, weights_digest
from fashion_keras.cli import progress
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import class_numbers, load_photos
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SPLITS
from fashion_keras.devices import precision_in_force
from fashion_keras.disk import in_words
from fashion_keras.forward import augmented, forward, narrowed
from fashion_keras.growing import GrowingArray, begun_size
from fashion_keras.model import build_augmentation, draw_on
from fashion_keras.pieces import Features, Piece, Shard, lay_out, opened, piece_of
from fashion_keras.stopwatch import spent, stage, waited

_LAYOUT = 1  # Raise it when features made by older versions must not be used any more.
# Half precision halves the maps on disk; their values are of the order of 1, far from its limits.
_TYPES = {"vectors": "<f4", "maps": "<f2"}
_WHOLE = Shard(1, 1)


class FeatureStore:
    """The vectors and maps of one data set through one backbone, computed at first need.

    Args:
        prepared: The data set.
        config: `image_size`, `batch_size`, `seed` and the augmentation decide the features.
        backbone: See `backbone.build_backbone`; its weights must not change before all is computed.
        cache: Folder in which features are kept.

    Attributes:
        folder: The one inside it.
    """

    def __init__(
        self, prepared: Prepared, config: Config, backbone: keras.Model, cache: Path
    ) -> None:
        self._prepared = prepared
        self._config = config
        self._backbone = backbone
        self._weights_digest = weights_digest(backbone)
        # Asked for again and again; of a million photos it takes a second.
        self._photos_digests = {split: _photos_digest(prepared, split) for split in SPLITS}
        self.folder = cache / f"vectors-{_LAYOUT}"

    def vectors(self, split: str, view: int = 0) -> Features:
        """Return one view of all photos of a split as vectors; what is missing is computed.

        A file gets its name when it is whole; a view that was interrupted goes on after the last
        whole batch (see `growing.GrowingArray`). Shards that others made are used (see `make`).

        Args:
            split: `train`, `validation` or `test`.
            view: 0 for the photos themselves; 1, 2, ... for augmented copies.

        Returns:
            `(photos, 2048)` float32, mapped from disk, in the order of `Prepared.split`.
        """
        self.make(split, view)
        return opened(self._pieces(split, view))

    def maps(self, split: str, view: int, fine_tune_from: str) -> Features:
        """Return one view of all photos of a split as maps; its vectors are kept on the way.

        Args:
            split: See `vectors`.
            view: See `vectors`.
            fine_tune_from: Name of the block of the backbone whose input is kept.

        Returns:
            `(photos, rows, columns, channels)` float16, mapped from disk.
        """
        self.make(split, view, fine_tune_from)
        return opened(self._pieces(split, view, fine_tune_from))

    def make(
        self, split: str, view: int, fine_tune_from: str | None = None, shard: Shard = _WHOLE
    ) -> None:
        """Compute what is missing of a view, or of a shard of it, as vectors or as maps.

        Args:
            split: See `vectors`.
            view: See `vectors`.
            fine_tune_from: See `maps`; vectors alone without it.
            shard: The share of the photos; only they are read.
        """
        while missing := self._missing(split, view, fine_tune_from, shard):
            # Meanwhile others may make some of the rest.
            self._compute(split, view, fine_tune_from, missing[0])

    def make_maps(self, augmented_copies: int, fine_tune_from: str, shard: Shard = _WHOLE) -> None:
        """Make the maps and vectors of validation and of copies 0 to `augmented_copies`.

        Raises:
            InputError: If the disk has no room for them.
        """
        wanted = [("train", view) for view in range(augmented_copies + 1)] + [("validation", 0)]
        lower = keras.Model(self._backbone.inputs, blocks(self._backbone)[fine_tune_from])
        shape = lower.compute_output_shape((1, *2 * [self._config.image_size], 3))
        missing = [
            piece for which in wanted for piece in self._missing(*which, fine_tune_from, shard)
        ]
        photos = sum(piece.stop - piece.start for piece in missing)
        size_of_one = math.prod(shape) * np.dtype(_TYPES["maps"]).itemsize
        needed = photos * size_of_one - sum(begun_size(piece.file) for piece in missing)
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"Fine-tuning keeps {in_words(needed)} of maps in {self.folder}, where "
                f"{in_words(free)} are free. Give another `--cache` or fewer "
                "`--fine-tuning-copies`."
            )
        if missing:
            print(f"maps for fine-tuning take {in_words(needed)} in {self.folder}", flush=True)
        for split, view in wanted:
            self.make(split, view, fine_tune_from, shard)

    def missing(self, split: str, view: int, fine_tune_from: str | None = None) -> bool:
        """Tell whether something of this view still has to be computed."""
        return bool(self._missing(split, view, fine_tune_from))

    def _missing(
        self, split: str, view: int, fine_tune_from: str | None = None, shard: Shard = _WHOLE
    ) -> list[Piece]:
        pieces = self._pieces(split, view, fine_tune_from, shard)
        return [piece for piece in pieces if not piece.file.exists()]

    def _pieces(
        self, split: str, view: int, fine_tune_from: str | None = None, shard: Shard = _WHOLE
    ) -> list[Piece]:
        """Return the pieces that hold a view, or a shard of it, those that are missing, too."""
        count = len(self._prepared.split(split))
        rows = shard.rows(count, self._config.batch_size)
        return lay_out(self._file(split, view, fine_tune_from), count, *rows)

    def _file(self, split: str, view: int, fine_tune_from: str | None = None) -> Path:
        return self.folder / f"{self.key(split, view, fine_tune_from)}.npy"

    def key(self, split: str, view: int = 0, fine_tune_from: str | None = None) -> str:
        """Hash all that decides the numbers of a view, down to the last bit, on one machine."""
        config = self._config
        facts = {
            "photos": self._photos_digests[split],
            "image_size": config.image_size,
            "weights": self._weights_digest,
            # Sums are added up in another order in batches of another size.
            "batch_size": config.batch_size,
            "versions": [keras.__version__, *_backend()],
            "view": view,
        }
        if precision_in_force(config.precision) != "float32":
            facts["precision"] = config.precision
        if view:
            facts["augmentation"] = [config.rotation, config.zoom, config.seed]
        if fine_tune_from:
            facts["maps"] = [fine_tune_from, _TYPES["maps"]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]

    @stage("vectors")
    def _compute(self, split: str, view: int, fine_tune_from: str | None, piece: Piece) -> None:
        """Write vectors or maps, or both, of some photos to files; go on where it stopped."""
        if weights_digest(self._backbone) != self._weights_digest:
            raise RuntimeError("The backbone was trained on; its features would be kept as others.")
        count = piece.stop - piece.start
        label = self._label(split, view, fine_tune_from, piece)
        files = self._files(split, view, fine_tune_from, piece)
        with contextlib.ExitStack() as stack:
            targets = {name: GrowingArray(file, count) for name, file in files.items()}
            for target in targets.values():
                stack.callback(target.close)
            if all(target.ready for target in targets.values()):
                return
            done = _common_end(list(targets.values()))
            if done:
                print(f"{label}: going on after {done} photos", flush=True)
            left = (piece.start + done, piece.stop)
            batches = self._batches(split, view, fine_tune_from, *left) if done < count else []
            for features, _ in progress(batches, count - done, label, _batch_length):
                with spent("I/O"):
                    for name, target in targets.items():
                        target.append(narrowed(features[name], _TYPES[name]))
            with spent("I/O"):
                for target in targets.values():
                    target.finish()

    def _label(self, split: str, view: int, fine_tune_from: str | None, piece: Piece) -> str:
        kind = "maps" if fine_tune_from else "vectors"
        label = f"{split} {kind} at {self._config.image_size} px, view {view}"
        if piece.stop - piece.start == len(self._prepared.split(split)):
            return label
        return f"{label}, photos {piece.start + 1} to {piece.stop}"

    def _files(
        self, split: str, view: int, fine_tune_from: str | None, piece: Piece
    ) -> dict[str, Path]:
        """Return the files to be written, by name: of maps also their vectors that are missing."""
        if not fine_tune_from:
            return {"vectors": piece.file}
        count = len(self._prepared.split(split))
        vectors, rows = self._file(split, view), (piece.start, piece.stop)
        if all(one.file.exists() for one in lay_out(vectors, count, *rows)):
            return {"maps": piece.file}
        return {"maps": piece.file, "vectors": piece_of(vectors, *rows, count).file}

    def _batches(
        self, split: str, view: int, fine_tune_from: str | None, start: int, stop: int
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield vectors (and maps) and the class numbers of each batch of photos; see `forward`."""
        config = self._config
        size, batch_size = config.image_size, config.batch_size
        photos, prepared = self._prepared.split(split)[start:stop], self._prepared
        pixels = load_photos(photos, prepared.folder, size, batch_size)
        numbers = np.split(
            class_numbers(prepared, split)[start:stop], range(batch_size, stop - start, batch_size)
        )
        batches = waited("decode", zip(pixels, numbers, strict=True))
        if view:
            augmentation = build_augmentation(config, config.seed + 1000 * view)
            draw_on(augmentation, start // batch_size)
            batches = waited("augment", augmented(batches, augmentation))
        precision = precision_in_force(config.precision)
        return waited("forward", forward(batches, self._backbone, fine_tune_from, precision))


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


def _backend() -> tuple[str, str]:
    name = keras.backend.backend()
    return name, importlib.metadata.version(name)
