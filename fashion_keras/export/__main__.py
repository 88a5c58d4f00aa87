"""Exports a saved file to another runtime: `python -m fashion_keras.export MODEL`."""

import argparse
import contextlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import __version__, cli
from fashion_keras.artifacts import only_one
from fashion_keras.config import InputError
from fashion_keras.export.formats import EXTRA, FORMATS, check_packages, with_names
from fashion_keras.export.runtimes import largest_difference, open_export, read_photos
from fashion_keras.inspection import find_model, is_onnx, read_metadata
from fashion_keras.onnx_file import INPUT, OUTPUT

# How much a probability may differ from that of Keras. Runtimes add up in another order: 4e-6 was
# measured. Half precision keeps 11 bits of each weight: at most 0.006 was measured over 713 photos,
# and never another category.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2


class MismatchError(RuntimeError):
    """An export gives other results than the saved file, so it was not written."""


def export_classifier(
    model: Path, name: str, target: Path, photos: Sequence[np.ndarray], half: bool = False
) -> dict:
    """Write a saved file in another format, if it gives the same probabilities there.

    It is written to a temporary folder, opened with its own runtime and compared with Keras. Only
    then it replaces an earlier export, with a JSON file that describes it (`target` + `.json`).

    Args:
        model: A file written by `saving.save_classifier`.
        name: One of `formats.FORMATS`.
        target: File or folder to write.
        photos: Pixels of photos to compare on, each `(height, width, 3)`.
        half: Store the weights in half precision; they are computed with in float32.

    Returns:
        The content of the JSON file.

    Raises:
        InputError: If an argument cannot be used, a package is missing, or another process
            exports to `target`.
        MismatchError: If the export gives other probabilities or labels; nothing is written.
    """
    from fashion_keras.backend import quiet
    from fashion_keras.classifier import load_classifier

    _check(model, name, target, half)
    classifier = load_classifier(model)
    with warnings.catch_warnings(action="ignore"), _work_folder(target) as work:
        with cli.stage(f"convert to {name}"), quiet(1, 2):
            named = with_names(classifier.model)
            FORMATS[name].write(named, work / target.name, classifier, half)
        with cli.stage(f"compare on {len(photos)} photos"), quiet(1, 2):
            opened = open_export(name, work / target.name)
            difference = largest_difference(classifier.model, opened, photos)
        allowed = HALF_TOLERANCE if half else TOLERANCE
        found = f"nothing was written: with {opened.runtime}"
        if opened.labels != classifier.labels:
            raise MismatchError(f"{found} the labels are {opened.labels}")
        if not difference <= allowed:
            raise MismatchError(
                f"{found} a probability differs from that of Keras by {difference:.2g}; at most "
                f"{allowed:g} is allowed"
            )
        description = _describe(classifier, name, half, work)
        description["compared_with_keras"] = {
            "photos": len(photos),
            "largest_difference": float(f"{difference:.2g}"),
            "runtime": opened.runtime,
        }
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (work / f"{target.name}.json").write_text(text, encoding="utf-8")
        del opened  # Windows moves no file that is open.
        _move_into_place(work, target)
    return description


def _check(model: Path, name: str, target: Path, half: bool) -> None:
    """Raise the error for an export that cannot work, before anything slow is done."""
    read_metadata(model)
    if is_onnx(model):
        raise InputError(f"Expected a .keras file to export. Received: {model}")
    chosen = FORMATS[name]
    if half and not chosen.half:
        able = ", ".join(other for other in FORMATS if FORMATS[other].half)
        raise InputError(
            f"{name} computes with its weights as they are stored, so they cannot be in half "
            f"precision. Omit `--half`, or choose one of {able}."
        )
    if not target.name.endswith(chosen.ending):
        raise InputError(
            f"The name of an export to {name} must end in {chosen.ending}. Received: {target}"
        )
    folder = name == "saved_model"  # A user's own folder must not be lost.
    earlier = (target / EXTRA).is_dir() if folder else target.is_file()
    if target.exists() and not earlier:
        raise InputError(
            f"{target} exists and is no such export; choose another name with `--out`."
        )
    check_packages(name)


@contextlib.contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to the target, and delete it in the end."""
    work = target.with_name(f".{target.name}.unfinished")
    with only_one(target.with_name(f".{target.name}.lock"), f"export to {target}"):
        shutil.rmtree(work, ignore_errors=True)  # A killed process may have left it.
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _move_into_place(work: Path, target: Path) -> None:
    """Move the files of an export out of its work folder; an earlier export is replaced."""
    parts = sorted(work.iterdir(), key=lambda part: part.name == target.name)  # The target is last.
    if target.exists() and (target.is_dir() or len(parts) > 2):
        # A folder, or `.xml` and `.bin`, cannot be replaced in one step. Without the target nothing
        # can load a mixture of the earlier export and the new one.
        os.replace(target, work / "earlier")
    for part in parts:
        os.replace(part, target.with_name(part.name))


def _describe(classifier: Any, name: str, half: bool, work: Path) -> dict:
    files = sorted(path for path in work.rglob("*") if path.is_file())
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
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(classifier.labels)]},
        "note": FORMATS[name].note,
        "bytes": {path.relative_to(work).as_posix(): path.stat().st_size for path in files},
        "made_by": f"fashion_keras {__version__}",
        "metadata": classifier.metadata,
    }


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(
        "Export a saved file to another runtime: pixels of photos of any size in, probabilities\n"
        "out, labels inside. The export is opened with that runtime and compared with Keras: a\n"
        f"probability may differ by {TOLERANCE:g}, with --half by {HALF_TOLERANCE:g}. A JSON file "
        "next to it\ndescribes labels, input, output and the model.\n"
        "Exit code: 0 for success, 1 if the export gives other results than Keras (nothing is\n"
        "written then), 2 for wrong usage or a missing package.",
        "fashion_keras.export",
        "examples:\n  python -m fashion_keras.export results/final/fashion.keras --format onnx\n"
        "  python -m fashion_keras.export my_own.keras --format litert --half --photos photos/",
    )
    parser.add_argument(
        "model", type=Path, help="a .keras file made by `python -m fashion_keras.final`"
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="onnx: ONNX Runtime and many others; litert: LiteRT, formerly TensorFlow Lite; "
        "openvino: OpenVINO; saved_model: TensorFlow and TensorFlow Serving",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store the weights in half precision: half the size, still computed in float32",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="file, or for saved_model folder, to write (default: next to the model, with the "
        "ending of the format: " + ", ".join(chosen.ending for chosen in FORMATS.values()) + ")",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="folder of photos to compare on; 32 of them are taken (default: drawn garments)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, export, and print what was written."""
    given = options().parse_args(arguments)
    ending = FORMATS[given.format].ending
    given.model = find_model(given.model)
    target = given.out or given.model.with_name(given.model.stem + ending)
    print(f"exporting {given.model} to {target}: one or two minutes", flush=True)
    photos = read_photos(given.photos)
    try:
        description = export_classifier(given.model, given.format, target, photos, given.half)
    except MismatchError as error:
        sys.exit(f"error: {error}")
    size = sum(description["bytes"].values()) / 1e6
    difference = description["compared_with_keras"]["largest_difference"]
    print(f"{target}: {size:.1f} MB, largest difference to Keras {difference:g}")
    print(f"described in {target}.json")
    if is_onnx(target):
        print(f"now run: {cli.command('fashion_keras.predict', target, 'PHOTOS')}")


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
