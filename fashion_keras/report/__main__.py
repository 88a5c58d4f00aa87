"""Makes one HTML page of a saved file and labelled photos: `python -m fashion_keras.report`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.data.scan import SPLITS, find_photos, split_of, subfolders
from fashion_keras.evaluate import FILES as TEST_FILES
from fashion_keras.evaluate import Labelled, evaluate, headline, labelled_photos, write_metrics
from fashion_keras.files import all_together
from fashion_keras.inspection import read_metadata
from fashion_keras.report.page import Sources, gather, render, write_page
from fashion_keras.stopwatch import stage

PAGE = "report.html"
FILES = (*TEST_FILES, PAGE)
_NAMED = ("clothing", "sample")


@stage("report")
def write_report(sources: Sources, photos: Sequence[Labelled], file: Path) -> None:
    """Write the page: a single file that needs no other and no connection.

    Args:
        sources: Where everything lies that the page tells.
        photos: The photos tested on; none if there was no test.
        file: Where to write it.

    Raises:
        PhotoError: If a photo that was tested on cannot be read any more.
    """
    write_page(render("report.html", gather(sources, photos)), file)


def photos_named(data: str, labels: Sequence[str], cache: Path) -> list[Labelled]:
    """List the photos to test on.

    Args:
        data: A folder of class folders, a folder that holds one for the test, or `clothing` or
            `sample`.
        labels: The categories of the saved file.
        cache: Folder for downloads.

    Raises:
        InputError: If there are no such photos, or they have other categories.
    """
    if data in _NAMED:
        photos = [photo for photo in find_photos(data, cache) if photo.split == "test"]
        unknown = sorted({photo.label for photo in photos} - set(labels))
        if unknown:
            raise InputError(
                f"Expected photos of {', '.join(labels)}. Received: {', '.join(unknown)}."
            )
        return [Labelled(photo.path, photo.name, photo.label) for photo in photos]
    return labelled_photos(_folder_of(data), labels)


def _folder_of(data: str) -> Path:
    """Return the folder of class folders: that named, or the one inside it that is for the test."""
    folder = Path(data).expanduser().resolve()
    inner = subfolders(folder) if folder.is_dir() else []
    for path in inner:
        if split_of(path.name) == "test" and subfolders(path):
            return path
    return folder


def warning_of(data: str, card: dict) -> str:
    """Say if the photos may be those that the saved file was trained on; empty if not.

    Args:
        data: See `photos_named`.
        card: What the saved file tells of itself; of its photos it knows the folder's name.
    """
    folder, trained_on = _folder_of(data), card.get("data", {}).get("name")
    inside = split_of(folder.name) in SPLITS[:2] and folder.parent.name == trained_on
    if data in _NAMED or not (inside or folder.name == trained_on):
        return ""
    return (
        f"The model was trained on a folder named {trained_on}, and {folder.name} has no test "
        "folder: photos that the model was trained on may be among these, and the score too good."
    )


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Score a saved file on labelled photos and show all about it on one HTML page: accuracy,\n"
        "confusion matrix, the worst mistakes with heat maps, calibration, and, where they lie\n"
        "beside the saved file, how it was trained and the search before. The page needs no other\n"
        "file and no connection.\n"
        "Exit code: 0 if all photos could be read, 3 if some could not, 2 for wrong usage.",
        "fashion_keras.report",
        "example:\n  python -m fashion_keras.report results/final/fashion.keras photos/test",
    )
    options.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a .keras file made by `python -m fashion_keras.final`; `training.json`, "
        "`history.csv` and `config.json` are looked for beside it, the search in `../search`",
    )
    options.add_argument(
        "data",
        metavar="DATA",
        help="folder that holds one folder of photos for each category, or has such a folder "
        "named `test`; or `clothing` or `sample` (their test photos)",
    )
    options.add_argument(
        "--results",
        type=Path,
        default=Path("results/report"),
        metavar="FOLDER",
        help="folder for report.html and the files of `python -m fashion_keras.evaluate` "
        "(default: %(default)s)",
    )
    options.add_argument(
        "--cache",
        type=Path,
        default=cli.default_cache(),
        metavar="FOLDER",
        help="folder for downloads (default: %(default)s, or $FASHION_KERAS_CACHE)",
    )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, score the photos, write the page."""
    start = time.monotonic()
    given = _options().parse_args(arguments)
    photos = photos_named(given.data, read_metadata(given.model)["labels"], given.cache)
    _report(given.model, given.data, photos, given.results, start)


def _report(
    model: Path, data: str, photos: Sequence[Labelled], results: Path, start: float
) -> None:
    beside = model.resolve().parent
    name = data if data in _NAMED else "/".join(Path(data).resolve().parts[-2:])
    warning = warning_of(data, read_metadata(model))
    with all_together(results, FILES) as work:
        metrics = evaluate(model, photos, work)
        write_metrics(metrics, start, work / "metrics.json")
        sources = Sources(model, work, beside, beside.parent / "search", name, warning)
        write_report(sources, photos, work / PAGE)
    print(headline(metrics))
    if warning:
        print(warning)
    for line in metrics["unreadable"]:
        print(f"cannot be read, not counted: {line}")
    file = results / PAGE
    print(f"saved {file} ({file.stat().st_size / 1e6:.1f} MB)")
    if metrics["unreadable"]:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
