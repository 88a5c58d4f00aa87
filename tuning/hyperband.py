"""The whole search: Hyperband, the best again with other seeds, one hyperparameter at a time."""

import dataclasses
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.artifacts import all_together, check_free, fingerprint
from fashion_keras.backend import array, keras
from fashion_keras.cli import duration, stage
from fashion_keras.config import Config, InputError, to_json, with_whole_paths
from fashion_keras.features import training_arrays
from fashion_keras.metrics import LEAST_TO_CALIBRATE
from fashion_keras.parallel import default_workers, pool
from fashion_keras.report import tensor_board
from fashion_keras.report.outcome import Predictions, read_json
from fashion_keras.saving import data_fingerprint
from fashion_keras.timing import FEATURES, FIXED_SECONDS, Left, measure
from fashion_keras.training import Datasets, head_data, head_key, prepare_datasets, train_head
from tuning.finalists import CURVES, FINALISTS, SEEDS, Finalist, curves, rerun
from tuning.oracle import Oracle, Plan
from tuning.results import FILES, PAGE, Cost, Report
from tuning.space import HEAD
from tuning.trials import Trainer, run_trials, train_trial


def search(
    base: Config,
    max_epochs: int,
    factor: int,
    results: Path,
    cache: Path,
    workers: int | None = None,
    log_dir: Path | None = None,
    later: float = 0.0,
    final_size: int = Config.image_size,
) -> Config:
    """Search with Hyperband, train the best again with other seeds, and write what was found.

    Args:
        base: Fields that are not searched.
        max_epochs: Epochs of the longest trials.
        factor: One in this many trials is trained longer.
        results: Folder for `FILES`; the page is kept up to date while the search runs.
        cache: Folder for downloads, prepared photos, features and finished trials.
        workers: Processes that compute features and train heads. None: one for features,
            `parallel.default_workers` for heads.
        log_dir: Folder to write to for TensorBoard; None for nothing.
        later: Seconds that the command takes after this search.
        final_size: Side in pixels at which `final` will train the winner.

    Returns:
        The winner, as `fashion_keras.final` will train it.

    Raises:
        InputError: If photos or weights cannot be had or used, too many trials fail, or another
            process writes to `results`.
    """
    start = time.monotonic()
    check_free(results)
    if log_dir:
        log_dir.mkdir(parents=True, exist_ok=True)  # TensorFlow would fail late, with a traceback.
    base = dataclasses.replace(base, epochs=max_epochs)
    datasets = prepare_datasets(base, cache, workers or 1)
    print(f"everything will be in {results}", flush=True)
    # Trials of few epochs are too short for a moving average of weights to mean anything.
    trial_base = dataclasses.replace(base, ema_epochs=0.0)
    with tempfile.TemporaryDirectory() as folder, all_together(results, FILES) as work:
        oracle = Oracle(HEAD.judged_by(base), trial_base, max_epochs, factor, Path(folder))
        print(plan := oracle.plan(), flush=True)
        running = workers or default_workers()
        cost = _announced_cost(base, plan, datasets, cache, running, later)
        data = head_data(base, datasets)
        key = fingerprint(head=head_key(trial_base, datasets), plan=plan)
        log_dir = log_dir and log_dir / f"search-{key[:8]}"  # The same if it goes on.
        report = Report(oracle, work, results / PAGE, log_dir, None, cost)
        with pool(running) as processes:
            keys = functools.partial(head_key, datasets=datasets)
            trainer = Trainer(data, keys, cache / "trials", processes)
            run(oracle, trainer, report)
            found = [HEAD.sample(trial.hyperparameters, base) for trial in oracle.best()]
            finalists = rerun(list(dict.fromkeys(found))[:FINALISTS], trainer)
            report.add_finalists(finalists)
            best = _best_of(finalists, data.validation_classes)
            report.add_curves(curves(best.config, trainer))
        name, score = f"validation_{base.objective}", round(best.mean, 4)
        scores = {name: score, "spread": round(best.spread, 4), "seeds": len(best.scores)}
        scores["validation_photos"] = len(data.validation_classes)
        photos = data_fingerprint(datasets.prepared)
        report.write(best.config, scores, photos, start, work / PAGE)
        if log_dir and not (log_dir / "winner").exists():
            _log_winner(best.config, datasets, cache, log_dir / "winner")
        # `final` trains it as long as it gets better.
        winner = dataclasses.replace(best.config, image_size=final_size, epochs=Config.epochs)
        _keep_better(results, name, score, photos)
        (work / "best_config.json").write_text(to_json(with_whole_paths(winner)), encoding="utf-8")
    return winner


def _announced_cost(
    base: Config, plan: Plan, datasets: Datasets, cache: Path, workers: int, later: float
) -> Cost:
    """Print how long all should take, with `later`; return what trials should cost."""
    head_only = dataclasses.replace(base, fine_tuning_epochs=0)
    speed = measure(head_only, datasets, cache, fine_tuning=False)
    arrays = training_arrays(base.augmented_copies)
    missing = sum(datasets.store.missing(*array) for array in arrays)
    epoch = len(datasets.prepared.split("train")) / speed["head"] / workers
    cost = Cost(speed["head_start"] / workers, epoch)
    seconds = {FEATURES: missing / speed["forward"], "trials": cost.of(plan.trials, plan.epochs)}
    trainings = {"finalists": FINALISTS * SEEDS, "curves": sum(map(len, CURVES.values()))}
    again = {name: cost.of(count, count * base.epochs) for name, count in trainings.items()}
    again |= {"start and pictures": FIXED_SECONDS, "fine-tuning": later}
    Left(seconds | again).show()
    return cost._replace(later=sum(again.values()))


def _best_of(finalists: Sequence[Finalist], classes: np.ndarray) -> Finalist:
    """Return the first finalist; say its score, and how many are as good: one photo apart or less.

    `classes` are the class numbers of the validation photos.
    """
    best, photos, objective = finalists[0], len(classes), finalists[0].config.objective
    counts = np.unique(classes, return_counts=True)[1]
    # What a photo counts, at most.
    share = 1 / photos if objective == "accuracy" else 1 / (len(counts) * counts.min())
    if close := sum(best.mean - one.mean < share for one in finalists[1:]):
        print(f"less than one photo of validation behind the winner: {close} of the finalists")
    text = f"the winner's validation {objective.replace('_', ' ')}: {best.mean:.4f}"
    few = photos < LEAST_TO_CALIBRATE
    chosen = f"it is optimistic, as the winner was chosen on these {photos} photos"
    print(f"{text}; {chosen}" if few else text)
    return best


def _keep_better(results: Path, name: str, score: float, photos: str) -> None:
    """Keep the winner of an earlier search of the same photos under another name if it is better.

    Its score is in the name; `name` is that of the score in `search.json`.
    """
    summary, best = read_json(results / "search.json"), results / "best_config.json"
    before = summary.get(name, 0.0)
    if best.exists() and before > score and summary.get("fingerprint") == photos:
        kept = best.with_stem(f"best_config_{before:.4f}")
        shutil.copyfile(best, kept)
        print(f"an earlier winner was better ({before:.4f}, now {score:.4f}): kept as {kept}")


@stage("trials")
def run(oracle: Oracle, trainer: Trainer, report: Report, task: Callable = train_trial) -> None:
    """Run all trials, and show each; none begins after `report.end`.

    Raises:
        InputError: If all trials fail, or too many.
    """
    print(f"about {duration(report.left())} left in all", flush=True)
    for finished in run_trials(oracle, trainer, task, report.end):
        report.add(*finished)
        if time.monotonic() > report.end:
            done = f"{len(report.rows)} of {oracle.plan().trials} trials are done"
            print(f"the time is over: {done}, no other begins", flush=True)
            break
    else:
        trainer.forget_states()
    failed, reasons = len(report.reasons), "; ".join(sorted(set(report.reasons)))
    if failed == len(report.rows):
        raise InputError(f"All {failed} trials failed: {reasons}.")
    if failed:
        print(f"{failed} trials failed: {reasons}")


def _log_winner(winner: Config, datasets: Datasets, cache: Path, log_dir: Path) -> None:
    """Write the confusion matrix and the worst predictions of the winner on validation."""
    model: Any = train_head(winner, datasets, cache).head
    data, photos = head_data(winner, datasets), datasets.prepared.split("validation")
    probabilities = array(keras.ops.softmax(model.predict(data.validation, verbose=0)))
    names = [photo.file for photo in photos]
    scored = Predictions(names, data.validation_classes, probabilities, data.labels)
    files = {photo.file: datasets.prepared.folder / photo.prepared for photo in photos}
    tensor_board.add_predictions(log_dir, scored, files)
