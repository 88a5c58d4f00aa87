"""A saved file and photos become categories: `python -m fashion_keras.predict PHOTO...`."""

import collections
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashion_keras import command
from fashion_keras.artifact import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.photo import PhotoError, read_photo

RELEASED = Path(__file__).parents[1] / "results" / "final" / "fashion.keras"
_BATCH = 32


class Prediction(NamedTuple):
    """What the classifier says about one photo.

    Attributes:
        file: The photo.
        probabilities: Of each class, `(classes,)` in the order of the labels; empty if the photo
            cannot be read.
        reason: Why it cannot be read; empty if it can.
    """

    file: Path
    probabilities: np.ndarray
    reason: str


def predict(classifier: Classifier, files: Iterable[Path]) -> Iterator[Prediction]:
    """Yield one prediction for each photo, in order, while later photos are being decoded.

    Args:
        classifier: See `artifact.load_classifier`.
        files: Photos; only a few batches of them are in memory at a time.
    """
    waiting: list[Path] = []
    decoded: list[np.ndarray | str] = []
    for file, pixels in _decoded(classifier, files):
        waiting.append(file)
        decoded.append(pixels)
        if len(waiting) == _BATCH:
            yield from _predict_batch(classifier, waiting, decoded)
            waiting, decoded = [], []
    if waiting:
        yield from _predict_batch(classifier, waiting, decoded)


def _decoded(
    classifier: Classifier, files: Iterable[Path]
) -> Iterator[tuple[Path, np.ndarray | str]]:
    """Yield each file with its resized pixels, or with the reason why there are none."""
    resize = classifier.model.get_layer("resize")

    def decode(file: Path) -> np.ndarray | str:
        try:
            pixels = read_photo(file).pixels
        except PhotoError as error:
            return str(error)
        return np.asarray(resize(pixels[None].astype("float32")))[0]

    ahead: collections.deque[tuple[Path, Future]] = collections.deque()
    with ThreadPoolExecutor() as pool:
        for file in files:
            ahead.append((file, pool.submit(decode, file)))
            if len(ahead) > 2 * _BATCH:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _predict_batch(
    classifier: Classifier, files: list[Path], decoded: list[np.ndarray | str]
) -> Iterator[Prediction]:
    readable = [pixels for pixels in decoded if not isinstance(pixels, str)]
    rows = iter(classifier.model.predict_on_batch(np.stack(readable)) if readable else ())
    for file, pixels in zip(files, decoded, strict=True):
        if isinstance(pixels, str):
            yield Prediction(file, np.empty(0), pixels)
        else:
            yield Prediction(file, next(rows), "")


def find_files(inputs: Iterable[Path]) -> list[Path]:
    """Return the given files, and all files in the given folders and below, hidden ones left out.

    Raises:
        InputError: If one of them does not exist, or no file is left.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            below = (Path(parent, name) for parent, _, names in os.walk(path) for name in names)
            found += sorted(
                file
                for file in below
                if not any(part[0] == "." for part in file.relative_to(path).parts)
            )
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"No file or folder {path}.")
    if not found:
        raise InputError("No photos in the folders given.")
    return found


def describe(prediction: Prediction, labels: list[str], top: int = 3) -> str:
    """Return one line: the file, its category and probability, and the next best categories."""
    if prediction.reason:
        return f"{prediction.file}  cannot be read: {prediction.reason}"
    best = np.argsort(-prediction.probabilities, kind="stable")[:top]
    ranked = [f"{labels[number]} {prediction.probabilities[number]:.3f}" for number in best]
    return f"{prediction.file}  {ranked[0]}" + (
        f"  ({', '.join(ranked[1:])})" if ranked[1:] else ""
    )


def _model_and_photos(inputs: list[Path]) -> tuple[Path, list[Path]]:
    if inputs[0].suffix != ".keras":
        if not RELEASED.exists():
            raise InputError(
                f"There is no {RELEASED}: give a .keras file before the photos, such as one made "
                "by `python -m fashion_keras.final`."
            )
        return RELEASED, inputs
    if len(inputs) == 1:
        raise InputError(f"Expected photos or folders after the model. Received: {inputs[0]} alone")
    return inputs[0], inputs[1:]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, predict each photo and print a line for it."""
    options = command.parser(
        "Name the category of photos: one line a photo with the category, its probability and\n"
        "the next two categories. A photo that cannot be read gets a line with the reason.\n"
        "Exit code: 0 if all photos could be read, 3 if some could not, 2 for wrong usage.",
        "fashion_keras.predict",
        "examples:\n  python -m fashion_keras.predict hat.jpg photos/\n"
        "  python -m fashion_keras.predict my_own.keras hat.jpg",
    )
    options.add_argument(
        "photos",
        type=Path,
        nargs="+",
        metavar="PHOTO",
        help="photo files, or folders of photos; before them, if you like, a .keras file made by "
        f"`python -m fashion_keras.final` (default: {RELEASED})",
    )
    given = options.parse_args(arguments)
    model, photos = _model_and_photos(given.photos)
    files = find_files(photos)
    classifier = load_classifier(model)
    unreadable = 0
    for prediction in predict(classifier, files):
        unreadable += bool(prediction.reason)
        print(describe(prediction, classifier.labels), flush=True)
    if unreadable:
        sys.exit(3)


if __name__ == "__main__":
    command.run(main)
