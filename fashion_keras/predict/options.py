"""The command line of `predict`: its options, and which of them go together."""

import argparse
from pathlib import Path

from fashion_keras import cli, stopwatch
from fashion_keras.config import InputError
from fashion_keras.predict.cloud import is_cloud
from fashion_keras.predict.inputs import is_address
from fashion_keras.predict.journal import check_target
from fashion_keras.predict.photo_tables import is_table
from fashion_keras.predict.rows import FORMATS

RELEASED = Path(__file__).parents[1] / "released" / "fashion.keras"
_DESCRIPTION = """\
Name the category of photos: one row a photo with its category, its probability and the next best
categories. A photo that cannot be read is a row with the reason, never the end of the run.

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
        "list of such on standard input, one a line; before them, if you like, the model: a .keras "
        "file made by `python -m fashion_keras.final`, or `imagenet` for plain Xception with its "
        f"thousand classes (default: {RELEASED}); with --engine ray also places in cloud stores, "
        "s3:// or gs:// (all below one that ends in /), or instead tables of photos, .parquet with "
        "columns `bytes` and `file` or `path`",
    )
    _add_row_options(parser)
    _add_file_options(parser)
    _add_engine_options(parser)
    parser.add_argument(
        "--batch-size",
        type=cli.count,
        default=32,
        metavar="INT",
        help="photos that go through the model together (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-private",
        action="store_true",
        help="fetch also from addresses of the local network (default: they are refused, because "
        "a list of addresses from outside could be used to look into it)",
    )
    stopwatch.add_option(parser)
    return parser


def _add_row_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "parquet"),
        default="table",
        help="table for people, csv with a header, json (one list), jsonl (one object a line) or, "
        "with --engine ray, parquet (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        type=cli.count,
        default=3,
        metavar="INT",
        help="how many of the most probable categories to tell (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=cli.probability,
        default=0.0,
        metavar="FLOAT",
        help="call photos `uncertain` whose best category is less probable than this, from 0 to 1 "
        "(default: %(default)s)",
    )


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=_place,
        metavar="FILE",
        help="write the rows to this file when all are there, in place of one that is there; until "
        "then they are kept beside it (default: standard output, as they come); with --engine ray "
        "and csv or parquet also a new folder, here (ending in /) or at s3:// or gs://, for rows "
        "in several parts, which do not go through this machine",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --out: go on where an interrupted run stopped, no photo done twice",
    )
    parser.add_argument(
        "--sort-into",
        type=Path,
        metavar="FOLDER",
        help="copy each photo into a folder of its category inside this one; photos that are "
        "there already stay as they are",
    )
    parser.add_argument(
        "--link", action="store_true", help="with --sort-into: make links, not copies"
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("plain", "ray"),
        default="plain",
        help="plain: in this process; ray: in several ones, of this machine or of the cluster that "
        "RAY_ADDRESS names (needs `pip install 'fashion_keras[ray]'`; on a cluster photos by path "
        "must be in a folder that all machines share) (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=cli.count,
        metavar="INT",
        help="with --engine ray: processes that hold the model (default: one a graphics card or, "
        "where there is none, one for every two CPUs)",
    )


def _place(text: str) -> Path | str:
    """Return a path for a file; text for a folder or a place in a cloud store."""
    return text if is_cloud(text) or text.endswith("/") else Path(text)


def check_released() -> None:
    """Raise the error for a model that is meant but not there, as where only the code is installed.

    Raises:
        InputError: If there is none.
    """
    if not RELEASED.exists():
        raise InputError(
            f"There is no {RELEASED}: name a .keras file, such as one made by "
            "`python -m fashion_keras.final`."
        )


def check(given: argparse.Namespace, names: list[str]) -> None:
    """Raise the error for options that do not go together, before anything slow is done.

    Raises:
        InputError: What does not go together, and what to do.
    """
    _check_engine(given, names)
    if given.out and not writes_parts(given):
        check_target(given.out, given.resume)
    if given.out and str(given.out) in names:
        raise InputError(f"`--out` would replace {given.out}, which is one of the photos.")
    if not names:
        raise InputError("Expected names of photos on standard input, one a line. Received: none")
    if given.resume and not given.out:
        raise InputError("`--resume` goes on with a file: give its name with `--out FILE`.")
    if given.link and not given.sort_into:
        raise InputError("`--link` is about sorting: give a folder with `--sort-into FOLDER`.")
    elsewhere = (name for name in names if is_address(name) or is_cloud(name))
    if given.sort_into and (name := next(elsewhere, None)):
        raise InputError(f"`--sort-into` takes photos on this computer. Received: {name}")


def writes_parts(given: argparse.Namespace) -> bool:
    """Return whether rows are written to a folder by those who make them, not to one file."""
    return given.format == "parquet" or isinstance(given.out, str)


def _check_engine(given: argparse.Namespace, names: list[str]) -> None:
    parts = writes_parts(given)
    if given.engine == "ray" and given.profile:
        raise InputError("`--profile` sees this process alone: leave out `--engine ray`.")
    if given.engine != "ray":
        if given.workers:
            raise InputError("`--workers` is about Ray: add `--engine ray`.")
        if parts:
            raise InputError("Parquet, folders and cloud stores are written with `--engine ray`.")
        if place := next(filter(is_cloud, names), None):
            raise InputError(f"Cloud stores are read with `--engine ray`. Received: {place}")
        return
    if parts and (given.format not in ("csv", "parquet") or not given.out):
        raise InputError(
            "Expected `--format csv` or `parquet` with a folder to write to, `--out FOLDER/`. "
            f"Received: --format {given.format} --out {given.out or ''}".rstrip()
        )
    tables = any(map(is_table, names))
    if (parts or tables) and (given.resume or given.sort_into):
        option = "--resume" if given.resume else "--sort-into"
        what = "tables of photos" if tables else "rows in several parts"
        raise InputError(f"`{option}` does not go together with {what}.")
