"""A saved file becomes one for another runtime: `python -m fashion_keras.export MODEL`."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fashion_keras import __version__, cli
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.export.formats import EXTRA, FORMATS, INPUT, OUTPUT, check_packages, quiet, trace
from fashion_keras.export.replacing import NEW, put_back, replace_all
from fashion_keras.export.runtimes import Opened, largest_difference, open_export, read_photos
from fashion_keras.files import only_one
from fashion_keras.inspection import read_metadata

# How much a probability may differ from that of Keras. Runtimes add up in another order: 4e-6 was
# measured. Half precision keeps 11 bits of each weight: 0.006 was measured at the most, over 713
# photos, and never another category.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2


class MismatchError(RuntimeError):
    """An export does not give what the saved file gives, so it was not written."""


def _check(model: Path, name: str, target: Path, half: bool) -> None:
    """Raise the error for an export that cannot work, before anything slow is done."""
    read_metadata(model)
    chosen = FORMATS[name]
    if half and not chosen.half:
        able = ", ".join(other for other in FORMATS if FORMATS[other].half)
        raise InputError(
            f"A {name} computes with its weights as they are stored, so it cannot hold them in "
            f"half precision. Leave out `--half`, or choose one of {able}."
        )
    if not target.name.endswith(chosen.ending):
        raise InputError(
            f"The name of an export to {name} ends in {chosen.ending}. Received: {target}"
        )
    if target.exists() and not _is_replaceable(target, is_folder=chosen.ending[0] == "_"):
        raise InputError(f"{target} exists and is no such export; choose another name with --out.")
    check_packages(name)


def _is_replaceable(target: Path, is_folder: bool) -> bool:
    if is_folder:  # A user's own folder must not be lost.
        return (target / "saved_model.pb").is_file() and (target / EXTRA).is_dir()
    return target.is_file()


def export_classifier(
    model: Path, name: str, target: Path, photos: Sequence[np.ndarray], half: bool = False
) -> dict:
    """Write a saved file in another format, if it gives the same probabilities there.

    The export is written into a folder beside `target`, opened with its own runtime and compared
    with Keras. Only then it takes its place, with a JSON that describes it (`target` with `.json`
    added); an earlier export is replaced.

    Args:
        model: A file written by `artifact.save_classifier`.
        name: One of `formats.FORMATS`.
        target: File or folder to write.
        photos: Pixels of photos to compare on, each `(height, width, 3)`.
        half: Store weights in half precision; they are computed with in float32.

    Returns:
        What the JSON holds.

    Raises:
        InputError: If `model` is no classifier, the format cannot hold half precision, `target`
            has another ending than the format or is something else, a package is missing, or
            another process exports to `target`.
        MismatchError: If the export gives other probabilities or labels; nothing is written.
    """
    _check(model, name, target, half)
    with contextlib.ExitStack() as held:
        lock = target.with_name(f".{target.name}.lock")
        held.enter_context(only_one(lock, f"export to {target}"))
        put_back(target)
        classifier = load_classifier(model)
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
        scratch = held.enter_context(folder)
        work, new = Path(scratch), Path(scratch) / NEW
        new.mkdir()
        with _step(f"converted to {name}"), quiet():
            trace(classifier.model, work / "traced")
            FORMATS[name].write(work / "traced", new / target.name, classifier.metadata, half)
        with _step(f"compared on {len(photos)} photos"), quiet():
            opened = open_export(name, new / target.name)
            difference = largest_difference(classifier.model, opened, photos)
        _check_same(classifier, opened, difference, HALF_TOLERANCE if half else TOLERANCE)
        found = {"photos": len(photos), "largest_difference": float(f"{difference:.2g}")}
        facts = _describe(classifier, name, half, new, found | {"runtime": opened.runtime})
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (new / f"{target.name}.json").write_text(text, encoding="utf-8")
        del opened  # Windows moves no file that is open.
        replace_all(work, target.parent)
    return facts


@contextlib.contextmanager
def _step(label: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{label} in {cli.duration(time.monotonic() - start)}", flush=True)


def _check_same(
    classifier: Classifier, opened: Opened, difference: float, tolerance: float
) -> None:
    if opened.labels != classifier.labels:
        raise MismatchError(
            f"nothing was written: {opened.runtime} reads the labels {opened.labels}. Expected: "
            f"{classifier.labels}"
        )
    if not difference <= tolerance:
        raise MismatchError(
            f"nothing was written: with {opened.runtime} a probability differs from that of Keras "
            f"by {difference:.2g}; at most {tolerance:g} is allowed"
        )


def _describe(classifier: Classifier, name: str, half: bool, new: Path, found: dict) -> dict:
    files = sorted(path for path in new.rglob("*") if path.is_file())
    return {
        "format": name,
        "half": half,
        "labels": classifier.labels,
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": ["batch", "height", "width", 3],
            "meaning": "RGB from 0 to 255, upright, of any height and width; sides over 1024 "
            "pixels are best reduced first. Resizing and scaling are part of the model.",
        },
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": ["batch", len(classifier.labels)],
        },
        "note": FORMATS[name].note,
        "compared_with_keras": found,
        "bytes": {path.relative_to(new).as_posix(): path.stat().st_size for path in files},
        "made_by": f"fashion_keras {__version__}",
        "card": classifier.metadata,
    }


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Write a saved file in the format of another runtime: pixels of photos of any size in,\n"
        "probabilities out, labels inside. It is opened again with that runtime and compared with\n"
        f"Keras: a probability may differ by {TOLERANCE:g}, with --half by {HALF_TOLERANCE:g}. A "
        "JSON beside it\ntells labels, input, output and all else that is known of the model.\n"
        "Exit code: 0 if all is well, 1 if the export does not give what Keras gives (nothing is\n"
        "written then), 2 for wrong usage or a missing package.",
        "fashion_keras.export",
        "examples:\n  python -m fashion_keras.export results/final/fashion.keras --format onnx\n"
        "  python -m fashion_keras.export my_own.keras --format litert --half --photos photos/",
    )
    options.add_argument(
        "model", type=Path, help="a .keras file made by `python -m fashion_keras.final`"
    )
    options.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="onnx: ONNX Runtime and many others; litert: LiteRT, once TensorFlow Lite; openvino: "
        "OpenVINO; saved_model: TensorFlow and TensorFlow Serving",
    )
    options.add_argument(
        "--half",
        action="store_true",
        help="store weights in half precision: half the size, computed in float32 all the same",
    )
    options.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="file, or for saved_model folder, to write (default: beside the model, with the "
        "ending of the format: " + ", ".join(chosen.ending for chosen in FORMATS.values()) + ")",
    )
    options.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="folder of photos to compare on; 32 of them are taken (default: drawn garments)",
    )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, export and print what was written."""
    given = _options().parse_args(arguments)
    ending = FORMATS[given.format].ending
    target = given.out or given.model.with_name(given.model.stem + ending)
    photos = read_photos(given.photos)
    try:
        facts = export_classifier(given.model, given.format, target, photos, given.half)
    except MismatchError as error:
        sys.exit(f"error: {error}")
    size, found = sum(facts["bytes"].values()) / 1e6, facts["compared_with_keras"]
    print(f"{target}: {size:.1f} MB, largest difference to Keras {found['largest_difference']:g}")


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
