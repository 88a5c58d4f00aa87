"""Trains the best configuration, tests it once, saves one file: `python -m fashion_keras.final`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fashion_keras import cli, evaluate
from fashion_keras.artifacts import all_together, check_free
from fashion_keras.config import Config, InputError, names, read_config, to_json
from fashion_keras.data.prepare import Prepared
from fashion_keras.evaluate import Labelled
from fashion_keras.inspection import read_metadata
from fashion_keras.learning_rate import AUTO, add_rate_option, with_found_rate
from fashion_keras.report import tensor_board
from fashion_keras.report.outcome import read_predictions

if TYPE_CHECKING:  # Importing these takes seconds, which `--help` does not need.
    from fashion_keras.classifier import Classifier, Prediction
    from fashion_keras.fine_tuning import FineTuned
    from fashion_keras.timing import Left
    from fashion_keras.training import Datasets

MODEL_FILE = "fashion.keras"
RATE_PICTURE = "learning_rate.png"
PAGE = "report.html"
DISTANCES = "distances.csv"
FILES = (
    MODEL_FILE,
    "config.json",
    "history.csv",
    "learning_curves.png",
    *evaluate.FILES,
    DISTANCES,
    RATE_PICTURE,
    PAGE,
    "training.json",  # The last: the sign that all are in place.
)
_TEST_SCORES = ("accuracy", "accuracy_interval", "correct", "photos", "macro_f1")


def final(
    config: Config,
    results: Path,
    cache: Path,
    *,
    workers: int = 1,
    budget: float | None = None,
    data_licence: str = "",
    log_dir: Path | None = None,
    find_rate: bool = False,
) -> Path:
    """Train one classifier, save it, and score the saved file on the test split.

    The files of a run replace those of an earlier run together, at its end.

    Args:
        config: All hyperparameters.
        results: Folder for `FILES`.
        cache: Folder for downloads, prepared photos, features, and finished epochs.
        workers: Processes that compute features.
        budget: Minutes in which all should be done; None for as long as it takes.
        data_licence: Licence of the photos, for the metadata.
        log_dir: Folder for TensorBoard.
        find_rate: Find the learning rate of the head first.

    Returns:
        Path of the saved `.keras` file.

    Raises:
        InputError: If photos or weights cannot be had or used, the budget is too small, or
            training diverges.
    """
    from fashion_keras.classifier import load_classifier
    from fashion_keras.novelty import learn_novelty
    from fashion_keras.timing import TEST, announced, plan
    from fashion_keras.training import prepare_datasets

    start = time.monotonic()
    check_free(results)
    if log_dir:
        log_dir.mkdir(parents=True, exist_ok=True)  # TensorFlow would fail late, with a traceback.
    datasets, planned = prepare_datasets(config, cache, workers), None
    if budget is not None:
        config, planned = plan(config, datasets, budget, start, cache)
    print(f"everything will be in {results}", flush=True)
    left = announced(config, datasets, cache, budget is not None)
    with all_together(results, FILES) as work:
        _make_feature_maps(config, datasets)
        if find_rate:
            config = with_found_rate(config, datasets, work / RATE_PICTURE)
        run = tensor_board.new_log_dir(log_dir, "final")
        trained = _train(config, datasets, cache, run, left)
        left.show(TEST)
        crossed = evaluate.cross_validation(config, datasets, trained.history, trained.validation)
        sides = _validate(config, prepared := datasets.prepared, trained, cache)
        validated = _chosen(sides)
        _save(config, prepared, trained, validated, crossed, work / MODEL_FILE, data_licence)
        by_side = {"validation_by_side": {one.side: one.scores for one in sides}}
        outcome = {"validation": validated.scores, "budget": planned, **crossed, **by_side}
        _write_outcome(work, config, trained.history, outcome, start)  # Without the test's time.
        learn_novelty(work / MODEL_FILE, prepared, validated.predicted, work / DISTANCES, cache)
        classifier = load_classifier(work / MODEL_FILE)
        photos, metrics = _score_once(classifier, prepared, crossed, work, cache)
        _write_page(classifier, work, results, photos)
        if run:
            scores = {f"validation_{name}": value for name, value in validated.scores.items()}
            scores |= {"test_accuracy": metrics["accuracy"]} if metrics else {}
            tensor_board.add_run(run, dataclasses.asdict(config), scores, time.monotonic() - start)
            _add_predictions(run, work, photos)
    print("".join(f"{line}\n" for line in evaluate.in_words(crossed)), end="")
    cli.show_saved(results / MODEL_FILE, results / PAGE)
    return results / MODEL_FILE


def _add_predictions(run: Path, work: Path, photos: Sequence[Labelled]) -> None:
    if predictions := read_predictions(work / "predictions.csv"):
        files = {photo.name: photo.file for photo in photos}
        tensor_board.add_predictions(run, predictions, files)


@cli.stage("feature maps")
def _make_feature_maps(config: Config, datasets: Datasets) -> None:
    """Compute the feature maps for fine-tuning: the features for the head come with them."""
    from fashion_keras.model import chosen_fine_tune_from, tunes_on_pixels

    if not config.fine_tuning_epochs:
        print("no fine-tuning: the backbone stays frozen")
        return
    block, option = chosen_fine_tune_from(config), f"--fine-tune-from {config.fine_tune_from}"
    print(f"fine-tuning will start at {block} (`{option}`)", flush=True)
    if not tunes_on_pixels(config):
        datasets.store.make_feature_maps(config.fine_tuning_copies, block)


def _train(
    config: Config, datasets: Datasets, cache: Path, run: Path | None, left: Left
) -> FineTuned:
    """Train the head, then, unless it stays frozen, the backbone with it."""
    from fashion_keras.fine_tuning import STAGE, FineTuned, fine_tune
    from fashion_keras.model import copied
    from fashion_keras.training import train_head

    trained = train_head(config, datasets, cache, tensor_board.callbacks(run, "head"))
    history: list[dict[str, Any]] = [{"stage": "head"} | row for row in trained.history]
    before = {name: trained.best[f"val_{name}"] for name in ("loss", "accuracy")}
    print(_validation_line("the head", before), flush=True)
    if not config.fine_tuning_epochs:
        return FineTuned(datasets.backbone, trained.head, history, before)
    left.show(STAGE)
    tuned = fine_tune(config, datasets, trained, cache, tensor_board.callbacks(run, STAGE))
    print(_validation_line(STAGE, tuned.validation), flush=True)
    if tuned.validation["loss"] > before["loss"]:
        print("fine-tuning did not lower the validation loss: the head alone is kept", flush=True)
        frozen = copied(datasets.backbone)  # What is saved is rounded.
        tuned = tuned._replace(backbone=frozen, head=trained.head, validation=before)
    return tuned._replace(history=[*history, *({"stage": STAGE} | row for row in tuned.history)])


def _validation_line(stage: str, scores: dict[str, float]) -> str:
    return f"after {stage}: validation accuracy {scores['accuracy']:.4f}, loss {scores['loss']:.4f}"


class _Validated(NamedTuple):
    """What the whole classifier gives for the photos of validation, resized to one side."""

    side: int
    temperature: float
    losses: np.ndarray  # Of each photo, calibrated, in nats.
    accuracy: float
    predicted: list[tuple[Labelled, Prediction]]

    @property
    def scores(self) -> dict[str, float]:
        return {"loss": float(self.losses.mean()), "accuracy": self.accuracy}


@cli.stage("validation")
def _validate(
    config: Config, prepared: Prepared, trained: FineTuned, cache: Path
) -> list[_Validated]:
    """Calibrate on validation photos, resized to the side of training and to larger ones."""
    from fashion_keras.model import prediction_sides

    sides = prediction_sides(config, len(prepared.split("validation")))
    found = [_validated(side, prepared, trained, cache) for side in sides]
    for one in found:
        scores = f"accuracy {one.accuracy:.4f}, calibrated loss {one.losses.mean():.4f}"
        print(f"validation at {one.side} px: {scores}", flush=True)
    return found


def _chosen(found: Sequence[_Validated]) -> _Validated:
    """Return the first one, or another whose loss is clearly lower."""
    from fashion_keras.metrics import LEAST_TO_CALIBRATE, clearly_lower

    better = [one for one in found if clearly_lower(one.losses, found[0].losses)]
    chosen = min(better or found[:1], key=lambda one: one.losses.mean())
    few = len(chosen.losses) < LEAST_TO_CALIBRATE
    calibrated = "not calibrated, with so few photos" if few else f"{chosen.temperature:.3f}"
    print(f"photos will be resized to {chosen.side} px; temperature: {calibrated}")
    return chosen


def _validated(side: int, prepared: Prepared, trained: FineTuned, cache: Path) -> _Validated:
    from fashion_keras.classifier import Classifier
    from fashion_keras.metrics import calibrated_losses
    from fashion_keras.model import build_classifier

    model = build_classifier(trained.backbone, trained.head, side)
    # As photos are predicted later, not as in training, which decodes them differently.
    classifier = Classifier(model, {"labels": prepared.labels, "image_size": side})
    photos = evaluate.labelled(prepared, "validation")
    classifier = classifier.for_photos(len(photos), cache)
    found, _ = evaluate.predict_photos(classifier, photos, f"validation at {side} px")
    true = np.array([prepared.labels.index(photo.label) for photo, _ in found])
    probabilities = np.stack([prediction.probabilities for _, prediction in found])
    accuracy = float((probabilities.argmax(axis=1) == true).mean())
    return _Validated(side, *calibrated_losses(true, probabilities), accuracy, found)


@cli.stage("saving")
def _save(
    config: Config,
    prepared: Prepared,
    trained: FineTuned,
    validated: _Validated,
    crossed: dict[str, Any],
    file: Path,
    data_licence: str,
) -> None:
    from fashion_keras.saving import save_classifier, training_metadata

    metadata = training_metadata(config, prepared, validated.scores, data_licence) | crossed
    options = (prepared.labels, validated.side, file, metadata, validated.temperature)
    save_classifier(trained.backbone, trained.head, *options)


def _score_once(
    classifier: Classifier, prepared: Prepared, crossed: dict[str, Any], work: Path, cache: Path
) -> tuple[list[Labelled], dict]:
    """Score the saved file on the test split, every photo of it, once; add that to its metadata.

    `classifier` is that file, loaded from the folder `work`.

    Returns:
        The photos and the numbers of `evaluate.evaluate`; nothing, if there is no such split.
    """
    from fashion_keras.saving import add_metadata

    start = time.monotonic()
    photos = evaluate.labelled(prepared, "test")
    if not photos:
        print("the data has no test split: no test score")
        return [], {}
    metrics, file = evaluate.evaluate(classifier, photos, work, cache), work / MODEL_FILE
    if metrics["unreadable"]:
        raise InputError(f"This photo can no longer be read: {metrics['unreadable'][0]}.")
    add_metadata(file, {"test": {name: metrics[name] for name in _TEST_SCORES}})
    evaluate.write_metrics(metrics | crossed, file, start, work / "metrics.json")
    print(f"test: {evaluate.headline(metrics)}")
    print(evaluate.answered_none(metrics), end="")
    print(evaluate.recalls(metrics["by_class"]))
    return photos, metrics


def _write_outcome(
    work: Path,
    config: Config,
    history: Sequence[dict[str, Any]],
    outcome: dict[str, Any],
    start: float,
) -> None:
    from fashion_keras.figures import learning_curves, save_png
    from fashion_keras.model import chosen_fine_tune_from
    from fashion_keras.training import write_rows

    outcome = outcome | {
        "fine_tune_from": chosen_fine_tune_from(config),
        "peak_memory_gb": cli.peak_memory(),
        "run": cli.provenance(start),
    }
    (work / "config.json").write_text(to_json(config), encoding="utf-8")
    (work / "training.json").write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    write_rows(history, work / "history.csv")
    save_png(learning_curves(history), work / "learning_curves.png")


def _write_page(
    classifier: Classifier, work: Path, results: Path, photos: Sequence[Labelled]
) -> None:
    from fashion_keras.report.page import Sources, write_report

    name = read_metadata(work / MODEL_FILE)["data"]["name"]
    sources = Sources(work / MODEL_FILE, work, work, results.parent / "search", name)
    write_report(sources, photos, work / PAGE, classifier.model)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"expected minutes, more than 0. Received: {text}")
    return minutes


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Train the classifier and save it as one self-contained .keras file.\n\n"
        "Without options the winner of `python -m tuning.search` is trained, or, without a\n"
        "search, the default configuration. Photos in a folder named `other` are no category:\n"
        "they set the threshold of the answer `none of these`.",
        "fashion_keras.final",
        "example:\n  python -m fashion_keras.final --data photos/ --weights imagenet",
    )
    options.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration whose values are the defaults of all other options "
        "(default: search/best_config.json in the results folder)",
    )
    others = [name for name in names() if name not in ("learning_rate", "objective")]
    cli.add_config_options(options, others, Config())
    add_rate_option(options)
    cli.add_folder_options(options)
    cli.add_workers_option(options)
    cli.add_deterministic_option(options)
    tensor_board.add_option(options)
    options.add_argument(
        "--budget",
        type=_minutes,
        metavar="MINUTES",
        help="leave out copies and epochs of fine-tuning, so that all is done in about this time; "
        "the speed of this machine is measured first (default: as long as it takes)",
    )
    options.add_argument(
        "--data-licence",
        default="",
        metavar="TEXT",
        help="licence of the photos, for the metadata of the saved file (default: CC0-1.0 for "
        "`clothing`, else not stated)",
    )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, and say where everything is."""
    given = _options().parse_args(arguments)
    if find_rate := given.learning_rate == AUTO:
        given.learning_rate = None
    config = cli.chosen(given, _base(given.config, given.results))
    print(f"training a classifier on {config.data}; {cli.TIME_FOLLOWS}", flush=True)
    if given.deterministic:
        from fashion_keras.backend import enable_determinism

        enable_determinism()
    final(
        config,
        given.results / "final",
        given.cache,
        workers=given.workers,
        budget=given.budget,
        data_licence=given.data_licence,
        log_dir=given.tensorboard,
        find_rate=find_rate,
    )


def _base(file: Path | None, results: Path) -> Config:
    """Return the configuration to start from."""
    found = results / "search" / "best_config.json"
    if file is None and not found.exists():
        if (found.parent / PAGE).exists():
            raise InputError(
                f"The search in {found.parent} has not finished: run it again, and it continues. "
                "`--config FILE` or another `--results` does without it."
            )
        used = f"the default configuration is used, `--data {Config.data}` unless it is given"
        print(f"no search in {found.parent}: {used}", flush=True)
        return Config()
    print(f"configuration: {file or found}", flush=True)
    return read_config(file or found)


if __name__ == "__main__":
    cli.run(main)
