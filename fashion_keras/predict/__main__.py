"""Predicts the categories of photos: `python -m fashion_keras.predict INPUT...`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_keras import cli
from fashion_keras.config import RELEASED, InputError
from fashion_keras.inspection import find_model, is_onnx, looks_like_model, name_of, read_metadata
from fashion_keras.predict.inputs import accept_any_name, expand, read_list, read_named
from fashion_keras.predict.options import IMAGENET, check, options, writes_parts
from fashion_keras.predict.resume import kept_rows
from fashion_keras.predict.rows import row_of, write_rows
from fashion_keras.predict.sorting import check_labels, place

if TYPE_CHECKING:
    from fashion_keras.classifier import Classifier

_MOST_LABELS = 20  # In the line that names the model.


def model_and_inputs(words: list[str], model: str = "") -> tuple[str, list[str]]:
    """Return the model, the released one if none is named, and the inputs.

    Args:
        words: Inputs and, anywhere among them, perhaps the model.
        model: The model, if an option names it.

    A folder that holds a model is taken for it only where no other model is named.

    Raises:
        InputError: If there is no input, more than one model, or no such model.
    """
    found = [word for word in words if word == IMAGENET or looks_like_model(word)]
    files = [word for word in found if not Path(word).is_dir()]
    if model or files:
        found = files
    models = list(dict.fromkeys(filter(None, [model, *found])))
    if len(models) > 1:
        raise InputError(
            f"Expected one model. Received: {' and '.join(models)} (`--model FILE` makes folders "
            "inputs)"
        )
    inputs = [word for word in words if word not in found]
    if not inputs:
        raise InputError(
            f"Expected photos or folders beside the model. Received: {words[0]} alone (if it "
            "holds photos, too, name the model with `--model FILE`)"
        )
    if models == [IMAGENET]:
        return IMAGENET, inputs
    return str(find_model(models[0]) if models else RELEASED), inputs


def _shown(given: argparse.Namespace, labels: list[str]) -> str:
    """Return the line that names the model."""
    released = " (the released model)" if given.model == str(RELEASED) else ""
    shown = ", ".join(labels if len(labels) <= _MOST_LABELS else [*labels[:_MOST_LABELS], "..."])
    return f"model: {given.model_name}{released}, {len(labels)} categories: {shown}"


def _load(given: argparse.Namespace) -> "Classifier":
    """Load a `.keras` or `.onnx` file, or the classifier of ImageNet's thousand classes."""
    from fashion_keras.classifier import load_classifier

    if given.model == IMAGENET:
        from fashion_keras.predict.imagenet import load_imagenet

        classifier = load_imagenet()
    else:
        classifier = load_classifier(given.model)
    given.top = min(given.top, len(classifier.labels))
    if given.out or given.format == "table":  # Else each row names the model.
        print(_shown(given, classifier.labels), flush=True)
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
        yield row | {"model": given.model_name}


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
    settings = {"model": given.model_name, "top": given.top, "threshold": given.threshold}
    settings["sort_into"] = str(given.sort_into)
    with kept_rows(given.out, settings) as kept:
        if kept.done:
            print(f"continuing: {len(kept.done)} photos were done before", flush=True)
        left = [name for name in names if name not in kept.done]
        rows = _predict(classifier, left, given)
        for row in cli.progress(rows, _count(left, given), f"photos to {given.out}"):
            kept.add(row)
        return kept.finish(given.out, given.format, given.top)


def _check_model(given: argparse.Namespace) -> None:
    """Raise the error for another file before Keras starts; add the name of the model."""
    given.model_name, file = given.model, Path(given.model)
    if given.model == IMAGENET:
        return
    if is_onnx(file) and given.engine == "ray":
        raise InputError(f"`--engine ray` takes a .keras file. Received: {file}")
    if not is_onnx(file):
        read_metadata(file)
    if file.is_file():
        given.model_name = name_of(file)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, predict each photo and print or write a row for it."""
    given = options().parse_args(arguments)
    accept_any_name()
    given.model, inputs = model_and_inputs(given.inputs, given.model)
    names = expand(inputs, read_list(sys.stdin) if "-" in inputs else ())
    check(given, names)
    _check_model(given)
    if given.engine == "ray":
        names = _ray_data().prepare(names)
    # Rows may be on standard output.
    print(f"loading {given.model_name}; photos: {len(names)}", file=sys.stderr, flush=True)
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
