"""The search of fine-tuning: Hyperband over what trains the backbone with the head that was found.

On feature maps, computed once for each strength of augmentation and each place to start from, or,
with a graphics card, on pixels with the augmentation in the model.
"""

import dataclasses
import functools
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.artifacts import all_together, check_free, fingerprint
from fashion_keras.backend import keras
from fashion_keras.cli import duration
from fashion_keras.config import Config, read_config, to_json
from fashion_keras.features import FeatureStore, training_arrays
from fashion_keras.fine_tuning import (
    build_trainee,
    compile_trainee,
    fine_tuning_datasets,
    fine_tuning_key,
    measure,
)
from fashion_keras.model import PIXELS, tunes_on_pixels
from fashion_keras.parallel import Pool
from fashion_keras.saving import data_fingerprint
from fashion_keras.training import (
    Datasets,
    head_key,
    prepare_datasets,
    steps_per_epoch,
    train_head,
)
from tuning.hyperband import run
from tuning.oracle import Oracle, Plan, Trial
from tuning.results import PAGE, Report
from tuning.space import Space, fine_tuning, on_feature_maps
from tuning.trials import Trainer, train_trial

# isort: split
import keras_tuner

FOLDER = "fine_tuning"  # In that of the head's search.
BASE_FILE, BEST_FILE = "base_config.json", "best_config.json"
FILES = ("trials.csv", "space.png", "search.json", BASE_FILE, BEST_FILE)


class TuningData:
    """What trials of fine-tuning are trained on, and the heads that they start from."""

    def __init__(self, datasets: Datasets, space: Space, cache: Path, workers: int) -> None:
        self.datasets, self.space = datasets, space
        self._cache, self._workers = cache, workers
        self._heads: dict[str, Any] = {}

    def store(self, config: Config) -> FeatureStore:
        """Return the features of a configuration, which may have another augmentation."""
        prepared, backbone, _ = self.datasets
        return FeatureStore(prepared, config, backbone, self._cache, self._workers)

    def of(self, config: Config) -> tuple[Datasets, Any]:
        """Return the data sets of a configuration, and the trained head, as `final` would."""
        datasets = self.datasets._replace(store=self.store(config))
        key = head_key(config, datasets)
        if key not in self._heads:
            self._heads[key] = train_head(config, datasets, self._cache).head
        return datasets, self._heads[key]

    def key(self, config: Config) -> str:
        """Return the key of all that decides the fine-tuning of a configuration."""
        return fine_tuning_key(config, *self.of(config))


class FineTuningHyperModel(keras_tuner.HyperModel):
    """Builds and fits backbone and head of one trial: `base` has what is not searched.

    The learning rate rises and stays, as nobody knows how long the trial will live; its score is
    that of averaged weights.
    """

    def __init__(self, base: Config, data: TuningData) -> None:
        super().__init__()
        self.base = base
        self.data = data

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model for `hp`, which starts from a trained head."""
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
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fit `model`; `epochs`, `initial_epoch` and others arrive in `kwargs`.

        Raises:
            FailedTrialError: If the validation loss is not a number in any epoch.
        """
        config, first_epoch = self.data.space.sample(hp, self.base), kwargs.get("initial_epoch", 0)
        datasets, _ = self.data.of(config)
        train, validation = fine_tuning_datasets(config, datasets, first_epoch)
        photos = len(datasets.prepared.split("train"))
        kwargs |= {
            "validation_data": validation,
            "steps_per_epoch": steps_per_epoch(config, photos),
            "shuffle": False,  # The batches are shuffled already.
            "callbacks": [keras.callbacks.SwapEMAWeights()],  # While it validates.
        }
        fitted = model.fit(train, *args, **kwargs)
        if not np.isfinite(fitted.history["val_loss"]).all():
            raise keras_tuner.errors.FailedTrialError("the loss became infinite or no number")
        return fitted


def search_fine_tuning(
    base: Config,
    max_epochs: int,
    factor: int,
    results: Path,
    cache: Path,
    workers: int | None = None,
    log_dir: Path | None = None,
    minutes: float | None = None,
) -> Config:
    """Search for the best fine-tuning, and write it into `best_config.json`.

    Args:
        base: Fields that are not searched: the winner of the head's search, or others.
        max_epochs: Epochs of the longest trials.
        factor: One in this many trials is trained longer.
        results: Folder of the head's search; `FILES` are written to `FOLDER` in it.
        cache: Folder for downloads, prepared photos, features, feature maps and finished trials.
        workers: Processes that compute feature maps; None for one.
        log_dir: Folder to write to for TensorBoard; None for nothing.
        minutes: After these no other trial begins; None for no limit.

    Returns:
        The winner, as `fashion_keras.final` will train it.

    Raises:
        InputError: If photos or weights cannot be had or used, the disk is too small for feature
            maps, too many trials fail, or another process writes to `results`.
    """
    start, folder = time.monotonic(), results / FOLDER
    for written in (results, folder):
        check_free(written)
    datasets = prepare_datasets(base, cache, workers or 1)
    space = fine_tuning(tunes_on_pixels(dataclasses.replace(base, fine_tune_from="auto")))
    data = TuningData(datasets, space, cache, workers or 1)
    print(f"everything will be in {folder}", flush=True)
    with tempfile.TemporaryDirectory() as scratch, all_together(folder, FILES) as work:
        oracle = Oracle(space, base, max_epochs, factor, Path(scratch))
        print(oracle.plan(), flush=True)
        _make_feature_maps(base, oracle.plan(), data)
        key = fingerprint(head=data.key(base), plan=oracle.plan())
        log_dir = log_dir and log_dir / f"fine-tuning-{key[:8]}"
        before = results if (results / "trials.csv").exists() else None
        report = Report(oracle, work, results / PAGE, log_dir, before)
        trainer = Trainer(data, data.key, cache / "trials", Pool())
        task = functools.partial(train_trial, build=FineTuningHyperModel)
        run(oracle, trainer, report, start + 60 * minutes if minutes else math.inf, task)
        best = oracle.best()[0]
        winner, photos = oracle.config_of(best), data_fingerprint(datasets.prepared)
        report.write(winner, _scores(best), photos, start, results / PAGE)
        size = max(winner.image_size, Config.image_size)
        winner = dataclasses.replace(winner, image_size=size)
        for name, config in ((BASE_FILE, base), (BEST_FILE, winner)):
            (work / name).write_text(to_json(config), encoding="utf-8")
    with all_together(results, (BEST_FILE,)) as work:
        shutil.copy(folder / BEST_FILE, work)
    return winner


def base_of(results: Path) -> Config | None:
    """Return the winner of the head's search; None if there is none in its folder of results.

    If fine-tuning was searched since then, it is what that search started from.
    """
    best, folder = results / BEST_FILE, results / FOLDER
    if not best.exists():
        return None
    tuned = folder / BEST_FILE
    known = tuned.exists() and read_config(tuned) == read_config(best)
    return read_config(folder / BASE_FILE if known else best)


def _scores(trial: Trial) -> dict[str, float]:
    metrics = trial.metrics
    return {
        f"validation_{name}": round(metrics.get_best_value(f"val_{name}"), 4)
        for name in ("log_loss", "accuracy")
    }


def _make_feature_maps(base: Config, plan: Plan, data: TuningData) -> None:
    """Compute what all trials read, once, after saying how long everything will take."""
    on_pixels = tunes_on_pixels(dataclasses.replace(base, fine_tune_from="auto"))
    variants = list(on_feature_maps(base)) if not on_pixels else []
    photos = {split: len(data.datasets.prepared.split(split)) for split in ("train", "validation")}
    first = variants[0] if variants else dataclasses.replace(base, fine_tune_from=PIXELS)
    speed = measure(first, data.datasets)
    missing = sum(
        data.store(config).missing(*array, config.fine_tune_from)
        for config in variants
        for array in training_arrays(config.fine_tuning_copies)
    )
    # Validation goes without gradients: a third of the work.
    trained = plan.epochs * (photos["train"] + photos["validation"] / 3)
    seconds = missing / speed["forward"] + trained / speed["fine_tuning"]
    print(f"feature maps and trials should take {duration(seconds)}", flush=True)
    for config in variants:
        data.store(config).make_feature_maps(config.fine_tuning_copies, config.fine_tune_from)
