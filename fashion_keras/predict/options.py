"""The command line of `predict`: its options, and which of them go together."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.predict.resume import check_target
from fashion_keras.predict.rows import FORMATS
from fashion_keras.predict.web import is_address

IMAGENET = "imagenet"
_DESCRIPTION = """\
Predict the category of photos: one row per photo with its category, its probability and the next
best categories. A photo that is far from all categories is `none of these`. A photo that cannot be
read is a row with the reason, never the end of the run.

Exit code: 0 if all photos could be read, 3 if some could not, 2 for wrong usage."""
_EXAMPLES = """\
examples:
  python -m fashion_keras.predict hat.jpg photos/ 'more/**/*.jpg' https://example.org/a.jpg
  python -m fashion_keras.predict my_own.keras photos/ --format csv --out categories.csv
  find /archive -name '*.jpg' | python -m fashion_keras.predict - --out all.jsonl --format jsonl
  python -m fashion_keras.predict photos/ --sort-into sorted/ --threshold 0.6
  python -m fashion_keras.predict imagenet t-shirt.jpg
  python -m fashion_keras.predict s3://shop/photos/ --engine ray --format parquet --out s3://shop/x/"""


def options() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = cli.parser(_DESCRIPTION, "fashion_keras.predict", _EXAMPLES)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders (with all in them), patterns in quotes, http(s) addresses, or - for a "
        "list of these on standard input, one per line; among them, optionally, the model (see "
        "--model); with --engine ray also s3:// and "
        "gs:// (all below what ends in /), and tables of photos: .parquet with columns `bytes` and "
        "`file` or `path`",
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="FILE",
        help="a .keras file, the folder of a single one, its export to .onnx (which needs no "
        "Keras), or `imagenet` for plain Xception with its thousand classes; may also stand among "
        "the inputs (default: the released model)",
    )
    _add_row_options(parser)
    _add_file_options(parser)
    _add_engine_options(parser)
    return parser


def _add_row_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "parquet"),
        default="table",
        help="table for people, csv with a header, json (one list), jsonl (one object per line), "
        "parquet (with --engine ray) (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        type=cli.count,
        default=3,
        metavar="INT",
        help="how many of the most probable categories to list (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=cli.probability,
        default=0.0,
        metavar="FLOAT",
        help="call a photo `uncertain` if its best category is less probable than this, from 0 to "
        "1 (default: %(default)s)",
    )


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=_place,
        metavar="FILE",
        help="write the rows to this file when all are finished, replacing an earlier one "
        "(default: standard output, as they come); with --engine ray and csv or parquet also a new "
        "folder, here (ending in /) or at s3:// or gs://, for several files",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --out: continue where an interrupted run stopped, no photo done twice",
    )
    parser.add_argument(
        "--sort-into",
        type=Path,
        metavar="FOLDER",
        help="copy each photo into a folder of its category inside this one",
    )
    parser.add_argument(
        "--link", action="store_true", help="with --sort-into: make links, not copies"
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("plain", "ray"),
        default="plain",
        help="plain: in this process; ray: in several ones, on this machine or the cluster that "
        "RAY_ADDRESS names (needs `pip install 'fashion_keras[ray]'`) (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=cli.count,
        metavar="INT",
        help="with --engine ray: processes that hold the model (default: one per graphics card "
        "or, without any, one for every two CPUs)",
    )
    parser.add_argument(
        "--batch-size",
        type=cli.count,
        default=32,
        metavar="INT",
        help="photos that go through the model together; those of an .onnx file go one by one "
        "(default: %(default)s)",
    )


def _place(text: str) -> Path | str:
    """Return a path for a file; text for a folder or a place in cloud storage."""
    return text if is_cloud(text) or text.endswith("/") else Path(text)


def is_cloud(name: str) -> bool:
    """Return whether a name is a place in cloud storage, not a path."""
    return name.startswith(("s3://", "gs://"))


def is_table(name: str) -> bool:
    """Return whether a name is that of a table of photos."""
    return name.lower().endswith(".parquet")


def writes_parts(given: argparse.Namespace) -> bool:
    """Return whether Ray's workers write the rows to a folder, not this process to one file."""
    return given.format == "parquet" or isinstance(given.out, str)


def check(given: argparse.Namespace, names: list[str]) -> None:
    """Raise the error for options that do not go together, before anything slow is done.

    Raises:
        InputError: What does not go together, and what to do.
    """
    for problem in _problems(given, names):
        raise InputError(problem)
    if given.out and not writes_parts(given):
        check_target(given.out, given.resume)


def _problems(given: argparse.Namespace, names: list[str]) -> Iterator[str]:
    yield from (_ray_problems if given.engine == "ray" else _plain_problems)(given, names)
    if given.out and str(given.out) in names:
        yield f"`--out` would replace {given.out}, which is one of the photos."
    if not names:
        yield "Expected names of photos on standard input, one per line. Received: none"
    if given.resume and not given.out:
        yield "`--resume` continues a file: give its name with `--out FILE`."
    if given.link and not given.sort_into:
        yield "`--link` is an option of sorting: give a folder with `--sort-into FOLDER`."
    elsewhere = [name for name in names if is_address(name) or is_cloud(name)]
    if given.sort_into and elsewhere:
        yield f"`--sort-into` takes photos on this computer. Received: {elsewhere[0]}"


def _plain_problems(given: argparse.Namespace, names: list[str]) -> Iterator[str]:
    if given.workers:
        yield "`--workers` is an option of Ray: add `--engine ray`."
    if writes_parts(given):
        yield "Parquet, folders and cloud storage are written with `--engine ray`."
    if place := next(filter(is_cloud, names), None):
        yield f"Cloud storage is read with `--engine ray`. Received: {place}"


def _ray_problems(given: argparse.Namespace, names: list[str]) -> Iterator[str]:
    parts, tables = writes_parts(given), any(map(is_table, names))
    if parts and (given.format not in ("csv", "parquet") or not given.out):
        received = f"--format {given.format} --out {given.out or ''}".rstrip()
        yield f"Expected `--format csv` or `parquet` with `--out FOLDER/`. Received: {received}"
    for option in ("resume", "sort_into") if parts or tables else ():
        if getattr(given, option):
            what = "tables of photos" if tables else "rows in several files"
            yield f"`--{option.replace('_', '-')}` does not go together with {what}."
