"""Predicts the categories of photos: `python -m fashion_keras.predict [MODEL] INPUT...`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_keras import cli
from fashion_keras.artifacts import sha256_of
from fashion_keras.config import RELEASED, InputError
from fashion_keras.inspection import read_metadata
from fashion_keras.onnx_file import SUFFIX
from fashion_keras.predict.inputs import accept_any_name, expand, read_named
from fashion_keras.predict.options import IMAGENET, check, options, writes_parts
from fashion_keras.predict.resume import kept_rows
from fashion_keras.predict.rows import row_of, write_rows
from fashion_keras.predict.sorting import check_labels, place

if TYPE_CHECKING:
    from fashion_keras.classifier import Classifier


def model_and_inputs(words: list[str]) -> tuple[str, list[str]]:
    """Return the model, the released one if none is named, and the inputs after it.

    Raises:
        InputError: If there is no input.
    """
    if words[0] != IMAGENET and not words[0].endswith((".keras", ".onnx")):
        return str(RELEASED), words
    if len(words) == 1:
        raise InputError(f"Expected photos or folders after the model. Received: {words[0]} alone")
    return words[0], words[1:]


def _load(given: argparse.Namespace) -> "Classifier":
    """Load a `.keras` or `.onnx` file, or the classifier of ImageNet's thousand classes."""
    from fashion_keras.classifier import load_classifier

    if given.model == IMAGENET:
        from fashion_keras.predict.imagenet import load_imagenet

        classifier = load_imagenet()
    else:
        classifier = load_classifier(given.model)
    given.top = min(given.top, len(classifier.labels))
    if given.sort_into:
        check_labels(classifier.labels)
    return classifier


def _ray_data() -> Any:
    try:
        from fashion_keras.predict import ray_data
    except ModuleNotFoundError as error:
        advice = "`pip install 'fashion_keras[ray]'`"
        raise InputError(f"`--engine ray` needs Ray Data: {advice} ({error}).") from error
    return ray_data


def _predict(
    classifier: "Classifier", names: list[str], given: argparse.Namespace
) -> Iterator[dict]:
    """Yield one row per photo, in order (see `rows.row_of`), each photo sorted before its row."""
    if given.engine == "ray":
        rows = _ray_data().predict_rows(classifier, names, given)
    else:
        faster = classifier.for_photos(len(names))
        predictions = faster.predict(names, given.batch_size, read_named)
        rows = (row_of(one, classifier.labels, given.top, given.threshold) for one in predictions)
    for row in rows:
        if given.sort_into and not row["reason"]:
            place(Path(row["file"]), given.sort_into / row["category"], given.link)
        yield row


def _count(names: list[str], given: argparse.Namespace) -> int:
    return _ray_data().count_photos(names) if given.engine == "ray" else len(names)


def print_rows(
    classifier: "Classifier", names: list[str], given: argparse.Namespace
) -> tuple[int, int]:
    """Print rows as they come; see `write_rows` for what is returned."""
    rows = _predict(classifier, names, given)
    if sys.stderr.isatty() and not sys.stdout.isatty():  # Else progress would mix with rows.
        rows = cli.progress(rows, _count(names, given), "photos", stream=sys.stderr)
    return write_rows(rows, given.format, given.top, sys.stdout, max(map(len, names)))


def write_file(
    classifier: "Classifier", names: list[str], given: argparse.Namespace
) -> tuple[int, int]:
    """Write rows to a file, continuing an earlier run; see `write_rows` for what is returned."""
    model = given.model if given.model == IMAGENET else sha256_of(Path(given.model))
    settings = {"model": model, "top": given.top, "threshold": given.threshold}
    settings["sort_into"] = str(given.sort_into)
    with kept_rows(given.out, settings) as kept:
        if kept.done:
            print(f"continuing: {len(kept.done)} photos were done before", flush=True)
        left = [name for name in names if name not in kept.done]
        rows = _predict(classifier, left, given)
        for row in cli.progress(rows, _count(left, given), f"photos to {given.out}"):
            kept.add(row)
        return kept.finish(given.out, given.format, given.top)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, predict each photo and print or write a row for it."""
    given = options().parse_args(arguments)
    accept_any_name()
    given.model, inputs = model_and_inputs(given.inputs)
    names = expand(inputs, sys.stdin if "-" in inputs else ())
    check(given, names)
    if given.model.endswith(SUFFIX):
        if given.engine == "ray":
            raise InputError(f"`--engine ray` takes a .keras file. Received: {given.model}")
    elif given.model != IMAGENET:
        read_metadata(Path(given.model))  # An error for another file comes before Keras starts.
    if given.engine == "ray":
        names = _ray_data().prepare(names)
    write = print_rows
    if given.out:
        write = _ray_data().write_parts if writes_parts(given) else write_file
    rows, unreadable = write(_load(given), names, given)
    if given.out:
        print(f"saved {given.out}: {rows} photos, {unreadable} cannot be read")
    if unreadable:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, "with `--out` the same command and `--resume` continue")
