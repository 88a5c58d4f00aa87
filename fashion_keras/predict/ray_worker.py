"""What one worker of Ray does: it loads the classifier once and turns photos into rows."""

import hashlib
import importlib
import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.inspection import check_file
from fashion_keras.predict.cloud import arrow, is_cloud, read_object
from fashion_keras.predict.imagenet import IMAGENET, load_imagenet
from fashion_keras.predict.inputs import read_named
from fashion_keras.predict.photo_tables import CONTENT
from fashion_keras.predict.rows import row_of

# Turns rows, and how many categories each tells, into the columns that leave a worker.
Table = Callable[[list[dict], int], Any]


class Shipped(NamedTuple):
    """A classifier on its way to the workers.

    Attributes:
        content: A `.keras` file.
        metadata: See `inspection.read_metadata`; None if it is in the file.
    """

    content: bytes
    metadata: dict | None


class Orders(NamedTuple):
    """What a worker is told when it starts.

    Attributes:
        shipped: Reference of Ray to a `Shipped`.
        starts: Handle of Ray to a `starts_counter`.
        top: See `rows.row_of`; `threshold` likewise.
        batch_size: Photos that go through the model together.
        allow_private: See `inputs.read_named`.
        folder: What names of files are relative to; None if none of them is.
        threads: How many of them TensorFlow may use.
        table: `as_lines` or `as_columns`.
    """

    shipped: Any
    starts: Any
    top: int
    threshold: float
    batch_size: int
    allow_private: bool
    folder: str | None
    threads: int
    table: Table


class _Photo(NamedTuple):
    name: str
    content: bytes | None  # None: it is read by its name.


def ship(model: str) -> tuple[Shipped, list[str]]:
    """Read a classifier for the workers, so that only this machine needs to have it.

    Args:
        model: A `.keras` file, or `imagenet`.

    Returns:
        What the workers load, and its labels.

    Raises:
        InputError: See `inspection.check_file` and `imagenet.load_imagenet`.
    """
    if model != IMAGENET:
        metadata = check_file(Path(model))
        return Shipped(Path(model).read_bytes(), None), metadata["labels"]
    # TensorFlow would take all memory of a graphics card, and a worker needs it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    classifier = load_imagenet()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "imagenet.keras")
        classifier.model.save(file)
        return Shipped(file.read_bytes(), classifier.metadata), classifier.labels


def _load(shipped: Shipped) -> Classifier:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "shipped.keras")
        file.write_bytes(shipped.content)
        if shipped.metadata is None:
            return load_classifier(file)
        model: Any = keras.saving.load_model(file, compile=False)
        return Classifier(model, shipped.metadata)


def starts_counter() -> type:
    """Return a class that counts how often a task was started and not ended, for an actor."""

    # Inside a function, so that Ray sends the class itself, not its name: the process that it
    # lives in need not import TensorFlow.
    class Starts:
        def __init__(self) -> None:
            self._starts: Counter[str] = Counter()

        def begin(self, task: str) -> int:
            self._starts[task] += 1
            return self._starts[task]

        def end(self, task: str) -> None:
            del self._starts[task]

    return Starts


class Predictor:
    """Predicts the photos of one table after the other; Ray makes one in each worker.

    Args:
        orders: What to do.
    """

    most_starts = 5  # Of one task: what ends a worker so often is no accident.

    def __init__(self, orders: Orders) -> None:
        self._ray: Any = importlib.import_module("ray")
        # Workers of one machine share its CPUs; TensorFlow would use all of them for each.
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(orders.threads)
        if orders.folder:
            _enter(orders.folder)
        self._orders = orders
        self._classifier = _load(self._ray.get(orders.shipped))

    def __call__(self, table: Any) -> Any:
        """Return a table with one row for each photo, in order.

        Args:
            table: Of Arrow, with the names of photos or with the photos themselves.

        Raises:
            InputError: If these photos ended a worker several times: Ray would try for ever.
        """
        photos = _photos(table)
        task = self._begin(photos)
        rows = [
            row_of(
                prediction._replace(photo=prediction.photo.name),
                self._classifier.labels,
                self._orders.top,
                self._orders.threshold,
            )
            for prediction in self._classifier.predict(photos, self._orders.batch_size, self._read)
        ]
        self._orders.starts.end.remote(task)
        return self._orders.table(rows, self._orders.top)

    def _begin(self, photos: list[_Photo]) -> str:
        # Ray has an id for each task, but does not tell it to the thread that this runs in.
        sizes = [(photo.name, len(photo.content or b"")) for photo in photos]
        task = hashlib.sha256(repr(sizes).encode()).hexdigest()
        if self._ray.get(self._orders.starts.begin.remote(task)) > self.most_starts:
            raise InputError(
                f"{self.most_starts} workers ended, one after the other, over the {len(photos)} "
                f"photos from {photos[0].name} on"
            )
        return task

    def _read(self, photo: _Photo) -> np.ndarray:
        if photo.content is not None:
            return read_photo(photo.content).pixels
        if is_cloud(photo.name):
            return read_photo(read_object(photo.name)).pixels
        return read_named(photo.name, self._orders.allow_private)


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{platform.node()} cannot open {folder}, which the photos' names are relative to: "
            "share it with all machines of the cluster, or name photos in a cloud store"
        ) from error


def names_table(names: list[str]) -> Any:
    """Return a table of Arrow with the names of photos, for a `Predictor`."""
    # As bytes: a name that is not UTF-8 is no text for Arrow.
    return arrow().table({"name": [name.encode("utf-8", "surrogateescape") for name in names]})


def _photos(table: Any) -> list[_Photo]:
    if "name" in table.column_names:
        names = table["name"].to_pylist()
        return [_Photo(name.decode("utf-8", "surrogateescape"), None) for name in names]
    (column,) = (name for name in table.column_names if name != CONTENT)
    pairs = zip(table[column].to_pylist(), table[CONTENT].to_pylist(), strict=True)
    return [_Photo(str(name), content or b"") for name, content in pairs]


def as_lines(rows: list[dict], top: int) -> Any:
    """Return a table with one column `row`: each row as JSON, which loses nothing."""
    return arrow().table({"row": [json.dumps(row) for row in rows]})


def as_columns(rows: list[dict], top: int) -> Any:
    """Return a table with the columns that `rows.write_rows` writes as CSV."""
    text, number = arrow().string(), arrow().float64()
    names = [row["file"].encode("utf-8", "replace").decode() for row in rows]
    columns = [("file", text, names)]
    columns += [("category", text, [row["category"] for row in rows])]
    columns += [("probability", number, [row["probability"] for row in rows])]
    for rank in range(top):
        told = [row["top"][rank] if row["top"] else {} for row in rows]
        columns += [(f"category_{rank + 1}", text, [one.get("category", "") for one in told])]
        columns += [(f"probability_{rank + 1}", number, [one.get("probability") for one in told])]
    columns += [("reason", text, [row["reason"] for row in rows])]
    return arrow().table({name: arrow().array(values, kind) for name, kind, values in columns})
