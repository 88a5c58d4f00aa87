"""Trains the top of the backbone on, together with the head that was trained before it.

First the head alone, then both (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"):
a head that fits already does not tear up what the backbone knows.
"""

import dataclasses
import hashlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from fashion_keras.backbone import BLOCKS, unfreeze
from fashion_keras.command import duration
from fashion_keras.config import Config, InputError
from fashion_keras.data import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.ensemble import Ensemble
from fashion_keras.files import whole_file
from fashion_keras.model import build_top, build_trainer
from fashion_keras.stopwatch import spent, stage
from fashion_keras.training import Material, Watch, history_row, unwatched

PIXELS = "pixels"
STAGE = "fine-tuning"  # What its rows in the history are called.
_CPU_CUT = "block11"
_WARM_UP = 0.1  # Share of all steps in which the learning rate rises.


def check_cut(config: Config) -> None:
    """Raise the error for a cut that does not exist, before anything slow is done.

    Raises:
        InputError: If `config.cut` is neither a block nor one of the words.
    """
    known = ("auto", PIXELS, *BLOCKS)
    if config.cut not in known:
        raise InputError(
            f"`cut` must be `auto`, `{PIXELS}` or one of {', '.join(BLOCKS)}. "
            f"Received: cut={config.cut!r}"
        )


def chosen_cut(config: Config) -> str:
    """Return `config.cut` with `auto` replaced by what suits this machine."""
    if config.cut != "auto":
        return config.cut
    return PIXELS if keras.distribution.list_devices("gpu") else _CPU_CUT


@stage(STAGE)
@spent("backbone")
def fine_tune(
    config: Config, material: Material, start: Ensemble, cache: Path, watch: Watch = unwatched
) -> Ensemble:
    """Train the backbone above the cut, and the head, for a number of passes fixed beforehand.

    The state after each pass is kept in the cache: an interrupted run goes on from there (with
    other draws of dropout than it would have had).

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
    backbone, _ = material.frozen()
    state = _state_file(config, material, cache)
    rows = _finished_rows(state)
    # Before anything else: maps need the backbone as it was.
    train, validation = tuning_batches(config, material, len(rows))
    trainer = build_fine_tuner(config, material, start.head, len(rows))
    steps = -(-len(material.prepared.split("train")) // config.batch_size)
    compile_fine_tuner(trainer, config, steps)
    if rows:
        trainer.load_weights(state)
        print(f"fine-tuning goes on after pass {len(rows)}, which was finished before", flush=True)
    watchers = watch(STAGE)
    for row, watcher in itertools.product(rows, watchers):
        watcher.on_epoch_end(int(row["epoch"]) - 1, row)
    trainer.fit(
        train,
        validation_data=validation,
        initial_epoch=len(rows),
        epochs=config.fine_tuning_epochs,
        shuffle=False,  # The batches are shuffled already.
        verbose=1 if sys.stdout.isatty() else 0,  # type: ignore[arg-type]
        callbacks=[_Passes(rows, state, config.fine_tuning_epochs), *watchers],
    )
    backbone.trainable = False
    final = {"loss": rows[-1]["val_loss"], "accuracy": rows[-1]["val_accuracy"]}
    history = [*start.history, *({"stage": STAGE} | row for row in rows)]
    return Ensemble(backbone, start.head, history, final)


def build_fine_tuner(
    config: Config, material: Material, head: keras.Model, first_pass: int = 0
) -> keras.Model:
    """Return the model to be fitted, from maps or pixels to logits, with the cut made.

    Args:
        config: `cut`, `seed`, and for `pixels` the augmentation, are used.
        material: Its backbone becomes trainable.
        head: See `model.build_head`.
        first_pass: Number of passes that were made before; other random draws follow them.
    """
    keras.utils.set_random_seed(config.seed + first_pass)
    cut = chosen_cut(config)
    backbone, _ = material.frozen()
    unfreeze(backbone)
    if cut != PIXELS:
        return build_top(backbone, head, cut)
    views, seed = config.fine_tuning_views, config.seed + 1000 * first_pass
    augmented = dataclasses.replace(config, views=views, seed=seed)
    return build_trainer(augmented, backbone, head, training=False)


def compile_fine_tuner(trainer: keras.Model, config: Config, steps: int) -> None:
    """Give the model its loss and an optimizer whose rate rises, then falls along a cosine.

    Args:
        trainer: See `build_fine_tuner`.
        config: `fine_tuning_rate`, `fine_tuning_epochs` and `label_smoothing` are used.
        steps: Batches in a pass.
    """
    total = steps * config.fine_tuning_epochs
    warm_up = max(1, round(_WARM_UP * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total - warm_up),
        warmup_target=config.fine_tuning_rate,
        warmup_steps=warm_up,
    )
    trainer.compile(
        optimizer=keras.optimizers.Adam(rate),  # type: ignore[arg-type]
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        metrics=["accuracy"],
    )
    optimizer: Any = trainer.optimizer
    optimizer.build(trainer.trainable_variables)  # So that its state can be loaded.


def tuning_batches(config: Config, material: Material, first_pass: int = 0) -> tuple[Any, Any]:
    """Return the datasets for training and validation: maps, or pixels; missing maps are made."""
    prepared, cut = material.prepared, chosen_cut(config)
    classes, size = len(prepared.labels), config.batch_size
    if cut == PIXELS:
        pixels = (config.image_size, size)
        keras.utils.set_random_seed(config.seed + first_pass)  # Decides the order, too.
        train = load_split(prepared, "train", *pixels, seed=config.seed + first_pass)
        validation = load_split(prepared, "validation", *pixels)
    else:
        _, store = material.frozen()
        views = [store.maps("train", view, cut) for view in range(config.fine_tuning_views + 1)]
        numbers = class_numbers(prepared, "train")
        train = feature_batches(views, numbers, size, config.seed, first_pass)
        held_out = [store.maps("validation", 0, cut)]
        validation = feature_batches(held_out, class_numbers(prepared, "validation"), size)
    return one_hot(train, classes), one_hot(validation, classes)


def _state_file(config: Config, material: Material, cache: Path) -> Path:
    """Return where the state of exactly this training is kept."""
    cut = chosen_cut(config)
    _, store = material.frozen()
    views = [("train", view) for view in range(config.fine_tuning_views + 1)]
    facts = {
        # Decides the head, too. Where photos and weights lie does not matter; what they are does.
        "config": dataclasses.asdict(config) | {"cut": cut, "data": "", "weights": ""},
        "labels": material.prepared.labels,
        "features": [store.key(*which, cut) for which in [*views, ("validation", 0)]],
        "classes": [
            class_numbers(material.prepared, split).tolist() for split in ("train", "validation")
        ],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    return cache / "fine-tuning-1" / f"{key}.weights.h5"


def _finished_rows(state: Path) -> list[dict[str, float]]:
    """Return the rows of the passes that an earlier run had finished."""
    if not state.exists():
        return []
    try:
        with h5py.File(state) as file:
            return json.loads(str(file.attrs["history"]))
    except (OSError, LookupError, ValueError) as error:
        raise InputError(f"{state} is damaged: {error}. Delete it to start anew.") from error


class _Passes(keras.callbacks.Callback):
    """Notes, shows and keeps each pass; stops where a loss is not a number."""

    def __init__(self, rows: list[dict[str, float]], state: Path, passes: int) -> None:
        super().__init__()
        self._rows = rows
        self._state = state
        self._passes = passes
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
                f"validation {row['val_loss']}. Try a smaller `--fine-tuning-rate`."
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
        """Save weights, the optimizer's state and the history as one file, whole or not at all."""
        model: Any = self.model
        with whole_file(self._state) as unfinished:
            model.save_weights(unfinished)
            with h5py.File(unfinished, "a") as file:
                file.attrs["history"] = json.dumps(self._rows)
