"""Photos become features through the frozen backbone, once: `python -m fashion_keras.features`.

Features are kept in chunks. A chunk is a pure function of the content of its photos, of the
backbone and of some fields of `Config`: whoever makes it makes the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import tempfile
import timeit
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras import cli, engine
from fashion_keras.artifacts import check_disk, fingerprint, one_at_a_time, whole_file
from fashion_keras.config import SEARCH_SIZE, Config, InputError, deciding
from fashion_keras.data.chunks import Chunks, Features
from fashion_keras.data.prepare import Prepared, PreparedPhoto, prepare, summary
from fashion_keras.parallel import Pool, on_this_machine, one_ahead, pool

_LAYOUT = 1  # Raise it when features made by older versions must not be used any more.
_PHOTOS = 256  # In a chunk, about: a whole number of batches.
_IN_MEMORY = 2**28  # Bytes of features that are read at once; more stay on disk.
# Half precision halves the feature maps; their values are of the order of 1, far from its limits.
_TYPES = {"features": "float32", "feature_maps": "float16"}

Array = tuple[str, int]  # A split, and the number of a copy: 0 for the photos as they are.


def training_arrays(copies: int) -> list[Array]:
    """Return the training photos, so many augmented copies of them, and the validation photos."""
    return [*(("train", copy) for copy in range(copies + 1)), ("validation", 0)]


class _Chunk(NamedTuple):
    """One copy of some photos: what is missing of it."""

    photos: list[PreparedPhoto]
    seed: int | None  # Of their augmentation; None for the photos as they are.
    files: dict[str, Path]  # Where to write what is computed, by name (see `_TYPES`).


class FeatureStore:
    """The features and feature maps of a data set through one backbone, computed at first need.

    They are kept in `folder`, below the cache; `workers` processes compute (see `parallel.pool`).

    Attributes:
        engine: What runs the backbone (see `engine.engines`): the one that these features were
            begun with, or the best for so many photos.
    """

    def __init__(
        self, prepared: Prepared, config: Config, backbone: Any, cache: Path, workers: int = 1
    ) -> None:
        from fashion_keras.model import precision_in_force, versions, weights_digest

        # Workers may have other devices: they compute in the precision of this process.
        precision = precision_in_force(config.precision)
        self._config, self._prepared = dataclasses.replace(config, precision=precision), prepared
        self._backbone = backbone
        self._cache = cache
        self._workers = workers
        self._runs: dict[str | None, engine.Run] = {}
        self._facts = deciding(self._config, "features") | {
            "weights": weights_digest(backbone),
            "versions": versions(),
            "layout": _LAYOUT,
        }
        self.folder = cache / "features"
        size = max(1, _PHOTOS // config.feature_batch_size) * config.feature_batch_size
        self._chunks: dict[str, list[tuple[list[PreparedPhoto], str]]] = {}  # Photos and a digest.
        for split in {photo.split for photo in prepared.photos}:
            photos = prepared.split(split)
            parts = [photos[start : start + size] for start in range(0, len(photos), size)]
            digests = [fingerprint(photos=[photo.sha256 for photo in part]) for part in parts]
            self._chunks[split] = list(zip(parts, digests, strict=True))
        engines = engine.engines(len(prepared.photos), config.image_size, precision)
        if workers > 1 and not on_this_machine():
            engines.sort(key=engine.KERAS.__ne__)  # A cluster may have graphics cards.
        self.engine = next(filter(self._begun, engines), engines[0])

    def features(self, split: str, copy: int = 0) -> Features:
        """Return the features of a split, or of an augmented copy; missing ones are computed.

        Returns:
            `(photos, channels)` float32, in the order of `Prepared.split`.
        """
        self.make([(split, copy)])
        files = self._files(split, copy)
        if sum(file.stat().st_size for file in files) > _IN_MEMORY:
            return Chunks(files)
        return np.concatenate([np.load(file) for file in files])

    def feature_maps(self, split: str, copy: int, fine_tune_from: str) -> Chunks:
        """Return the input of a block, `(photos, rows, columns, channels)` float16, read from disk.

        The features are kept on the way.
        """
        self.make([(split, copy)], fine_tune_from)
        return Chunks(self._files(split, copy, fine_tune_from))

    def make_feature_maps(self, copies: int, fine_tune_from: str) -> None:
        """Compute the feature maps of validation, and of the training photos with so many copies.

        Raises:
            InputError: If they do not fit on the disk.
        """
        arrays = training_arrays(copies)
        missing = [self.missing_feature_maps(*array, fine_tune_from) for array in arrays]
        check_disk(self.folder, sum(needed for _, needed in missing))
        self.make(arrays, fine_tune_from)

    def missing_feature_maps(self, split: str, copy: int, fine_tune_from: str) -> tuple[int, int]:
        """Return how many photos still have to go through the backbone, and the bytes of them."""
        from fashion_keras.model import feature_maps_shape

        photos = self.missing(split, copy, fine_tune_from)
        shape = feature_maps_shape(self._backbone, fine_tune_from, self._config.image_size)
        return photos, photos * math.prod(shape) * np.dtype(_TYPES["feature_maps"]).itemsize

    def missing(self, split: str, copy: int = 0, fine_tune_from: str | None = None) -> int:
        """Return how many photos still have to go through the backbone."""
        return sum(len(chunk.photos) for chunk in self._missing(split, copy, fine_tune_from))

    def key(self, split: str, copy: int = 0, fine_tune_from: str | None = None) -> str:
        """Return the key of all that decides these features, down to the last bit."""
        files = self._files(split, copy, fine_tune_from)
        return fingerprint(chunks=[file.stem for file in files])

    def make(self, arrays: Iterable[Array], fine_tune_from: str | None = None) -> None:
        """Compute what is missing of several splits and copies, with or without feature maps."""
        arrays = [array for array in arrays if self._missing(*array, fine_tune_from)]
        if not arrays:
            return
        lock = self.folder / f".{self.key('train')}.lock"  # One for all copies.
        with one_at_a_time(lock, f"features in {self.folder}"):
            self.run(fine_tune_from)  # It may turn out that Keras has to run: other files then.
            chunks = [chunk for array in arrays for chunk in self._missing(*array, fine_tune_from)]
            count = sum(len(self._prepared.split(split)) for split, _ in arrays)
            found = count - sum(len(chunk.photos) for chunk in chunks)
            if found:
                print(f"found the features of {found} of {count} photos and copies", flush=True)
            if chunks:
                self._compute(chunks, count - found, fine_tune_from)

    def run(self, fine_tune_from: str | None = None) -> engine.Run:
        """Return what computes: from pixels to a dictionary, as `model.build_feature_model`."""
        if fine_tune_from not in self._runs:
            from fashion_keras.model import build_feature_model

            run: Any = None
            if self.engine != engine.KERAS:
                model = build_feature_model(self._backbone, fine_tune_from)
                facts = self._facts | {"fine_tune_from": fine_tune_from}
                run = engine.converted(model, self._config.image_size, self._cache, facts)
                self.engine = self.engine if run else engine.KERAS
            settings = self._backbone, fine_tune_from, self._config.precision
            self._runs[fine_tune_from] = run or build_feature_model(*settings).predict_on_batch
        return self._runs[fine_tune_from]

    def photos_per_second(self, fine_tune_from: str | None = None) -> float:
        """Return how fast photos are read, augmented and computed; it is measured once."""
        photos, size = self._prepared.split("train"), self._config.feature_batch_size
        photos = photos[: len(photos) // size * size] or photos  # Another size compiles again.
        chunks = [_Chunk(photos[:size], 1, {})] * 2  # The first one compiles.
        settings = chunks, self._prepared.folder, self._config

        def measure() -> float:
            with closing(_computed(*settings, self.run(fine_tune_from))) as computed:
                next(computed)
                return len(chunks[1].photos) / timeit.timeit(lambda: next(computed), number=1)

        facts = {"features": self.key("train"), "fine_tune_from": fine_tune_from}
        return engine.measured(self._cache, facts, measure)

    def _begun(self, name: str) -> bool:
        """Return whether there are features of the photos as they are, made by an engine."""
        files = (file for split in self._chunks for file in self._files(split, 0, None, name))
        return any(file.exists() for file in files)

    def _compute(self, chunks: Sequence[_Chunk], photos: int, fine_tune_from: str | None) -> None:
        settings = (self._prepared.folder, self._config)
        if on_this_machine():
            engine.advise(photos, self._config.image_size, self._config.precision)
        run = self.run(fine_tune_from)
        with pool(min(self._workers, len(chunks))) as workers:
            if workers.size == 1:
                computed = _computed(chunks, *settings, run)
            else:
                converted = isinstance(run, engine.OpenVINO)
                model = self._backbone.to_json(), self._backbone.get_weights()
                shared = workers.share(
                    (self._facts["weights"], fine_tune_from, run if converted else model)
                )
                computed = _computed_by(workers, chunks, *settings, shared)
            label = f"features at {self._config.image_size} px"
            shown = cli.progress(computed, photos, label, lambda done: len(done[0].photos))
            for chunk, found in shown:
                for name, file in chunk.files.items():
                    with whole_file(file) as unfinished:
                        np.save(unfinished, found[name])

    def _missing(self, split: str, copy: int, fine_tune_from: str | None) -> list[_Chunk]:
        """Return the chunks of which a file is missing."""
        files = {"features": self._files(split, copy)}
        if fine_tune_from:
            files["feature_maps"] = self._files(split, copy, fine_tune_from)
        draws = {"copy": copy, "seed": self._config.augmentation_seed}
        chunks = []
        for number, (photos, digest) in enumerate(self._chunks[split]):
            new = {name: of[number] for name, of in files.items() if not of[number].exists()}
            if new:
                seed = int(fingerprint(photos=digest, **draws)[:7], 16) if copy else None
                chunks.append(_Chunk(photos, seed, new))
        return chunks

    def _files(
        self, split: str, copy: int, fine_tune_from: str | None = None, engine_name: str = ""
    ) -> list[Path]:
        facts: dict[str, Any] = dict(self._facts)
        name = engine_name or self.engine
        if name != engine.KERAS:  # Keras is among the versions.
            facts |= {"engine": name}
        if copy:
            facts |= deciding(self._config, "copies") | {"copy": copy}
        if fine_tune_from:
            facts |= {"fine_tune_from": fine_tune_from}
        keys = [fingerprint(photos=digest, **facts) for _, digest in self._chunks[split]]
        return [self.folder / f"{key}.npy" for key in keys]


def _computed(
    chunks: Iterable[_Chunk], folder: Path, config: Config, run: engine.Run
) -> Generator[tuple[_Chunk, dict[str, np.ndarray]], None, None]:
    """Yield each chunk and what the engine gives for it."""
    size = config.feature_batch_size
    with closing(one_ahead(_batches(chunks, folder, config))) as batches:
        for chunk in chunks:
            with cli.memory_advice("--feature-batch-size", size):
                steps = range(0, len(chunk.photos), size)
                parts = [_narrowed(run(next(batches))) for _ in steps]
            yield chunk, {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}


def _batches(chunks: Iterable[_Chunk], folder: Path, config: Config) -> Generator[Any, None, None]:
    """Yield the pixels of each batch of each chunk, augmented if the chunk has a seed."""
    from fashion_keras.data.batches import load_photos
    from fashion_keras.model import build_augmentation

    size, batch_size = config.image_size, config.feature_batch_size
    for chunk in chunks:
        augmentation = None if chunk.seed is None else build_augmentation(config, chunk.seed)
        with closing(load_photos(chunk.photos, folder, size, batch_size)) as batches:
            for pixels in batches:
                yield augmentation(pixels, training=True) if augmentation else pixels


def _narrowed(batch: Any) -> dict[str, np.ndarray]:
    """Return outputs in the types in which they are kept."""
    found = {name: np.asarray(values).astype(_TYPES[name]) for name, values in batch.items()}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise RuntimeError("The backbone gives numbers that are too large to be kept.")
    return found


def _computed_by(
    workers: Pool, chunks: Sequence[_Chunk], folder: Path, config: Config, backbone: Any
) -> Iterator[tuple[_Chunk, dict[str, np.ndarray]]]:
    """Yield what `_computed` does, in another order; each chunk is a task."""
    waiting = iter(chunks)

    def submit(count: int) -> None:
        for chunk in itertools.islice(waiting, count):
            contents = [(folder / photo.prepared).read_bytes() for photo in chunk.photos]
            workers.submit(chunk, chunk_of, chunk, contents, config, backbone)

    submit(2 * workers.size)  # Not all: their photos are in memory.
    for _ in chunks:
        done = workers.next_done()
        submit(1)
        yield done


_on_this_worker: dict[tuple, engine.Run] = {}  # What computed the task before.


def chunk_of(
    chunk: _Chunk, contents: Sequence[bytes], config: Config, backbone: tuple
) -> dict[str, np.ndarray]:
    """Return what the backbone gives for the photos of one chunk; runs on a worker.

    `backbone` is the digest of its weights, where fine-tuning starts, and a converted model, or
    the JSON of the backbone and its weights.
    """
    digest, fine_tune_from, model = backbone
    key = (digest, fine_tune_from, config)
    if key not in _on_this_worker:
        _on_this_worker.clear()
        if not isinstance(model, engine.OpenVINO):
            model = _rebuilt(model, fine_tune_from, config)
        _on_this_worker[key] = model
    with tempfile.TemporaryDirectory() as name:
        for photo, content in zip(chunk.photos, contents, strict=True):
            file = Path(name, photo.prepared)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        ((_, found),) = _computed([chunk], Path(name), config, _on_this_worker[key])
    return found


def _rebuilt(sent: tuple, fine_tune_from: str | None, config: Config) -> engine.Run:
    from fashion_keras.backend import keras
    from fashion_keras.model import build_feature_model

    text, weights = sent
    backbone: Any = keras.models.model_from_json(text)
    backbone.set_weights(weights)
    return build_feature_model(backbone, fine_tune_from, config.precision).predict_on_batch


_FIELDS = ("data", "weights", "augmented_copies", *deciding(Config(), "photos")) + tuple(
    deciding(Config(), "features") | deciding(Config(), "copies")
)
_FOR_FEATURE_MAPS = ("fine_tune_from", "fine_tune_on", "fine_tuning_copies")


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Compute the features of all photos ahead, as search and training do when they need them.\n"
        "With --workers several processes share the work, on this machine or on a Ray cluster.\n"
        "Features depend on all these options: give the same ones to search and training.",
        "fashion_keras.features",
        "examples:\n  python -m fashion_keras.features --data photos/ --image-size 150\n"
        "  python -m fashion_keras.features --data photos/ --feature-maps --workers 4",
    )
    cli.add_config_options(options, _FIELDS, Config())
    options.add_argument(
        "--feature-maps",
        action="store_true",
        help="compute the feature maps for fine-tuning, too (0.5 MB for each copy of a photo)",
    )
    cli.add_config_options(options, _FOR_FEATURE_MAPS, Config(), "; with --feature-maps only")
    cli.add_cache_option(options)
    cli.add_workers_option(options)
    cli.add_deterministic_option(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, compute features, and say what comes next."""
    options = _options()
    given = options.parse_args(arguments)
    config = cli.chosen(given, Config())
    print(f"features of {config.data}, into {given.cache}; {cli.TIME_FOLLOWS}", flush=True)
    from fashion_keras import model as models
    from fashion_keras.backend import check_device, enable_determinism

    if given.deterministic:
        enable_determinism()
    check_device()
    models.check_weights(config)
    models.check_fine_tune_from(config)
    if given.feature_maps and models.tunes_on_pixels(config):
        raise InputError(
            "Fine-tuning reads photos here. For feature maps give `--fine-tune-on feature_maps "
            f"--fine-tune-from {models.ARCHITECTURES[config.backbone].block}`, or another block."
        )
    prepared = prepare(config, given.cache)
    print(summary(prepared))
    backbone = models.build_backbone(config)
    store = FeatureStore(prepared, config, backbone, given.cache, given.workers)
    models.show_device(config, store.engine)
    block = models.chosen_fine_tune_from(config) if given.feature_maps else None
    copies = max(config.augmented_copies, config.fine_tuning_copies if block else 0)
    if missing := sum(store.missing(*array, block) for array in training_arrays(copies)):
        took = cli.duration(missing / store.photos_per_second(block))
        print(f"{missing} photos and copies: about {took} in all", flush=True)
    if block:  # First, because they give features, too.
        store.make_feature_maps(config.fine_tuning_copies, block)
    store.make(training_arrays(config.augmented_copies))
    module = "fashion_keras.final" if given.feature_maps else "tuning.search"
    fields = [*_FIELDS, *(_FOR_FEATURE_MAPS if given.feature_maps else ())]
    fields.remove("image_size")  # Given below, if it is not what the next command takes anyway.
    usual = SEARCH_SIZE if module == "tuning.search" else 0  # `final` keeps a side that is given.
    size = {} if config.image_size == usual else {"image_size": str(config.image_size)}
    print(f"now run: {cli.next_command(module, options, given, fields, **size)}")


if __name__ == "__main__":
    cli.run(main)
