"""Predicts with Ray Data, in several processes on this machine or on a cluster.

Photos are also read from cloud storage (`s3://`, `gs://`) and from tables: Parquet files with a
column `bytes`, and `file` or `path` for the name of each photo.
"""

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import logging
import math
import os
import platform
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import fs, parquet

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.parallel import connected, import_ray
from fashion_keras.predict.inputs import read_named, seen
from fashion_keras.predict.options import is_cloud, is_table, writes_parts
from fashion_keras.predict.rows import flat, flat_columns, row_of
from fashion_keras.predict.web import is_address

if TYPE_CHECKING:
    from fashion_keras.classifier import Classifier

# This process holds the classifier, too, and TensorFlow would take all memory of a graphics card.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
ray = import_ray()
importlib.import_module("ray.data")
_ROWS_OF_A_FILE = 10_000
_MOST_BYTES = 200_000_000  # Of one photo; as many as are read from a file on this computer.
_MOST_STARTS = 4  # Of the same photos: what ends so many workers is no accident.
_UNFINISHED = "_unfinished"  # Readers of folders of Parquet files skip names that begin so.
_CREDENTIALS = (
    "Credentials are taken from AWS_PROFILE, AWS_ACCESS_KEY_ID or the machine's role (s3), and "
    "from GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login` (gs)."
)


def prepare(names: list[str]) -> list[str]:
    """Return the names, each once, with the files below each place in cloud storage.

    Raises:
        InputError: If a bucket cannot be reached, there is no file below a place, a table cannot
            be read or lacks a column, or there is no photo.
    """
    buckets = {tuple(name.split("/")[:3]): name for name in reversed(names) if is_cloud(name)}
    for first in buckets.values():
        with _place(first) as (filesystem, path):
            filesystem.get_file_info(path)
    listed = (_below(name) if is_cloud(name) and name.endswith("/") else [name] for name in names)
    names = list(dict.fromkeys(itertools.chain.from_iterable(listed)))
    if not count_photos(names):
        raise InputError(f"Expected tables of photos. Received: {names[0]} without any photo")
    return names


def count_photos(names: Iterable[str]) -> int:
    """Return the number of photos; a table holds many."""
    return sum(_open_table(name).photos if is_table(name) else 1 for name in names)


def predict_rows(
    classifier: "Classifier", names: list[str], given: argparse.Namespace
) -> Iterator[dict]:
    """Yield one row per photo (see `rows.row_of`), in order unless tables are mixed with others.

    A worker that dies is replaced and its photos are predicted again: no row is lost or duplicated.

    Raises:
        InputError: If the workers cannot start, or die again and again.
    """
    if not names:
        return
    with _running():
        predicted = _predicted(classifier, names, given)
        # Without prefetching, as rows that wait for the next task's would be lost with a kill.
        batches: Any = {"batch_size": None, "prefetch_batches": 0, "batch_format": "pyarrow"}
        for table in predicted.iter_batches(**batches):
            yield from map(json.loads, table["row"].to_pylist())


def write_parts(
    classifier: "Classifier", names: list[str], given: argparse.Namespace
) -> tuple[int, int]:
    """Write the rows to the folder `given.out`; they do not pass through this machine.

    Until all files are written, one named `_unfinished` is in the folder.

    Returns:
        How many rows there are, and how many of them are of photos that cannot be read.

    Raises:
        InputError: If the folder is not empty or cannot be written to; see also `predict_rows`.
    """
    with _place(str(given.out), "cannot be written") as (filesystem, folder):
        if filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
            raise InputError(f"{given.out} is not empty: give a new folder, or empty this one.")
        filesystem.create_dir(folder)
        filesystem.open_output_stream(f"{folder}/{_UNFINISHED}").close()
    with _running():
        rows = _predicted(classifier, names, given).map_batches(
            _as_columns, fn_args=[given.top], batch_format="pyarrow"
        )
        rows = rows.materialize()
        write = rows.write_parquet if given.format == "parquet" else rows.write_csv
        write(folder, filesystem=filesystem, min_rows_per_file=_ROWS_OF_A_FILE)
        columns = rows.select_columns(["reason"]).iter_batches(batch_format="pyarrow")
        reasons = [bool(reason) for one in columns for reason in one["reason"].to_pylist()]
    filesystem.delete_file(f"{folder}/{_UNFINISHED}")
    return len(reasons), sum(reasons)


@contextlib.contextmanager
def _running() -> Iterator[None]:
    """Run Ray; it reports workers that die on standard output, which is closed meanwhile."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # What matters is raised, too.
    with Path(os.devnull).open("w") as nowhere, connected(), contextlib.redirect_stdout(nowhere):
        try:
            yield
        except ray.exceptions.RayError as error:
            raise _in_one_line(error) from error


def _in_one_line(error: Exception) -> Exception:
    if found := re.search(r"^fashion_keras\.config\.InputError: (.+)$", str(error), re.MULTILINE):
        return InputError(found[1])
    if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error, OSError):
        return error  # A mistake in our code.
    return InputError(f"Ray gave up: {str(error).strip().splitlines()[0]}")


def share_out(resources: dict[str, float], asked: int | None) -> tuple[int, int, dict]:
    """Return the number of workers for a cluster, threads for each, and what Ray reserves for each.

    Raises:
        InputError: If there are more workers than graphics cards.
    """
    cpus, gpus = max(1, resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if asked and asked > gpus > 0:
        raise InputError(
            f"Ray has {gpus} graphics cards, and each worker needs one. Received: --workers {asked}"
        )
    workers = asked or gpus or math.ceil(cpus / 2)
    # One whole CPU stays free, without which Ray starts no task that reads or writes a file.
    reserved = math.floor(1000 * min(1, (cpus - 1) / workers)) / 1000
    return workers, max(1, int(cpus / workers)), {"num_cpus": reserved, "num_gpus": min(1, gpus)}


def _predicted(classifier: "Classifier", names: list[str], given: argparse.Namespace) -> Any:
    """Return the rows, each a line of JSON, as a data set of Ray; reading it predicts."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = writes_parts(given) and sys.stderr.isatty()
    workers, threads, reserved = share_out(ray.cluster_resources(), given.workers)
    photos = count_photos(names)
    # Several batches, so that photos are decoded while others are predicted; but also several
    # tasks for each worker, so that all end at about the same time.
    size = min(4 * given.batch_size, math.ceil(photos / (4 * workers)))
    if not reserved["num_gpus"]:
        classifier = classifier.for_photos(photos / workers)
    references = [ray.put(classifier), _Starts.remote()]
    return _photos(names, size).map_batches(
        Predictor,
        fn_constructor_args=[references, given, _folder_of(names), threads],
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers, math.ceil(photos / size))),
        **reserved,
    )


def _folder_of(names: Iterable[str]) -> str:
    """Return the folder that names are relative to; any one will do if none is."""
    paths = (name for name in names if not (is_cloud(name) or is_address(name) or is_table(name)))
    return "/" if all(map(os.path.isabs, paths)) else str(Path.cwd())


def _photos(names: Sequence[str], size: int) -> Any:
    """Return a data set of Ray with columns `name` and `content`; null: it is read by its name."""
    # Ray reads tables together if they lie in the same storage and have the same columns.
    groups = itertools.groupby(names, _source_of)
    parts = [
        _tables(list(group), source, size) if source else _named(list(group), size)
        for source, group in groups
    ]
    return parts[0].union(*parts[1:]) if parts[1:] else parts[0]


def _source_of(name: str) -> tuple[Any, str] | None:
    return _open_table(name).source if is_table(name) else None


def _named(names: list[str], size: int) -> Any:
    # As bytes: a name that is not UTF-8 is no text for Arrow.
    encoded = pa.array([os.fsencode(name) for name in names])
    table = pa.table({"name": encoded, "content": pa.nulls(len(names), pa.binary())})
    return ray.data.from_arrow([table[at : at + size] for at in range(0, len(names), size)])


def _tables(names: list[str], source: tuple[Any, str], size: int) -> Any:
    filesystem, column = source
    paths = [_open_table(name).path for name in names]
    read = ray.data.read_parquet(paths, filesystem=filesystem).select_columns([column, "bytes"])
    return read.map_batches(_as_photos, fn_args=[column], batch_size=size, batch_format="pyarrow")


def _as_photos(table: pa.Table, column: str) -> pa.Table:
    names = table[column].cast(pa.string()).cast(pa.binary()).fill_null(b"")
    return pa.table({"name": names, "content": table["bytes"].cast(pa.binary()).fill_null(b"")})


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Starts:
    """Counts how often a task was started and not ended: without it Ray would try for ever."""

    def __init__(self) -> None:
        self._starts: Counter[str] = Counter()

    def begin(self, task: str) -> int:
        self._starts[task] += 1
        return self._starts[task]

    def end(self, task: str) -> None:
        del self._starts[task]


class Predictor:
    """Predicts the photos of one table after the other; Ray creates one in each worker.

    Args:
        references: Of Ray, to the classifier and to a `_Starts`.
        given: Options of the command.
        folder: What names of files are relative to.
        threads: For TensorFlow: the workers of a machine share its CPUs.
    """

    def __init__(
        self, references: list, given: argparse.Namespace, folder: str, threads: int
    ) -> None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
        try:
            os.chdir(folder)
        except OSError as error:
            raise InputError(
                f"{platform.node()} cannot open {folder}, which the photos' names are relative to: "
                "share it with all machines of the cluster, or use photos in cloud storage"
            ) from error
        self._given, self._starts = given, references[1]
        self._classifier: Classifier = ray.get(references[0])

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return a table with one row for each photo, as a line of JSON, in order."""
        names = [os.fsdecode(name) for name in table["name"].to_pylist()]
        photos = list(zip(names, table["content"].to_pylist(), strict=True))
        task = repr([(name, len(content or b"")) for name, content in photos])
        if ray.get(self._starts.begin.remote(task)) > _MOST_STARTS:
            raise InputError(
                f"{_MOST_STARTS} workers died, one after the other, over the {len(photos)} photos "
                f"from {names[0]} on"
            )
        classifier, given = self._classifier, self._given
        model = {"model": given.model_name}
        rows = [
            row_of(one._replace(photo=one.photo[0]), classifier.labels, given.top, given.threshold)
            | model
            for one in classifier.predict(photos, given.batch_size, read_any)
        ]
        self._starts.end.remote(task)
        return pa.table({"row": [json.dumps(row) for row in rows]})


def read_any(photo: tuple[str, bytes | None]) -> np.ndarray:
    """Return the pixels of a photo by its name or, from a table, its bytes; see `read_named`."""
    name, content = photo
    if content is None and not is_cloud(name):
        return read_named(name)
    return seen(read_photo(_read_cloud(name) if content is None else content).pixels)


def _as_columns(table: pa.Table, top: int) -> pa.Table:
    """Return rows with the columns of `rows.flat_columns`, whatever is in them."""
    types = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in flat_columns(top).items()])
    rows = [flat(json.loads(row), top) for row in table["row"].to_pylist()]
    for row in rows:
        row["file"] = row["file"].encode("utf-8", "replace").decode()
    return pa.Table.from_pylist(rows, schema)


class _Table(NamedTuple):
    source: tuple[Any, str]  # Its file system, and the column with the names of the photos.
    path: str
    photos: int


@functools.cache
def _open_table(name: str) -> _Table:
    with _place(name, "cannot be read as a table") as (filesystem, path):
        found = parquet.read_metadata(path, filesystem=filesystem)
    columns = found.schema.to_arrow_schema().names
    names = [column for column in ("file", "path") if column in columns]
    if "bytes" not in columns or not names:
        raise InputError(
            "Expected a table of photos with columns `bytes`, and `file` or `path`. "
            f"Received: {name} with {', '.join(columns)}"
        )
    return _Table((filesystem, names[0]), path, found.num_rows)


@contextlib.contextmanager
def _place(name: str, problem: str = "cannot be reached") -> Iterator[tuple[Any, str]]:
    """Yield the file system of Arrow that a name belongs to, and its path there.

    Raises:
        InputError: For an error of the file system within the block, with the `problem` it means.
    """
    cloud = is_cloud(name)
    storage, _, rest = name.partition("://")  # What follows is taken as it is: `%20` is no space.
    bucket = rest.partition("/")[0]
    if cloud and not bucket:
        raise InputError(f"Expected a place such as {storage}://bucket/photos/. Received: {name}")
    try:
        if cloud:
            yield connect(storage, bucket), rest.rstrip("/")
        else:
            yield fs.LocalFileSystem(), str(Path(name).absolute())
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:  # Some of Arrow are ValueErrors.
        reason = textwrap.shorten(str(error), 300, placeholder=" ...").rstrip(".")
        advice = f". {_CREDENTIALS}" if cloud else ""
        raise InputError(f"{name} {problem}: {reason}{advice}") from error


@functools.cache
def connect(storage: str, bucket: str) -> Any:
    """Return the file system of Arrow for a bucket; `storage` is `s3` or `gs`."""
    # Google's client would try again for 15 minutes, even if all it lacks is credentials.
    ending = "?retry_limit_seconds=10" if storage == "gs" else ""
    return fs.FileSystem.from_uri(f"{storage}://{bucket}{ending}")[0]


def _below(name: str) -> list[str]:
    """Return all files below a place in cloud storage, without hidden ones, in order."""
    with _place(name) as (filesystem, path):
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        listed = filesystem.get_file_info(selector)
    below = [file.path for file in listed if file.type == fs.FileType.File]
    visible = [file.split("/") for file in below if "/." not in file.removeprefix(path)]
    if not visible:
        raise InputError(f"There is no file below {name}")
    # By their parts, as files of this computer are.
    return [f"{name.partition('://')[0]}://{'/'.join(parts)}" for parts in sorted(visible)]


def _read_cloud(name: str) -> bytes:
    try:
        with _place(name) as (filesystem, path), filesystem.open_input_file(path) as file:
            if file.size() > _MOST_BYTES:
                raise PhotoError(f"too large: {file.size()} bytes, at most {_MOST_BYTES} are read")
            return file.read()
    except PhotoError:
        raise
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise PhotoError("there is no such file (a folder ends in `/`)") from error
        raise PhotoError(str(error).removeprefix(f"{name} ")) from error
