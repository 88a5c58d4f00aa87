"""The search of fine-tuning: Hyperband over what trains the backbone with the head that was found.

On feature maps, computed once for each strength of augmentation and each place to start from, or,
with a graphics card, on pixels with the augmentation in the model.
"""

import contextlib
import dataclasses
import functools
import gc
import itertools
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fashion_keras.artifacts import all_together, check_disk, check_free, fingerprint
from fashion_keras.backend import keras
from fashion_keras.cli import duration, memory_advice, stage
from fashion_keras.config import Config, InputError, read_config, to_json, with_whole_paths
from fashion_keras.data.prepare import prepare
from fashion_keras.features import FeatureStore, training_arrays
from fashion_keras.fine_tuning import (
    build_trainee,
    compile_trainee,
    fine_tuning_datasets,
    fine_tuning_key,
)
from fashion_keras.model import PIXELS, tunes_on_pixels
from fashion_keras.parallel import Pool
from fashion_keras.report.outcome import read_json
from fashion_keras.report.search_page import FINE_TUNING
from fashion_keras.saving import data_fingerprint
from fashion_keras.timing import measure
from fashion_keras.training import (
    Datasets,
    head_key,
    open_datasets,
    prepare_datasets,
    steps_per_epoch,
    train_head,
)
from tuning.hyperband import run
from tuning.hypermodel import fit_trial
from tuning.oracle import Oracle, Plan, Trial
from tuning.results import PAGE, Cost, Report
from tuning.space import Space, fine_tuning, on_feature_maps
from tuning.trials import Trainer, train_trial

# isort: split
import keras_tuner

_COMPILING = 10.0  # Seconds that a trial takes before it trains.
_STATE_BYTES = 16  # A weight, its two moments in Adam and its average, each of 4 bytes.
BASE_FILE, BEST_FILE = "base_config.json", "best_config.json"
FILES = ("trials.csv", "space.png", "search.json", BASE_FILE, BEST_FILE)


class TuningData:
    """What trials of fine-tuning are trained on, and the heads that they start from."""

    def __init__(self, datasets: Datasets, space: Space, cache: Path, workers: int) -> None:
        self.datasets, self.space = datasets, space
        self.cache, self._workers = cache, workers
        self._heads: dict[str, Any] = {}

    def store(self, config: Config) -> FeatureStore:
        """Return the features of a configuration, which may have another augmentation."""
        prepared, backbone, _ = self.datasets
        return FeatureStore(prepared, config, backbone, self.cache, self._workers)

    def of(self, config: Config) -> tuple[Datasets, Any]:
        """Return the data sets of a configuration, and the trained head, as `final` would."""
        datasets = self.datasets._replace(store=self.store(config))
        key = head_key(config, datasets)
        if key not in self._heads:
            self._heads[key] = train_head(config, datasets, self.cache).head
        return datasets, self._heads[key]

    def key(self, config: Config) -> str:
        """Return the key of all that decides the fine-tuning of a configuration."""
        return fine_tuning_key(config, *self.of(config))


class _RawWeights(keras.callbacks.Callback):
    """Undoes that `fit` ends with averaged weights: training goes on from the others."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the weights."""
        model: Any = self.model
        self._weights = model.get_weights()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Put them back."""
        model: Any = self.model
        model.set_weights(self._weights)


class FineTuningHyperModel(keras_tuner.HyperModel):
    """Builds and fits backbone and head of one trial: `base` has what is not searched.

    The learning rate rises and stays, as a trial may be promoted and trained on; its score is that
    of averaged weights.
    """

    def __init__(self, base: Config, data: TuningData) -> None:
        super().__init__()
        self.base = base
        self.data = data

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`, which starts from a trained head."""
        gc.collect()  # Earlier models are freed by nothing else.
        config = self.data.space.sample(hp, self.base)
        datasets, head = self.data.of(config)
        model, *_ = build_trainee(config, datasets, head)
        steps = steps_per_epoch(config, len(datasets.prepared.split("train")))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=10**9,  # It stays.
            warmup_target=config.fine_tuning_learning_rate,
            warmup_steps=max(1, steps // 2),
        )
        compile_trainee(model, config, rate, averaged_steps=steps)
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; see `hypermodel.fit_trial`."""
        config = self.data.space.sample(hp, self.base)
        datasets, _ = self.data.of(config)
        batches = fine_tuning_datasets(config, datasets, kwargs.get("initial_epoch", 0))
        steps = steps_per_epoch(config, len(datasets.prepared.split("train")))
        averaging = [keras.callbacks.SwapEMAWeights(), _RawWeights()] if steps > 1 else []
        callbacks = [*averaging, *kwargs.pop("callbacks", ())]
        with memory_advice("--batch-size", config.batch_size):
            return fit_trial(model, batches, steps, callbacks=callbacks, **kwargs)


def search_fine_tuning(
    base: Config,
    max_epochs: int,
    factor: int,
    results: Path,
    cache: Path,
    workers: int | None = None,
    log_dir: Path | None = None,
    minutes: float | None = None,
    found: Config | None = None,
    final_size: int = Config.image_size,
) -> Config:
    """Search for the best fine-tuning, and write it into `best_config.json`.

    Args:
        base: Fields that are not searched, such as those of the head.
        max_epochs: Epochs of the longest trials.
        factor: One in this many trials is trained longer.
        results: Folder of the head's search; `FILES` are written to `FINE_TUNING` in it.
        cache: Folder for downloads, prepared photos, features, feature maps and finished trials.
        workers: Processes that compute feature maps; None for one.
        log_dir: Folder to write to for TensorBoard; None for nothing.
        minutes: After these no other trial begins; None for no limit.
        found: What the head's search found (see `base_of`).
        final_size: Side in pixels at which `final` will train the winner.

    Returns:
        What `fashion_keras.final` will train: the winner, or what was known before if the winner
        is less accurate than the head alone.

    Raises:
        InputError: If photos or weights cannot be had or used, the disk is too small for feature
            maps, these need all of `minutes`, too many trials fail, or another process writes to
            `results`.
    """
    start, folder = time.monotonic(), results / FINE_TUNING
    if log_dir:
        log_dir.mkdir(parents=True, exist_ok=True)  # TensorFlow would fail late, with a traceback.
    for written in (results, folder):
        check_free(written)
    datasets = prepare_datasets(base, cache, workers or 1)
    photos = data_fingerprint(datasets.prepared)
    head = _same_photos(results, photos)
    with contextlib.ExitStack() as stack:
        best_place = stack.enter_context(all_together(results, (BEST_FILE,)))
        work = stack.enter_context(all_together(folder, FILES))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = TuningData(datasets, _space(base), cache, workers or 1)
        print(f"everything will be in {folder}", flush=True)
        oracle = Oracle(data.space, base, max_epochs, factor, scratch)
        print(plan := oracle.plan(), flush=True)
        maps, trials = _expected_seconds(base, plan, data)
        _announce(maps, trials, minutes)
        _make_feature_maps(base, plan, data)
        if log_dir:
            key = fingerprint(base=dataclasses.asdict(base), plan=plan, photos=photos)
            log_dir = log_dir / f"fine-tuning-{key[:8]}"
        cost = Cost(_COMPILING, max(trials / plan.epochs - _COMPILING, 0.0))
        end = start + 60 * minutes if minutes else math.inf
        report = Report(oracle, work, results / PAGE, log_dir, head, cost, end)
        trainer = Trainer(data, data.key, cache / "trials", Pool())
        task = functools.partial(train_trial, build=FineTuningHyperModel)
        run(oracle, trainer, report, task)
        best = oracle.best()[0]
        scores = _scores(best, base.objective)
        report.write(oracle.config_of(best), scores, photos, start, results / PAGE)
        winner = with_whole_paths(_for_final(oracle.config_of(best), base, final_size))
        (work / BEST_FILE).write_text(to_json(winner), encoding="utf-8")
        if found and not _is_better(scores, f"validation_{base.objective}", head):
            winner = read_config(results / BEST_FILE)
        (best_place / BEST_FILE).write_text(to_json(winner), encoding="utf-8")
        if found:
            (work / BASE_FILE).write_text(to_json(found), encoding="utf-8")
    return winner


def _announce(maps: float, trials: float, minutes: float | None) -> None:
    """Print how many seconds all should take, or raise if no trial would begin in time."""
    if minutes and maps >= 60 * minutes:
        raise InputError(
            f"Frozen features should take {duration(maps)} here, before the first trial begins. "
            f"Expected a larger number, or none. Received: `--max-minutes {minutes:g}`"
        )
    limit = f"; after {minutes:g} min no other trial begins" if minutes else ""
    took = f"frozen features should take {duration(maps)}, trials {duration(trials)}"
    print(took + limit, flush=True)


def _is_better(scores: dict[str, float], name: str, head: Path | None) -> bool:
    """Return whether fine-tuning is as accurate as the head alone; say so if it is not."""
    summary = read_json(head / "search.json") if head else {}
    before, now = summary.get(name, 0.0), scores[name]
    if now < before:
        print(f"no trial is as accurate as the head ({now:.4f}, {before:.4f}): {BEST_FILE} stays")
    return now >= before


def _for_final(config: Config, base: Config, size: int) -> Config:
    """Return the winner as `final` trains it; a rate found for smaller photos is not that."""
    rate = config.fine_tuning_learning_rate
    if size != config.image_size:
        rate = base.fine_tuning_learning_rate
        print(
            f"the best learning rate at {config.image_size} px is not that at {size} px: `final` "
            f"uses {rate:g}; `--image-size {size}` searches it"
        )
    reads = "pixels" if _on_pixels(base) else "feature_maps"
    return dataclasses.replace(
        config, image_size=size, fine_tuning_learning_rate=rate, fine_tune_on=reads
    )


def _same_photos(results: Path, photos: str) -> Path | None:
    """Return the folder of the head's search if it used photos with this fingerprint."""
    summary = read_json(results / "search.json")
    if summary and summary.get("fingerprint") != photos:
        print(f"the head's search in {results} used other photos", flush=True)
    return results if summary.get("fingerprint") == photos else None


def base_of(results: Path) -> Config | None:
    """Return the winner of the head's search; None if there is none in its folder of results.

    If fine-tuning was searched since then, it is what that search started from.
    """
    best, folder = results / BEST_FILE, results / FINE_TUNING
    if not best.exists():
        return None
    tuned = folder / BEST_FILE
    known = tuned.exists() and read_config(tuned) == read_config(best)
    if known:
        return read_config(folder / BASE_FILE) if (folder / BASE_FILE).exists() else None
    return read_config(best)


def _scores(trial: Trial, objective: str) -> dict[str, float]:
    metrics = trial.metrics
    return {
        f"validation_{name}": round(metrics.get_best_value(f"val_{name}"), 4)
        for name in ("log_loss", "accuracy", objective)
    }


def _space(base: Config) -> Space:
    return fine_tuning(_on_pixels(base)).judged_by(base)


def expected_seconds(base: Config, max_epochs: int, factor: int, cache: Path) -> float:
    """Return how long the search of fine-tuning would take, which is measured."""
    datasets = open_datasets(base, prepare(base, cache), cache)
    data = TuningData(datasets, _space(base), cache, 1)
    with tempfile.TemporaryDirectory() as scratch:
        plan = Oracle(data.space, base, max_epochs, factor, Path(scratch)).plan()
    return sum(_expected_seconds(base, plan, data))


def _on_pixels(base: Config) -> bool:
    return tunes_on_pixels(dataclasses.replace(base, fine_tune_from="auto"))


@stage("feature maps")
def _make_feature_maps(base: Config, plan: Plan, data: TuningData) -> None:
    """Compute what all trials read, once; the disk must hold the states of trials, too."""
    variants = _variants(base)
    pairs = itertools.pairwise(plan.rounds)
    promotable = sum(one.trials for one, after in pairs if one.bracket == after.bracket)
    states = promotable * _STATE_BYTES * data.datasets.backbone.count_params()
    maps = sum(needed for _, needed in _missing(variants, data))
    check_disk(data.datasets.store.folder, maps + states)
    for config in variants:
        arrays = training_arrays(config.fine_tuning_copies)
        data.store(config).make(arrays, config.fine_tune_from)


def _variants(base: Config) -> list[Config]:
    return [] if _on_pixels(base) else list(on_feature_maps(base))


def _expected_seconds(base: Config, plan: Plan, data: TuningData) -> tuple[float, float]:
    """Return how long feature maps, and trials, should take on this machine, which is measured."""
    variants = _variants(base)
    first = variants[0] if variants else dataclasses.replace(base, fine_tune_from=PIXELS)
    speed = measure(first, data.datasets, data.cache)
    train, held_out = (len(data.datasets.prepared.split(one)) for one in ("train", "validation"))
    # Validation goes without gradients: a third of the work. Each new trial trains a head.
    begun = sum(one.trials for one in plan.rounds if not one.first_epoch)
    photos = sum(photos for photos, _ in _missing(variants, data))
    if not variants:  # The head of each trial needs copies of its own.
        photos = train + held_out + begun * base.augmented_copies * train
    maps = photos / speed["forward"]
    trials = plan.epochs * (train + held_out / 3) / speed["fine_tuning"]
    return maps, trials + begun * (base.epochs * train / speed["head"] + _COMPILING)


def _missing(variants: Sequence[Config], data: TuningData) -> Iterable[tuple[int, int]]:
    """Return of how many photos feature maps are missing, and their bytes, for each array."""
    found = {}
    for config in variants:
        store, place = data.store(config), config.fine_tune_from
        for array in training_arrays(config.fine_tuning_copies):
            found[store.key(*array, place)] = store.missing_feature_maps(*array, place)
    return found.values()
