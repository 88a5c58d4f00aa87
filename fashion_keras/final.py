"""Trains the best configuration, tests it once, saves one file: `python -m fashion_keras.final`."""

import csv
import json
import time
from pathlib import Path

import numpy as np

from fashion_keras import command, report
from fashion_keras.artifact import Classifier, load_classifier, save_classifier
from fashion_keras.config import Config, InputError, names, read_config, to_json
from fashion_keras.ensemble import Ensemble, train_ensemble
from fashion_keras.evaluation import confusion, photo_rows, scores
from fashion_keras.model import check_weights
from fashion_keras.predict import predict
from fashion_keras.prepare import Prepared, PreparedPhoto, prepare, summary
from fashion_keras.training import open_source, write_history

MODEL_FILE = "fashion.keras"
FILES = (
    MODEL_FILE,
    "config.json",
    "history.csv",
    "predictions.csv",
    "learning_curves.png",
    "confusion.png",
    "metrics.json",
)


def final(config: Config, results: Path, cache: Path) -> Path:
    """Train one classifier, save it, and score the saved file on the test split.

    All files of a run take their places together at its end: until then those of an earlier run
    stay as they are.

    Args:
        config: All knobs.
        results: Folder for the `.keras` file, `config.json`, `history.csv`, `metrics.json`,
            `predictions.csv`, `learning_curves.png` and `confusion.png`.
        cache: Folder for downloads, prepared photos and vectors.

    Returns:
        Path of the saved `.keras` file.

    Raises:
        InputError: If photos or weights cannot be had or used, or training diverges.
    """
    start = time.monotonic()
    check_weights(config.weights)
    prepared = prepare(config.data, cache, config.seed)
    print(summary(prepared))
    print(f"everything will be in {results}", flush=True)
    with command.all_together(results, FILES) as work:
        trained = train_ensemble(config, open_source(config, prepared, cache))
        print(_outcome(trained), flush=True)
        file = work / MODEL_FILE
        labels = prepared.labels
        save_classifier(trained.backbone, trained.head, labels, config.image_size, file)
        _write_outcome(work, config, trained, _test(file, prepared, work), start)
    file = results / MODEL_FILE
    print(f"saved {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return file


def _outcome(trained: Ensemble) -> str:
    return (
        f"trained {trained.history[-1]['head']} heads, {len(trained.history)} epochs in all: "
        "validation accuracy "
        f"{trained.validation['accuracy']:.4f}, loss {trained.validation['loss']:.4f}"
    )


def _test(file: Path, prepared: Prepared, results: Path) -> dict | None:
    """Score the saved file, loaded anew, on the test split, every photo of it, once."""
    photos = prepared.split("test")
    if not photos:
        print("the data has no test split: no test score")
        return None
    classifier = load_classifier(file)
    probabilities = _probabilities(classifier, prepared, photos)
    true = np.array([classifier.labels.index(photo.label) for photo in photos])
    metrics = scores(true, probabilities, classifier.labels)
    rows = photo_rows(
        [photo.file for photo in photos],
        [photo.label for photo in photos],
        probabilities,
        classifier.labels,
    )
    _write_table(
        results / "predictions.csv", ["file", "true", "predicted", *classifier.labels], rows
    )
    low, high = metrics["accuracy_interval"]
    headline = f"test accuracy {metrics['accuracy']:.4f} ({metrics['correct']} of {len(photos)})"
    table = confusion(true, probabilities.argmax(axis=1), len(classifier.labels))
    report.draw_confusion(table, classifier.labels, headline, results / "confusion.png")
    print(f"{headline}, 95 % interval {low:.3f} to {high:.3f}, macro F1 {metrics['macro_f1']:.4f}")
    return metrics


def _probabilities(
    classifier: Classifier, prepared: Prepared, photos: list[PreparedPhoto]
) -> np.ndarray:
    """Predict photo files the way the predict command does."""
    files = [prepared.folder / photo.prepared for photo in photos]
    predictions = command.progress(predict(classifier, files), len(files), "testing the saved file")
    probabilities = []
    for prediction, photo in zip(predictions, photos, strict=True):
        if prediction.reason:
            raise InputError(f"{photo.file} was readable and is not any more: {prediction.reason}.")
        probabilities.append(prediction.probabilities)
    return np.stack(probabilities)


def _write_outcome(
    results: Path, config: Config, trained: Ensemble, test: dict | None, start: float
) -> None:
    metrics = {
        "validation": trained.validation,
        "test": test,
        "run": command.provenance(start),
    }
    (results / "config.json").write_text(to_json(config), encoding="utf-8")
    (results / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    write_history(trained.history, results / "history.csv")
    report.draw_learning_curves(trained.history, results / "learning_curves.png")


def _write_table(file: Path, header: list[str], rows: list[list]) -> None:
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(header)
        writer.writerows(rows)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, and say where everything is."""
    options = command.parser(
        "Train the classifier and save it as one self-contained .keras file.\n\n"
        "Without options the winner of `python -m tuning.search` is trained at 299 px, or, where\n"
        "no search was run, the best values of the course that this project grew out of.",
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
    command.add_config_options(options, names(), Config())
    command.add_folder_options(options)
    given = options.parse_args(arguments)
    config = command.chosen(given, _base(given.config, given.results))
    final(config, given.results / "final", given.cache)


def _base(file: Path | None, results: Path) -> Config:
    """Return the configuration to start from."""
    found = results / "search" / "best_config.json"
    if file is None and not found.exists():
        print("no search was run before: the course's best values are used")
        return Config()
    print(f"configuration: {file or found}")
    return read_config(file or found)


if __name__ == "__main__":
    command.run(main)
