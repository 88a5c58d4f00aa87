"""Makes one HTML page of a saved file and labelled photos: `python -m fashion_keras.report`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fashion_keras import cli
from fashion_keras.artifacts import all_together
from fashion_keras.config import Config, InputError
from fashion_keras.data.files import subfolders
from fashion_keras.data.layout import SPLITS, split_of
from fashion_keras.data.scan import scan
from fashion_keras.evaluate import FILES as TEST_FILES
from fashion_keras.evaluate import (
    Labelled,
    answer_others,
    answered_none,
    evaluate,
    headline,
    labelled_photos,
    with_review,
    write_metrics,
)
from fashion_keras.inspection import find_model, is_onnx, read_metadata

PAGE = "report.html"
_NAMED = ("clothing", "sample")


def photos_named(data: str, labels: Sequence[str], cache: Path, review: str = "") -> list[Labelled]:
    """List the photos to test a saved file with these labels on, as a review has decided.

    Raises:
        InputError: If there are no such photos, or they have other categories.
    """
    if data not in _NAMED:
        folder = _folder_of(data)
        return with_review(labelled_photos(folder, labels), folder, labels, review)
    found = scan(Config(data=data, review=review), cache).usable().photos
    photos = [photo for photo in found if photo.split == "test"]
    unknown = sorted({photo.label for photo in photos} - set(labels))
    if unknown:
        raise InputError(f"Expected photos of {', '.join(labels)}. Received: {', '.join(unknown)}.")
    return [Labelled(photo.path, photo.name, photo.label) for photo in photos]


def _folder_of(data: str) -> Path:
    """Return the folder of class folders: that named, or the one inside it that is for the test."""
    folder = Path(data).expanduser().resolve()
    for path in subfolders(folder) if folder.is_dir() else []:
        if split_of(path.name) == "test" and subfolders(path):
            return path
    return folder


def warning_of(data: str, metadata: dict) -> str:
    """Return a warning if a saved file with this metadata may have been trained on the photos."""
    folder, trained_on = _folder_of(data), metadata.get("data", {}).get("name")
    inside = split_of(folder.name) in SPLITS[:2] and folder.parent.name == trained_on
    if data in _NAMED or not (inside or folder.name == trained_on):
        return ""
    return (
        f"The model was trained on a folder named {trained_on}, and {folder.name} has no test "
        "folder. Some of these photos may have been used for training: the accuracy may be too "
        "high."
    )


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(
        "Test a saved file on labelled photos and show the results on one HTML page: accuracy,\n"
        "confusion matrix, the worst mistakes with heat maps, calibration, and, where their files\n"
        "are next to the saved file, its training and search. The page needs no other file and\n"
        "no connection.\n"
        "Exit code: 0 if all photos could be read, 3 if some could not, 2 for wrong usage.",
        "fashion_keras.report",
        "example:\n  python -m fashion_keras.report results/final/fashion.keras photos/test",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a .keras file made by `python -m fashion_keras.final`; `training.json`, "
        "`history.csv` and `config.json` are read from its folder, the search from `../search`",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder that holds one folder of photos for each category, or has such a folder "
        "named `test`; or `clothing` or `sample` (their test photos)",
    )
    files = "report.html and the files of `python -m fashion_keras.evaluate`"
    cli.add_results_option(parser, "results/report", files)
    cli.add_config_options(parser, ["review"], Config())
    cli.add_cache_option(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, test the saved file, write the page."""
    start = time.monotonic()
    given = options().parse_args(arguments)
    given.model = find_model(given.model)
    metadata = read_metadata(given.model)
    if is_onnx(given.model):
        raise InputError(f"Grad-CAM needs a .keras file. Received: {given.model}")
    photos = photos_named(given.data, metadata["labels"], given.cache, given.review or "")
    print(f"testing {given.model} on {len(photos)} photos", flush=True)
    from fashion_keras.classifier import load_classifier
    from fashion_keras.report.page import Sources, write_report

    name = given.data if given.data in _NAMED else "/".join(Path(given.data).resolve().parts[-2:])
    warning, folder = warning_of(given.data, metadata), given.model.resolve().parent
    with all_together(given.results, (*TEST_FILES, PAGE)) as work:
        classifier = load_classifier(given.model)
        metrics = evaluate(classifier, photos, work, given.cache)
        if given.data not in _NAMED:
            metrics = answer_others(classifier, _folder_of(given.data), metrics)
        write_metrics(metrics, given.model, start, work / "metrics.json")
        sources = Sources(given.model, work, folder, folder.parent / "search", name, warning)
        write_report(sources, photos, work / PAGE, classifier.model)
    print(headline(metrics))
    print(answered_none(metrics), end="")
    if warning:
        print(f"warning: {warning}")
    for line in metrics["unreadable"]:
        print(f"cannot be read, not counted: {line}")
    file = given.results / PAGE
    print(f"saved {file} ({file.stat().st_size / 1e6:.1f} MB)")
    print(f"now run: {cli.command('fashion_keras.predict', given.model, 'PHOTOS')}")
    if metrics["unreadable"]:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
