"""Scores a saved file on photos whose category is known: `python -m fashion_keras.evaluate`."""

import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashion_keras import cli, stopwatch
from fashion_keras import figures as drawings
from fashion_keras.artifacts import all_together, sha256_of
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.scan import shown, subfolders
from fashion_keras.inspection import read_metadata
from fashion_keras.metrics import confusion, photo_rows, scores
from fashion_keras.predict.inputs import find_files

FILES = ("predictions.csv", "confusion.png", "metrics.json")


class Labelled(NamedTuple):
    """A photo whose category is known.

    Attributes:
        file: Where it lies.
        name: What it is called in tables, as it can be printed.
        label: Its category.
    """

    file: Path
    name: str
    label: str


def labelled_photos(folder: Path, labels: Sequence[str]) -> list[Labelled]:
    """List the photos in a folder of class folders, in the order of their names.

    Raises:
        InputError: If a class folder is not one of the labels, or there are no photos.
    """
    if not folder.is_dir():
        raise InputError(f"No folder {folder}; expected one that holds a folder for each category.")
    classes = [path.name for path in subfolders(folder)]
    unknown = [name for name in classes if name not in labels]
    if unknown or not classes:
        raise InputError(
            f"Expected in {folder} folders named {', '.join(labels)}. "
            f"Received: {', '.join(unknown) or 'no folder'}."
        )
    files = [path for path in find_files(folder) if path.parent != folder]
    if not files:
        raise InputError(f"No photos in the class folders of {folder}.")
    names = [file.relative_to(folder) for file in files]
    return [
        Labelled(file, shown(name.as_posix()), name.parts[0])
        for file, name in zip(files, names, strict=True)
    ]


@stopwatch.stage("scoring")
def evaluate(model: Path, photos: Sequence[Labelled], results: Path) -> dict:
    """Score a saved file, loaded anew, the way the predict command uses it.

    Args:
        model: A file written by `artifact.save_classifier`.
        photos: What to score it on, every photo once.
        results: Folder for `predictions.csv` (one row a photo) and `confusion.png`.

    Returns:
        The numbers of `scores`, the SHA-256 of the model file (`model_sha256`), and a line for
        each photo that cannot be read (`unreadable`); such photos do not count.

    Raises:
        InputError: If the file is no classifier, or no photo can be read.
    """
    classifier = load_classifier(model)
    labels = classifier.labels
    readable, probabilities, unreadable = predict_all(classifier, photos, "testing the saved file")
    true = np.array([labels.index(photo.label) for photo in readable])
    names, given = [photo.name for photo in readable], [photo.label for photo in readable]
    rows = photo_rows(names, given, probabilities, labels)
    _write_predictions(results / "predictions.csv", labels, rows)
    metrics = scores(true, probabilities, labels)
    table = confusion(true, probabilities.argmax(axis=1), len(labels))
    title = headline(metrics).split(",")[0]
    drawings.draw_confusion(table, labels, title, results / "confusion.png")
    return metrics | {"model_sha256": sha256_of(model), "unreadable": unreadable}


def predict_all(
    classifier: Classifier, photos: Sequence[Labelled], doing: str
) -> tuple[list[Labelled], np.ndarray, list[str]]:
    """Predict photos whose category is known.

    Args:
        classifier: See `classifier.Classifier`.
        photos: What to predict.
        doing: What is being done, for the line that shows the progress.

    Returns:
        The readable photos, their probabilities `(photos, classes)`, and a line for each other
        photo.

    Raises:
        InputError: If no photo can be read.
    """
    predictions = classifier.predict(photo.file for photo in photos)
    counted = cli.progress(predictions, len(photos), doing)
    both = list(zip(photos, counted, strict=True))
    unreadable = [f"{photo.name}: {found.reason}" for photo, found in both if found.reason]
    if len(unreadable) == len(photos):
        raise InputError(f"No photo can be read. First: {unreadable[0]}")
    readable = [photo for photo, found in both if not found.reason]
    probabilities = np.stack([found.probabilities for _, found in both if not found.reason])
    return readable, probabilities, unreadable


def headline(metrics: dict) -> str:
    """Return the scores in one line."""
    low, high = metrics["accuracy_interval"]
    return (
        f"accuracy {metrics['accuracy']:.4f} ({metrics['correct']} of {metrics['photos']}), "
        f"95 % interval {low:.3f} to {high:.3f}, macro F1 {metrics['macro_f1']:.4f}"
    )


def write_metrics(metrics: dict, start: float, file: Path) -> None:
    """Write the numbers with where they come from as JSON."""
    whole = metrics | {"run": cli.provenance(start)}
    file.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def _write_predictions(file: Path, labels: Sequence[str], rows: list[list]) -> None:
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["file", "true", "predicted", *labels])
        writer.writerows(rows)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, score, print and write the numbers."""
    start = time.monotonic()
    options = cli.parser(
        "Score a saved file on photos in class folders: accuracy with its 95 % interval, macro\n"
        "F1, and each category by itself. Writes metrics.json, predictions.csv and confusion.png.\n"
        "Exit code: 0 if all photos could be read, 3 if some could not, 2 for wrong usage.",
        "fashion_keras.evaluate",
        "example:\n  python -m fashion_keras.evaluate results/final/fashion.keras photos/test",
    )
    options.add_argument(
        "model", type=Path, help="a .keras file made by `python -m fashion_keras.final`"
    )
    options.add_argument(
        "folder", type=Path, help="folder that holds one folder of photos for each category"
    )
    options.add_argument(
        "--results",
        type=Path,
        default=Path("results/evaluation"),
        metavar="FOLDER",
        help="folder for the files written (default: %(default)s)",
    )
    stopwatch.add_option(options)
    given = options.parse_args(arguments)
    photos = labelled_photos(given.folder, read_metadata(given.model)["labels"])
    with stopwatch.profiled(given.profile), all_together(given.results, FILES) as work:
        metrics = evaluate(given.model, photos, work)
        write_metrics(metrics, start, work / "metrics.json")
    for label, row in metrics["by_class"].items():
        print(
            f"{label:<12} {row['support']:>5} photos  precision {row['precision']:.3f}  "
            f"recall {row['recall']:.3f}  F1 {row['f1']:.3f}"
        )
    print(headline(metrics))
    for line in metrics["unreadable"]:
        print(f"cannot be read, not counted: {line}")
    print(f"everything is in {given.results}")
    if metrics["unreadable"]:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
