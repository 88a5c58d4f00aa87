"""Tables of photos: Parquet files with a column `bytes`, and one for the name of each photo."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from fashion_keras.config import InputError
from fashion_keras.predict.cloud import arrow, locate

CONTENT = "bytes"
_NAMES = ("file", "path")  # The first of them that a table has names its photos.


class PhotoTable(NamedTuple):
    """What is known of a table before it is read.

    Attributes:
        filesystem: Of Arrow.
        path: In this file system.
        column: Where the names of the photos are.
        photos: How many there are.
    """

    filesystem: Any
    path: str
    column: str
    photos: int


def is_table(name: str) -> bool:
    """Return whether a name is that of a table, not of a photo."""
    return name.lower().endswith(".parquet")


def check_tables(names: Sequence[str]) -> None:
    """Look into each table, if there are any.

    Raises:
        InputError: If one cannot be read or lacks a column, or there are photos, too.
    """
    tables = [name for name in names if is_table(name)]
    if tables and len(tables) < len(names):
        other = next(name for name in names if not is_table(name))
        raise InputError(
            f"Expected either tables of photos or photos. Received: {tables[0]} and {other}"
        )
    with ThreadPoolExecutor() as pool:  # In a cloud store each takes its time.
        list(pool.map(open_table, tables))
    if tables and not count_photos(tables):
        raise InputError(f"Expected tables of photos. Received: {tables[0]} without any photo")


@functools.cache
def open_table(name: str) -> PhotoTable:
    """Look into a table.

    Raises:
        InputError: If it cannot be read, or lacks a column.
    """
    filesystem, path = locate(name)
    try:
        found = arrow("parquet").read_metadata(path, filesystem=filesystem)
    except (OSError, ValueError) as error:  # What Arrow raises for damage is a ValueError.
        raise InputError(f"{name} cannot be read as a table: {error}") from error
    columns = found.schema.to_arrow_schema().names
    column = next((column for column in _NAMES if column in columns), None)
    if CONTENT not in columns or column is None:
        raise InputError(
            f"A table of photos has a column `{CONTENT}` and one of {', '.join(_NAMES)}. "
            f"Received: {name} with {', '.join(columns)}"
        )
    return PhotoTable(filesystem, path, column, found.num_rows)


def count_photos(names: Sequence[str]) -> int:
    """Return how many photos are meant by names, either of tables or of photos."""
    return sum(open_table(name).photos if is_table(name) else 1 for name in names)
