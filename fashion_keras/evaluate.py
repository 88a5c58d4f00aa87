"""Scores a saved file on photos whose category is known: `python -m fashion_keras.evaluate`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fashion_keras import cli
from fashion_keras.artifacts import all_together, sha256_of
from fashion_keras.config import Config, InputError
from fashion_keras.data.layout import OTHER, is_other
from fashion_keras.inspection import find_model, is_onnx, read_metadata

if TYPE_CHECKING:  # Importing these takes seconds, which `--help` does not need.
    from fashion_keras.classifier import Classifier, Prediction
    from fashion_keras.data.prepare import Prepared
    from fashion_keras.training import Datasets, History

_UNEVEN = 2  # So many times as many photos has the largest class as the smallest.
_MOST_RECALLS = 12  # In a line.
FILES = ("predictions.csv", "confusion.png", "metrics.json")


class Labelled(NamedTuple):
    """A photo whose category is known."""

    file: Path
    name: str  # In tables, as it can be printed.
    label: str


def labelled(prepared: Prepared, split: str) -> list[Labelled]:
    """Return the photos of a split with their categories; of `other` those of no category."""
    photos = prepared.others if split == OTHER else prepared.split(split)
    return [Labelled(prepared.folder / photo.prepared, photo.file, photo.label) for photo in photos]


def labelled_photos(folder: Path, labels: Sequence[str]) -> list[Labelled]:
    """Return the photos in a folder of class folders, in the order of their names.

    Raises:
        InputError: If a class folder is not one of the labels, or there are no photos.
    """
    from fashion_keras.data.files import label_of, subfolders

    if not folder.is_dir():
        raise InputError(f"No folder {folder}; expected one that holds a folder for each category.")
    classes = [path for path in subfolders(folder) if not is_other(path.name)]
    known = {label.casefold(): label for label in labels}
    unknown = [path.name for path in classes if label_of(path).casefold() not in known]
    if unknown or not classes:
        raise InputError(
            f"Expected in {folder} folders named {', '.join(labels)}. "
            f"Received: {', '.join(unknown) or 'no folder'}."
        )
    photos = [
        photo
        for path in classes
        for photo in _in_folder(path, folder, known[label_of(path).casefold()])
    ]
    if not photos:
        raise InputError(f"No photos in the class folders of {folder}.")
    return photos


def _in_folder(path: Path, folder: Path, label: str) -> list[Labelled]:
    from fashion_keras.data.files import find_files, shown

    files = find_files(path)
    return [Labelled(file, shown(file.relative_to(folder).as_posix()), label) for file in files]


def answer_others(classifier: Classifier, folder: Path, metrics: dict) -> dict:
    """Return metrics with `other`: what is answered to the photos in a folder of that name.

    It has how many can be read (`photos`), and how many of these are answered `none of these`.
    Those that cannot be read join `unreadable`. Without such photos nothing is added.
    """
    from fashion_keras.classifier import NONE
    from fashion_keras.data.files import subfolders

    folders = [path for path in subfolders(folder) if is_other(path.name)]
    photos = [photo for path in folders for photo in _in_folder(path, folder, OTHER)]
    if not photos:
        return metrics
    found, unreadable = predict_photos(classifier, photos, f"testing with {OTHER}")
    none = sum(prediction.category == NONE for _, prediction in found)
    other = {"photos": len(found), "none_of_these": none}
    return metrics | {OTHER: other, "unreadable": [*metrics["unreadable"], *unreadable]}


def with_review(
    photos: list[Labelled], folder: Path, labels: Sequence[str], review: str
) -> list[Labelled]:
    """Return photos as a review has decided (see `apply_review`), and print what it did.

    The names in the file `review` (empty for none) are relative to the folder of the data set:
    that is `folder`, or, where `folder` is named like a split, the one around it.

    Raises:
        InputError: If the file cannot be used, or no photo is left.
    """
    from fashion_keras.data.layout import split_of
    from fashion_keras.data.review import apply_review

    if not review:
        return photos
    file, name = Path(review).expanduser(), folder.resolve().name
    kept, note = apply_review(photos, file, labels, name if split_of(name) else "")
    kept = [photo for photo in kept if photo.label != OTHER]
    if not kept:
        raise InputError(f"The review {file.name} leaves no photo of {folder}.")
    print(note)
    return kept


@cli.stage("scoring")
def evaluate(
    classifier: Classifier, photos: Sequence[Labelled], results: Path, cache: Path | None = None
) -> dict:
    """Score a loaded classifier the way the predict command uses it.

    `predictions.csv` (one row per photo) and `confusion.png` are written into the folder `results`;
    for `cache` see `Classifier.for_photos`.

    Returns:
        The numbers of `metrics.scores`, which are those of the nearest categories; if the file
        knows `none of these`, how many photos are answered so (`none_of_these`) and how many are
        answered with their category (`answered_correctly`); and a line for each photo that cannot
        be read (`unreadable`); such photos do not count.

    Raises:
        InputError: If no photo can be read.
    """
    from fashion_keras.classifier import NONE
    from fashion_keras.figures import draw_confusion
    from fashion_keras.metrics import confusion, scores

    classifier = classifier.for_photos(len(photos), cache)
    labels = classifier.labels
    found, unreadable = predict_photos(classifier, photos, "testing the saved file")
    readable = [photo for photo, _ in found]
    probabilities = np.stack([prediction.probabilities for _, prediction in found])
    true = np.array([labels.index(photo.label) for photo in readable])
    with (results / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "true", "predicted", *labels])
        for (_, name, label), row in zip(readable, probabilities, strict=True):
            # Nine digits give a float32 back as it was, and the least probability is not 0.
            table.writerow([name, label, labels[row.argmax()], *(f"{value:.9g}" for value in row)])
    metrics = scores(true, probabilities, labels)
    counts = confusion(true, probabilities.argmax(axis=1), len(labels))
    draw_confusion(counts, labels, headline(metrics).split(",")[0], results / "confusion.png")
    if classifier.class_means is not None:
        refused = np.array([prediction.category == NONE for _, prediction in found])
        right = ~refused & (probabilities.argmax(axis=1) == true)
        metrics |= {"none_of_these": int(refused.sum()), "answered_correctly": int(right.sum())}
    return metrics | {"unreadable": unreadable}


def predict_photos(
    classifier: Classifier, photos: Sequence[Labelled], doing: str
) -> tuple[list[tuple[Labelled, Prediction]], list[str]]:
    """Return the readable photos with their predictions, and a line for each other photo.

    `doing` names that in the progress line.

    Raises:
        InputError: If no photo can be read.
    """
    predictions = classifier.predict(photo.file for photo in photos)
    both = list(zip(photos, cli.progress(predictions, len(photos), doing), strict=True))
    unreadable = [f"{photo.name}: {found.reason}" for photo, found in both if found.reason]
    readable = [(photo, found) for photo, found in both if not found.reason]
    if not readable:
        raise InputError(f"No photo can be read. First: {unreadable[0]}")
    return readable, unreadable


def headline(metrics: dict) -> str:
    """Return the scores in one line; with uneven classes the balanced accuracy, too."""
    counts = [one["support"] for one in metrics["by_class"].values() if one["support"]]
    uneven = max(counts) >= _UNEVEN * min(counts)
    balanced = f", balanced accuracy {metrics['balanced_accuracy']:.4f}" if uneven else ""
    return f"{_accuracy(metrics)}{balanced}, macro F1 {metrics['macro_f1']:.4f}"


def _accuracy(scores: dict) -> str:
    low, high = scores["accuracy_interval"]
    return (
        f"accuracy {scores['accuracy']:.4f} ({scores['correct']} of {scores['photos']}), "
        f"95 % interval {low:.3f} to {high:.3f}"
    )


def recalls(by_class: dict[str, dict]) -> str:
    """Return the recall of each class in a line, the lowest first, and a warning for those of 0."""
    known = {label: one["recall"] for label, one in by_class.items() if one["support"]}
    lowest = sorted(known.items(), key=lambda item: item[1])
    shown = ", ".join(f"{label} {recall:.2f}" for label, recall in lowest[:_MOST_RECALLS])
    more = f" and {len(lowest) - _MOST_RECALLS} more" if lowest[_MOST_RECALLS:] else ""
    never = [label for label, recall in lowest if not recall]
    warning = f"\nwarning: never recognised: {', '.join(never)}" if never else ""
    return f"recall: {shown}{more}{warning}"


def answered_none(metrics: dict) -> str:
    """Return lines that say how many photos are answered `none of these`, if it is known."""
    count, other = metrics.get("none_of_these"), metrics.get(OTHER)
    text, right = "", metrics.get("answered_correctly")
    if count is not None:
        text = f"answered `none of these`: {count} of {metrics['photos']}; with these, {right} are "
        text += "answered correctly (the scores count the nearest category)\n"
    if other:
        answered = f"{other['none_of_these']} of {other['photos']}"
        text += f"{OTHER}: {answered} answered `none of these`\n"
    return text


def cross_validation(
    config: Config, datasets: Datasets, history: History, validation: dict[str, float]
) -> dict[str, dict]:
    """Return `cross_validation` for the results: nothing if validation has photos enough.

    Its value holds the scores of `cross_validate` (see `metrics.accuracy_scores`), and `measured`:
    what they are the scores of. `history` is that of `final`, `validation` what it kept.
    """
    from fashion_keras.data.split import FOLDS
    from fashion_keras.metrics import LEAST_TO_CALIBRATE, accuracy_scores

    if len(datasets.prepared.split("validation")) >= LEAST_TO_CALIBRATE:
        return {}
    best = min((row for row in history if row["stage"] == "head"), key=lambda row: row["val_loss"])
    measured = f"the head on frozen features, cross-validated in {FOLDS} folds"
    if validation["loss"] != best["val_loss"]:
        measured += "; fine-tuning, which comes after it, is not measured"
    if config.weights != "imagenet":
        measured += "; too high if the weights of the backbone were trained on these photos"
    true, predicted = cross_validate(config, datasets, int(best["epoch"]))
    return {"cross_validation": {**accuracy_scores(true, predicted), "measured": measured}}


@cli.stage("cross-validation")
def cross_validate(config: Config, datasets: Datasets, epochs: int) -> tuple[np.ndarray, ...]:
    """Predict each photo for training and validation by a head that was trained on other folds.

    Near-duplicates are in one fold. Held-out photos are predicted as they are; augmented copies
    are trained on where they exist: not of the photos for validation.

    Args:
        config: The fields that decide `head` are used, but for `epochs` and `patience`.
        datasets: What `training.train_head` takes.
        epochs: Of each head: the held-out photos must not decide when to stop.

    Returns:
        The class number of each photo, `(photos,)`, and the predicted one.
    """
    from fashion_keras import training
    from fashion_keras.data.prepare import near_duplicates
    from fashion_keras.data.split import deal_folds

    data = training.head_data(config, datasets)
    copies = [np.concatenate([copy[:], data.validation[:]]) for copy in data.copies]
    true = np.concatenate([data.classes, data.validation_classes])
    groups = near_duplicates(datasets.prepared, ("train", "validation"))
    folds, predicted = deal_folds(true, groups, config.seed), np.empty_like(true)
    for fold in np.unique(folds):
        held_out, used = folds == fold, folds != fold
        part = data._replace(copies=[copy[used] for copy in copies], classes=true[used])
        model = training.build_compiled_head(config, len(data.labels), len(part.classes))
        steps = training.steps_per_epoch(config, len(part.classes))
        options: Any = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        # It ends with averaged weights.
        model.fit(training.head_datasets(config, part)[0], epochs=epochs, **options)
        predicted[held_out] = model.predict_on_batch(copies[0][held_out]).argmax(axis=-1)
    return true, predicted


def in_words(found: dict) -> list[str]:
    """Return what `cross_validation` found, in sentences for people; nothing if it is nothing."""
    if not (found := found.get("cross_validation", {})):
        return []
    return [
        f"Cross-validated {_accuracy(found)}, balanced accuracy {found['balanced_accuracy']:.4f}: "
        f"{found['measured']}.",
        "With 95 % confidence the accuracy on photos like these lies in that interval. Photos "
        "taken by other people, with other cameras or for other shops are harder: expect less.",
    ]


def write_metrics(metrics: dict, model: Path, start: float, file: Path) -> None:
    """Write the numbers of a saved file, with its SHA-256 and where they come from, as JSON."""
    whole = metrics | {"model_sha256": sha256_of(model), "run": cli.provenance(start)}
    file.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Score a saved file on photos in class folders: accuracy with its 95 % interval, macro\n"
        "F1, and each category by itself. Writes metrics.json, predictions.csv and confusion.png.\n"
        "Exit code: 0 if all photos could be read, 3 if some could not, 1 if the accuracy is\n"
        "below --at-least, 2 for wrong usage.",
        "fashion_keras.evaluate",
        "example:\n  python -m fashion_keras.evaluate results/final/fashion.keras photos/test",
    )
    options.add_argument(
        "model", type=Path, help="a .keras file of this project, or its export to .onnx"
    )
    options.add_argument(
        "folder",
        type=Path,
        help="folder with a folder of photos per category; of a folder named `other`, how many of "
        "its photos are answered `none of these`",
    )
    options.add_argument(
        "--at-least",
        type=cli.probability,
        default=0.0,
        metavar="FLOAT",
        help="end with exit code 1 if the accuracy is lower, for automatic checks (default: 0)",
    )
    cli.add_config_options(options, ["review"], Config())
    cli.add_results_option(options, "results/evaluation", "the files written")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, score, print and write the numbers."""
    start = time.monotonic()
    given = _options().parse_args(arguments)
    given.model = find_model(given.model)
    labels = read_metadata(given.model)["labels"]
    photos = labelled_photos(given.folder, labels)
    photos = with_review(photos, given.folder, labels, given.review or "")
    print(f"scoring {given.model} on {len(photos)} photos", flush=True)
    from fashion_keras.classifier import load_classifier

    with all_together(given.results, FILES) as work:
        classifier = load_classifier(given.model)
        metrics = evaluate(classifier, photos, work)
        metrics = answer_others(classifier, given.folder, metrics)
        write_metrics(metrics, given.model, start, work / "metrics.json")
    row = "{:<12} {support:>5} photos  precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}"
    by_class = metrics["by_class"]
    for label, numbers in by_class.items():
        if numbers["support"]:
            print(row.format(label, **numbers))
    if without := [label for label, numbers in by_class.items() if not numbers["support"]]:
        print(f"without photos: {', '.join(without)}")
    print(headline(metrics))
    print(answered_none(metrics), end="")
    for line in metrics["unreadable"]:
        print(f"cannot be read, not counted: {line}")
    print(f"everything is in {given.results}")
    if not is_onnx(given.model):
        review = ("--review", given.review) if given.review else ()
        print(f"now run: {cli.command('fashion_keras.report', given.model, given.folder, *review)}")
    if metrics["accuracy"] < given.at_least:
        print(f"the accuracy is below {given.at_least:g}", file=sys.stderr)
        sys.exit(1)
    if metrics["unreadable"]:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
