"""Predicts large archives with Ray Data: in several processes, here or on all of a cluster."""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fashion_keras.config import InputError
from fashion_keras.predict.cloud import arrow, expand_cloud, is_cloud, locate
from fashion_keras.predict.inputs import is_address
from fashion_keras.predict.photo_tables import (
    CONTENT,
    check_tables,
    count_photos,
    is_table,
    open_table,
)
from fashion_keras.predict.ray_cluster import import_ray, plan, running
from fashion_keras.predict.ray_worker import (
    Orders,
    Predictor,
    Shipped,
    Table,
    as_columns,
    as_lines,
    names_table,
    starts_counter,
)

_ROWS_OF_A_PART = 10_000
_UNFINISHED = "_unfinished"  # Readers of folders of parts pass over names that begin so.


def prepare(names: list[str]) -> list[str]:
    """Make sure that Ray is there, and that what is named can be reached.

    Args:
        names: What `inputs.expand` returned.

    Returns:
        The names, with each place in a cloud store that ends in `/` replaced by what is below.

    Raises:
        InputError: If Ray Data is not installed; see also `cloud.expand_cloud` and
            `photo_tables.check_tables`.
    """
    import_ray()
    names = expand_cloud(names)
    check_tables(names)
    return names


def predict_rows(shipped: Shipped, names: list[str], given: argparse.Namespace) -> Iterator[dict]:
    """Yield one row a photo, in order (see `rows.row_of`).

    A worker that dies is replaced, and its photos are done again: no row is lost or comes twice.
    Up to the last row nothing else can be printed: see `ray_cluster.running`.

    Args:
        shipped: The classifier; see `ray_worker.ship`.
        names: What `prepare` returned, or some of it.
        given: Options of the command.

    Raises:
        InputError: If the workers cannot start, or end again and again.
    """
    if not names:
        return
    with running() as ray:
        predicted = _predicted(ray, names, shipped, given, as_lines)
        # Without prefetching, as rows that wait for the next task's would be lost with a kill.
        tables = predicted.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        for table in tables:
            yield from map(json.loads, table["row"].to_pylist())


def write_parts(shipped: Shipped, names: list[str], given: argparse.Namespace) -> tuple[int, int]:
    """Write the rows to a new folder, each part by the machine where it is made.

    Until all are written, and counted, a file `_unfinished` stands in the folder.

    Args:
        shipped: See `predict_rows`; `names` likewise.
        names: All that are to be written.
        given: Options of the command; `out` names the folder.

    Returns:
        How many rows there are, and how many photos of them cannot be read.

    Raises:
        InputError: If there is something in the folder already, or it cannot be written to.
        RuntimeError: If there are not as many rows as photos.
    """
    filesystem, folder = locate(str(given.out))
    _begin(filesystem, folder, str(given.out))
    with running() as ray:
        predicted = _predicted(ray, names, shipped, given, as_columns)
        write = predicted.write_parquet if given.format == "parquet" else predicted.write_csv
        write(
            folder,
            filesystem=filesystem,
            try_create_dir=False,
            min_rows_per_file=_ROWS_OF_A_PART,
        )
    rows, unreadable = _count_rows(filesystem, folder, given.format)
    if rows != (photos := count_photos(names)):
        raise RuntimeError(f"{given.out} has {rows} rows for {photos} photos")
    filesystem.delete_file(f"{folder}/{_UNFINISHED}")
    return rows, unreadable


def _begin(filesystem: Any, folder: str, out: str) -> None:
    fs = arrow("fs")
    try:
        if filesystem.get_file_info(folder).type == fs.FileType.File:
            raise InputError(f"{out} is a file; parts are written to a folder.")
        if filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
            raise InputError(f"There is something in {out}: give a new folder, or empty this one.")
        filesystem.create_dir(folder)
        filesystem.open_output_stream(f"{folder}/{_UNFINISHED}").close()
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}") from error


def _count_rows(filesystem: Any, folder: str, kind: str) -> tuple[int, int]:
    """Return how many rows the parts hold, and how many of them tell why there is no answer."""
    csv, dataset = arrow("csv"), arrow("dataset")
    form: Any = kind
    if kind == "csv":
        reasons = csv.ConvertOptions(column_types={"reason": "string"})
        lines = csv.ParseOptions(newlines_in_values=True)
        form = dataset.CsvFileFormat(parse_options=lines, convert_options=reasons)
    parts = dataset.dataset(folder, filesystem=filesystem, format=form)
    return parts.count_rows(), parts.count_rows(filter=dataset.field("reason") != "")


def _predicted(
    ray: Any, names: list[str], shipped: Shipped, given: argparse.Namespace, table: Table
) -> Any:
    """Return the data set of Ray that is the rows; nothing is done until it is asked for them."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = table is as_columns and sys.stderr.isatty()
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    shares = plan(machines, given.workers)
    photos = count_photos(names)
    # Several batches, so that photos are decoded while others are predicted; but also several
    # tasks for each worker, so that all end at about the same time.
    size = min(4 * given.batch_size, math.ceil(photos / (4 * shares.workers)))
    return _photos(ray, names, size, photos).map_batches(
        Predictor,
        fn_constructor_args=[_orders(ray, names, shipped, given, table, shares.threads)],
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(shares.workers, math.ceil(photos / size))),
        num_cpus=shares.cpus,
        num_gpus=shares.gpus,
    )


def _orders(
    ray: Any,
    names: list[str],
    shipped: Shipped,
    given: argparse.Namespace,
    table: Table,
    threads: int,
) -> Orders:
    # The counter, too, outlives its machine: it begins anew on another one.
    counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(starts_counter())
    return Orders(
        shipped=ray.put(shipped),
        starts=counter.remote(),
        top=given.top,
        threshold=given.threshold,
        batch_size=given.batch_size,
        allow_private=given.allow_private,
        folder=str(Path.cwd()) if any(map(_is_relative, names)) else None,
        threads=threads,
        table=table,
    )


def _is_relative(name: str) -> bool:
    return not (is_cloud(name) or is_address(name) or is_table(name) or Path(name).is_absolute())


def _photos(ray: Any, names: list[str], size: int, photos: int) -> Any:
    """Return the data set of Ray that the workers are given, in pieces of so many photos."""
    if not is_table(names[0]):
        starts = range(0, len(names), size)
        return ray.data.from_arrow([names_table(names[start : start + size]) for start in starts])
    read = []
    # Ray reads tables together if they lie in the same store and have the same columns.
    tables = itertools.groupby(
        map(open_table, names), lambda table: (table.filesystem, table.column)
    )
    for (filesystem, column), group in tables:
        paths = [table.path for table in group]
        blocks = math.ceil(photos / size)
        data = ray.data.read_parquet(paths, filesystem=filesystem, override_num_blocks=blocks)
        read.append(data.select_columns([column, CONTENT]))
    return read[0].union(*read[1:]) if read[1:] else read[0]
