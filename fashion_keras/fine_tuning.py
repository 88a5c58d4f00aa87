"""Trains the top of the backbone on, together with the head that was trained before it.

First the head alone, then both (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"):
a head that fits already does not tear up what the backbone knows.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from fashion_keras import devices
from fashion_keras.cli import duration
from fashion_keras.config import Config, InputError
from fashion_keras.ensemble import Ensemble
from fashion_keras.files import one_at_a_time
from fashion_keras.fine_tuner import (
    PIXELS,
    build_fine_tuner,
    chosen_fine_tune_from,
    compile_fine_tuner,
    tuning_batches,
)
from fashion_keras.headroom import for_training, parts_that_fit
from fashion_keras.memory import in_parts
from fashion_keras.stopwatch import spent, stage
from fashion_keras.training import Material, Parts, Watch, training_key, unwatched
from fashion_keras.training_state import Rows, history_row, load, read_rows, save, show_rows

STAGE = "fine-tuning"  # What its rows in the history are called.


@stage(STAGE)
@spent("backbone")
def fine_tune(
    config: Config, material: Material, start: Ensemble, cache: Path, watch: Watch = unwatched
) -> Ensemble:
    """Train the backbone above the cut, and the head, for a number of passes fixed beforehand.

    The state after each pass is kept in the cache, draws of dropout and all: an interrupted run
    goes on from there and, on maps, on one CPU, ends with the same weights to the last bit. (On
    several devices sums are added up in another order each time; on pixels photos come in another
    order than they would have.)

    Args:
        config: All knobs.
        material: See `training.open_material`; the weights of its backbone change. Maps that
            are missing are made before that (whether the disk has room for them, only
            `FeatureStore.make_maps` asks).
        start: The trained head (see `ensemble.train_ensemble`); its weights change.
        cache: Folder for the state.
        watch: Looks on; it sees the passes of an earlier run first.

    Returns:
        The same backbone and head, the history with one more row a pass, and the new scores.

    Raises:
        InputError: If a loss is not a number any more.
    """
    state = _state_file(config, material, cache)
    with one_at_a_time(state.with_suffix(".lock"), "this fine-tuning"):
        return _fine_tuned(config, material, start, state, watch)


def _fine_tuned(
    config: Config, material: Material, start: Ensemble, state: Path, watch: Watch
) -> Ensemble:
    rows = read_rows(state)
    if rows:
        print(f"fine-tuning goes on after pass {len(rows)}, which was finished before", flush=True)
    watchers = watch(STAGE)
    show_rows(rows, watchers)

    def work(parts: int) -> tuple[Parts, Rows]:
        return _tuned(config, material, start.head, state, parts, watchers)

    backbone, _ = material.frozen()
    fine_tune_from = (
        None if chosen_fine_tune_from(config) == PIXELS else chosen_fine_tune_from(config)
    )
    needed = for_training(backbone, config.image_size, fine_tune_from)
    parts = parts_that_fit(needed, config.batch_size, STAGE)
    (tuned, rows), _ = in_parts(work, config.batch_size, STAGE, parts)
    backbone.set_weights(tuned.backbone.get_weights())
    start.head.set_weights(tuned.head.get_weights())
    final = {"loss": rows[-1]["val_loss"], "accuracy": rows[-1]["val_accuracy"]}
    history = [*start.history, *({"stage": STAGE} | row for row in rows)]
    return Ensemble(backbone, start.head, history, final)


def _tuned(
    config: Config,
    material: Material,
    head: keras.Model,
    state: Path,
    parts: int,
    watchers: Sequence[keras.callbacks.Callback],
) -> tuple[Parts, Rows]:
    """Train copies of backbone and head, from the last finished pass on; return them and rows."""
    rows = read_rows(state)
    train, validation = tuning_batches(config, material, len(rows))
    if parts > 1:
        photos = len(material.prepared.split("validation"))
        validation = devices.smaller(validation, config.batch_size // parts, photos)
    steps = -(-len(material.prepared.split("train")) // config.batch_size)
    with devices.strategy().scope():
        tuned = build_fine_tuner(config, material, head, len(rows))
        compile_fine_tuner(tuned.model, config, steps, parts)
        if rows:
            load(tuned.model, state, parts)
        devices.build_metrics(tuned.model, validation)
        tuned.model.fit(
            devices.shared(train, parts, devices.count()),
            validation_data=validation,
            initial_epoch=len(rows),
            epochs=config.fine_tuning_epochs,
            shuffle=False,  # The batches are shuffled already.
            verbose=1 if sys.stdout.isatty() else 0,  # type: ignore[arg-type]
            callbacks=[_Passes(rows, state, config.fine_tuning_epochs, parts), *watchers],
        )
    return tuned, rows


def _state_file(config: Config, material: Material, cache: Path) -> Path:
    """Return where the state of exactly this training is kept."""
    fine_tune_from = chosen_fine_tune_from(config)
    _, store = material.frozen()
    augmented_copies = [("train", view) for view in range(config.fine_tuning_copies + 1)]
    # Decides the head, too. Where photos and weights lie does not matter; what they are does.
    knobs = dataclasses.asdict(config) | {
        "fine_tune_from": fine_tune_from,
        "data": "",
        "weights": "",
    }
    if devices.precision_in_force(knobs["precision"]) == "float32":
        del knobs["precision"]
    features = [
        store.key(*which, fine_tune_from) for which in [*augmented_copies, ("validation", 0)]
    ]
    key = training_key(knobs, features, material.prepared)
    return cache / "fine-tuning-2" / f"{key}.weights.h5"


class _Passes(keras.callbacks.Callback):
    """Notes, shows and keeps each pass; stops where a loss is not a number."""

    def __init__(self, rows: Rows, state: Path, passes: int, parts: int) -> None:
        super().__init__()
        self._rows = rows
        self._state = state
        self._passes = passes
        self._parts = parts
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the pass, save the state, say how long the rest takes."""
        seconds = time.monotonic() - self._start
        row = history_row(epoch, logs or {}, seconds)
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            raise InputError(
                f"Fine-tuning diverged in pass {epoch + 1}: the loss is {row['loss']}, that of "
                f"validation {row['val_loss']}. Try a smaller `--fine-tuning-learning-rate`."
            )
        self._rows.append(row)
        self._save()
        left = duration((self._passes - epoch - 1) * seconds)
        print(
            f"fine-tuning: pass {epoch + 1} of {self._passes}, loss {row['loss']:.4f}, validation "
            f"accuracy {row['val_accuracy']:.4f}, {duration(seconds)} a pass, {left} left",
            flush=True,
        )

    @spent("I/O")
    def _save(self) -> None:
        save(self.model, self._rows, self._state, self._parts)
