"""Photos become categories: `python -m fashion_keras.predict [MODEL] INPUT...`."""

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fashion_keras import cli, stopwatch
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.files import sha256_of
from fashion_keras.predict import ray_engine
from fashion_keras.predict.imagenet import IMAGENET, load_imagenet
from fashion_keras.predict.inputs import expand, read_named, take_any_name
from fashion_keras.predict.journal import Journal
from fashion_keras.predict.options import RELEASED, check, check_released, options, writes_parts
from fashion_keras.predict.photo_tables import count_photos
from fashion_keras.predict.ray_worker import ship
from fashion_keras.predict.rows import row_of, write_rows
from fashion_keras.predict.sorting import check_labels, place

Predict = Callable[[list[str]], Iterator[dict]]  # Names of photos to a row for each.


def model_and_inputs(words: list[str]) -> tuple[str, list[str]]:
    """Tell the model, if one is named before the inputs, from the inputs.

    Raises:
        InputError: If there is no input, or no model where none is named.
    """
    if words[0] == IMAGENET or words[0].endswith(".keras"):
        if len(words) == 1:
            raise InputError(
                f"Expected photos or folders after the model. Received: {words[0]} alone"
            )
        return words[0], words[1:]
    check_released()
    return str(RELEASED), words


def load(model: str) -> Classifier:
    """Load a `.keras` file, or the classifier of ImageNet's thousand classes.

    Raises:
        InputError: If it cannot be loaded or downloaded.
    """
    return load_imagenet() if model == IMAGENET else load_classifier(model)


def predict_rows(
    classifier: Classifier, names: Iterable[str], given: argparse.Namespace
) -> Iterator[dict]:
    """Yield one row a photo, in order (see `rows.row_of`)."""
    read = functools.partial(read_named, allow_private=given.allow_private)
    for prediction in classifier.predict(names, given.batch_size, read):
        yield row_of(prediction, classifier.labels, given.top, given.threshold)


def _placed(rows: Iterable[dict], given: argparse.Namespace) -> Iterator[dict]:
    for row in rows:
        if given.sort_into and not row["reason"]:
            place(Path(row["file"]), given.sort_into / row["category"], given.link)
        yield row


def _print_rows(predict: Predict, names: list[str], given: argparse.Namespace) -> bool:
    """Print rows as they come, progress where it does not get in between; return if all went."""
    rows = _placed(predict(names), given)
    if sys.stderr.isatty() and not sys.stdout.isatty():
        rows = cli.progress(rows, _count(names, given), "photos", stream=sys.stderr)
    width = max(map(len, names))
    unreadable: list[str] = []
    noted = _noting_failures(rows, unreadable)
    with stopwatch.spent("I/O"):
        write_rows(noted, given.format, given.top, sys.stdout, width)
    return not unreadable


def _noting_failures(rows: Iterable[dict], unreadable: list[str]) -> Iterator[dict]:
    for row in rows:
        if row["reason"]:
            unreadable.append(row["file"])
        yield row


def _write_file(predict: Predict, names: list[str], given: argparse.Namespace) -> bool:
    """Write the rows to a file, going on where an earlier run stopped; return if all went."""
    model = _fingerprint(given.model)
    settings = {"model": model, "top": given.top, "threshold": given.threshold}
    settings |= {"sort_into": str(given.sort_into), "allow_private": given.allow_private}
    with Journal(given.out, settings, given.resume) as journal:
        if journal.done:
            print(f"going on: {len(journal.done)} photos were done before", flush=True)
        left = [name for name in names if name not in journal.done]
        rows = _placed(predict(left), given)
        for row in cli.progress(rows, _count(left, given), f"photos to {given.out}"):
            with stopwatch.spent("I/O"):
                journal.add(row)
        unreadable = sum(not readable for readable in journal.done.values())
        journal.finish(given.format, given.top)
        print(f"saved {given.out}: {len(journal.done)} photos, {unreadable} cannot be read")
    return not unreadable


def _count(names: list[str], given: argparse.Namespace) -> int:
    return count_photos(names) if given.engine == "ray" else len(names)


def _fingerprint(model: str) -> str:
    if model == IMAGENET:
        return IMAGENET
    return sha256_of(Path(model))


@stopwatch.stage("predict")
def _alone(names: list[str], given: argparse.Namespace) -> bool:
    """Predict in this process; return if all photos could be read."""
    classifier = load(given.model)
    _settle(given, classifier.labels)
    write = _write_file if given.out else _print_rows
    return write(functools.partial(predict_rows, classifier, given=given), names, given)


def _with_ray(names: list[str], given: argparse.Namespace) -> bool:
    """Predict in the workers of Ray; return if all photos could be read."""
    names = ray_engine.prepare(names)
    shipped, labels = ship(given.model)
    _settle(given, labels)
    if writes_parts(given):
        rows, unreadable = ray_engine.write_parts(shipped, names, given)
        print(f"saved {given.out}: {rows} photos, {unreadable} cannot be read")
        return not unreadable
    write = _write_file if given.out else _print_rows
    return write(functools.partial(ray_engine.predict_rows, shipped, given=given), names, given)


def _settle(given: argparse.Namespace, labels: list[str]) -> None:
    given.top = min(given.top, len(labels))
    if given.sort_into:
        check_labels(labels)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, predict each photo and print or write a row for it."""
    given = options().parse_args(arguments)
    take_any_name()
    given.model, inputs = model_and_inputs(given.inputs)
    names = expand(inputs, sys.stdin if "-" in inputs else ())
    check(given, names)
    predict_all = _with_ray if given.engine == "ray" else _alone
    with stopwatch.profiled(given.profile):
        complete = predict_all(names, given)
    if not complete:
        sys.exit(3)


if __name__ == "__main__":
    cli.run(main, "with `--out` the same command and `--resume` go on")
