"""The state of a training as one whole file, from which it goes on where it was stopped."""

import io
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from fashion_keras.disk import check_room
from fashion_keras.files import whole_file
from fashion_keras.stopwatch import spent

Rows = list[dict[str, float]]
_PAUSE = (
    5.0  # Seconds of training that a kill may cost: to keep each epoch on vectors would be slow.
)


def read_rows(file: Path) -> Rows:
    """Return the rows of the epochs that a state holds, one each; none if there is no state.

    A file that is damaged is put aside, and a line says so.

    Raises:
        OSError: If it cannot be read for another reason.
    """
    if not file.exists():
        return []
    try:
        with h5py.File(file) as kept:
            return json.loads(_array(kept["history"]).tobytes())
    except (OSError, LookupError, ValueError) as error:
        if getattr(error, "errno", None):  # Of the system, not of the file's content.
            raise
        print(f"{file} is damaged ({error}): what it held is trained anew", flush=True)
        os.replace(file, file.with_name(f"{file.name}.damaged"))
        return []


def save(model: Any, rows: Rows, file: Path, parts: int, best: Path | None = None) -> None:
    """Write weights, the state of optimizer and random layers, and rows, whole or not at all.

    Args:
        model: A compiled model.
        rows: One each epoch.
        file: Where to write it; the name ends in `.weights.h5`.
        parts: In which each batch came (see `devices.shared`).
        best: Weights of the best epoch, if they are kept, too.
    """
    with whole_file(file) as unfinished:
        check_room(unfinished, size_of(model) + (best.stat().st_size if best else 0))
        model.save_weights(unfinished)
        with h5py.File(unfinished, "a") as kept:
            kept["history"] = np.frombuffer(json.dumps(rows).encode(), "uint8")
            kept["parts"] = parts
            for number, seed in enumerate(_seeds(model)):
                kept[f"seeds/{number}"] = keras.ops.convert_to_numpy(seed)
            if best:
                kept["best"] = np.frombuffer(best.read_bytes(), "uint8")


def size_of(model: Any) -> int:
    """Return the bytes of a compiled model's weights and of its optimizer's state."""
    variables = [*model.variables, *model.optimizer.variables]
    return sum(4 * math.prod(one.shape) for one in variables)


def load(model: Any, file: Path, parts: int) -> None:
    """Load all that `save` wrote but rows, from a run that may have cut batches otherwise."""
    model.load_weights(file)
    with h5py.File(file) as kept:
        before = int(_array(kept["parts"]))
        for number, seed in enumerate(_seeds(model)):
            seed.assign(_array(kept[f"seeds/{number}"]))
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    counted: Any = keras.ops.convert_to_numpy(optimizer._iterations)
    optimizer._iterations.assign(int(counted) // before * parts)  # It counts the parts.


def _seeds(model: Any) -> list[Any]:
    """Return what decides the next draws of random layers: Keras does not save it with weights."""
    return [one for one in model.variables if "seed_generator" in one.path]


def _array(dataset: Any) -> Any:
    return dataset[()]


def show_rows(rows: Iterable[dict], watchers: Sequence[keras.callbacks.Callback]) -> None:
    """Let those who look on see the epochs of an earlier run."""
    for row in rows:
        for watcher in watchers:
            watcher.on_epoch_end(int(row["epoch"]) - 1, row)


class State:
    """What is kept of one training: while it goes on all of it, after its end what it gave.

    Args:
        file: Where it is kept; None for nowhere.

    Attributes:
        rows: The epochs that an earlier run finished, one row each.
        finished: Whether the training has come to its end.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.rows = read_rows(file) if file else []
        self.finished = False
        if self.rows and file:
            with h5py.File(file) as kept:
                self.finished = "weights" in kept

    def best_weights(self) -> list[np.ndarray]:
        """Return the weights that a finished training gave."""
        with h5py.File(self._known()) as kept:
            weights: Any = kept["weights"]
            return [_array(weights[str(number)]) for number in range(len(weights))]

    def restore(self, model: Any, best: Path, parts: int) -> None:
        """Bring a compiled model to where the earlier run was; write its best weights to `best`."""
        load(model, self._known(), parts)
        with h5py.File(self._known()) as kept:
            best.write_bytes(_array(kept["best"]).tobytes())

    @spent("I/O")
    def finish(self, weights: Sequence[np.ndarray], rows: Rows) -> None:
        """Keep what a training gave instead of what it needs to go on."""
        if self.file:
            content = io.BytesIO()  # On a full disk HDF5 ends the process.
            with h5py.File(content, "w") as kept:
                kept["history"] = np.frombuffer(json.dumps(rows).encode(), "uint8")
                for number, weight in enumerate(weights):
                    kept[f"weights/{number}"] = weight
            with whole_file(self.file) as unfinished:
                unfinished.write_bytes(content.getbuffer())

    def _known(self) -> Path:
        if self.file is None:
            raise ValueError("Expected a state that is kept in a file. Received: None")
        return self.file


class Keeper(keras.callbacks.Callback):
    """Notes each epoch, and keeps the state every few seconds; comes after the others.

    Args:
        state: Where to keep it; its rows are those of the epochs before.
        checkpoint: Keeps the best weights; it is told what was the best so far.
        stopping: Is shown the epochs before, so that its patience is as without an interruption.
        parts: See `save`.
    """

    def __init__(
        self,
        state: State,
        checkpoint: keras.callbacks.ModelCheckpoint,
        stopping: keras.callbacks.EarlyStopping,
        parts: int,
    ) -> None:
        super().__init__()
        self.rows = list(state.rows)
        self._state = state
        self._checkpoint = checkpoint
        self._stopping = stopping
        self._parts = parts
        self._start = self._kept = time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Bring the others to where they were."""
        if self.rows:
            self._checkpoint.best = min(row[self._checkpoint.monitor] for row in self.rows)
        show_rows(self.rows, [self._stopping])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the state, if it is time: now, as weights are not those averaged for validation."""
        check_room(Path(self._checkpoint.filepath), size_of(self.model))
        self._start = time.monotonic()
        if self._state.file and self.rows and self._start - self._kept >= _PAUSE:
            self._keep(self._state.file)
            self._kept = time.monotonic()

    @spent("I/O")
    def _keep(self, file: Path) -> None:
        save(self.model, self.rows, file, self._parts, Path(self._checkpoint.filepath))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the epoch."""
        self.rows.append(history_row(epoch, logs or {}, time.monotonic() - self._start))


def history_row(number: int, logs: dict[str, float], seconds: float) -> dict[str, float]:
    """Return the row of one epoch, counted from 0, from Keras' logs."""
    metrics = ("loss", "accuracy", "val_loss", "val_accuracy")
    row = {"epoch": number + 1} | {name: float(logs[name]) for name in metrics}
    return row | {"seconds": round(seconds, 3)}
