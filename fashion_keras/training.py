"""Compiles and fits: the head on vectors, or backbone and head together on pixels."""

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import keras

from fashion_keras.backbone import build_backbone
from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.data.prepare import Prepared
from fashion_keras.devices import shared
from fashion_keras.features import FeatureStore
from fashion_keras.files import one_at_a_time
from fashion_keras.memory import new_backbone_in_parts
from fashion_keras.model import build_head, build_trainer
from fashion_keras.optimizer import average_momentum, compile_model
from fashion_keras.stopwatch import spent, stage
from fashion_keras.training_state import Keeper, Rows, State, show_rows

# With smoothed labels and averaged weights the loss tells the best epoch better than accuracy,
# which moves in steps of a photo (cross-validation over 3409 photos: 0.884 against 0.881).
MONITOR = "val_loss"
_STEPS_IN_ONE_CALL = 32  # A step on vectors is so short that calling it costs as much as doing it.

# Who looks on while a stage (`head 1`, `fine-tuning`) is trained: its name to Keras' callbacks.
Watch = Callable[[str], Sequence[keras.callbacks.Callback]]


class Material(NamedTuple):
    """What models are trained from.

    Attributes:
        prepared: The data set.
        backbone: The frozen backbone, or None if each model trains one of its own.
        store: The vectors of `prepared` through `backbone`; None without a frozen backbone.
    """

    prepared: Prepared
    backbone: keras.Model | None
    store: FeatureStore | None

    def frozen(self) -> tuple[keras.Model, FeatureStore]:
        """Return backbone and store where there are any.

        Raises:
            ValueError: If each model trains a backbone of its own.
        """
        if self.backbone is None or self.store is None:
            raise ValueError("Expected a frozen backbone. Received: one that starts from nothing.")
        return self.backbone, self.store


class Parts(NamedTuple):
    """A model in training: `model` is what is fitted; it holds `head`, perhaps `backbone`."""

    model: keras.Model
    head: keras.Model
    backbone: keras.Model


class Trained(NamedTuple):
    """A model after training, with the weights of its best epoch.

    Attributes:
        parts: The model.
        history: One row an epoch: epoch, loss, accuracy, val_loss, val_accuracy, seconds.
        best: The row of the best epoch.
    """

    parts: Parts
    history: list[dict[str, float]]
    best: dict[str, float]


@stage("weights")
def open_material(config: Config, prepared: Prepared, cache: Path) -> Material:
    """Build the backbone and open the vectors that belong to it; nothing is computed yet.

    Raises:
        InputError: If the weights cannot be had (see `backbone.build_backbone`).
    """
    if config.weights == "none":
        return Material(prepared, None, None)
    backbone = build_backbone(config.weights)
    return Material(prepared, backbone, FeatureStore(prepared, config, backbone, cache))


def build_parts(config: Config, material: Material, pieces: int = 1) -> Parts:
    """Return a compiled model, freshly initialised from `config.seed`, for batches in pieces."""
    keras.utils.set_random_seed(config.seed)
    head = build_head(config, len(material.prepared.labels))
    if material.backbone is not None:
        steps = -(-len(material.prepared.split("train")) // config.batch_size)
        compile_model(head, config, _STEPS_IN_ONE_CALL, average_momentum(config, steps))
        return Parts(head, head, material.backbone)
    backbone = build_backbone("none")
    trainer = build_trainer(config, backbone, head)
    # No average: batch normalisation keeps statistics of the weights as they are, not averaged.
    compile_model(trainer, config, parts=pieces)
    return Parts(trainer, head, backbone)


def training_batches(config: Config, material: Material, first_pass: int = 0) -> tuple[Any, Any]:
    """Return the datasets for training and validation: vectors, or pixels without a store.

    Vectors that are not on disk yet are computed now. After `first_pass` passes that were made
    before, vectors come in the order in which they would have gone on, pixels in another one.
    """
    prepared, classes = material.prepared, len(material.prepared.labels)
    if material.store is None:
        size = (config.image_size, config.batch_size)
        train = load_split(prepared, "train", *size, seed=config.seed + first_pass)
        validation = load_split(prepared, "validation", *size)
    else:
        augmented_copies = [
            material.store.vectors("train", view) for view in range(config.augmented_copies + 1)
        ]
        numbers = class_numbers(prepared, "train")
        train = feature_batches(
            augmented_copies, numbers, config.batch_size, config.seed, first_pass
        )
        held_out = material.store.vectors("validation")
        validation = feature_batches([held_out], class_numbers(prepared, "validation"), 1024)
    return one_hot(train, classes), one_hot(validation, classes)


@spent("head")
def train(
    config: Config,
    material: Material,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    file: Path | None = None,
) -> Trained:
    """Train one model until its validation loss stops falling; keep its best epoch.

    Each improved epoch is saved beside, so that the weights of the best one come back at the
    end, however many epochs follow it.

    Args:
        config: All knobs.
        material: See `open_material`.
        callbacks: Look on; they are called after each epoch, first for those of an earlier run.
        file: Where the state is kept, every few seconds and at the end (see `training_state`): a
            training on vectors that was stopped goes on from there to the same weights, to the
            last bit; on pixels in another order of photos.
    """
    with one_at_a_time(file.with_suffix(".lock"), "this training") if file else nullcontext():
        if material.backbone is not None:  # Vectors are small.
            return _trained(config, material, callbacks, 1, State(file))
        return new_backbone_in_parts(
            lambda pieces: _trained(config, material, callbacks, pieces, State(file)), config
        )


def _trained(
    config: Config,
    material: Material,
    callbacks: Sequence[keras.callbacks.Callback],
    pieces: int,
    state: State,
) -> Trained:
    if state.rows:
        told = "a finished training" if state.finished else "a training, which goes on after them"
        print(f"found {len(state.rows)} epochs of {told}", flush=True)
    show_rows(state.rows, callbacks)
    parts = build_parts(config, material, pieces)
    if state.finished:
        parts.model.set_weights(state.best_weights())
        rows = state.rows
    else:
        rows = _fit(parts, config, material, callbacks, pieces, state)
        state.finish(parts.model.get_weights(), rows)
    return Trained(parts, rows, min(rows, key=lambda row: row[MONITOR]))


def _fit(
    parts: Parts,
    config: Config,
    material: Material,
    callbacks: Sequence[keras.callbacks.Callback],
    pieces: int,
    state: State,
) -> Rows:
    """Train a model from where its state is, and give it the weights of its best epoch."""
    done = len(state.rows)
    # All is read before the first draw, or the order would depend on how the vectors came about.
    batches = (shared(one, pieces) for one in training_batches(config, material, done))
    train, validation = batches
    model: Any = parts.model
    with tempfile.TemporaryDirectory(prefix="fashion_keras-") as folder:
        best = Path(folder) / "best.weights.h5"
        if done:
            state.restore(model, best, pieces)
        checkpoint = keras.callbacks.ModelCheckpoint(
            best, monitor=MONITOR, save_best_only=True, save_weights_only=True
        )
        stopping = keras.callbacks.EarlyStopping(MONITOR, patience=config.patience)
        keeper = Keeper(state, checkpoint, stopping, pieces)
        model.fit(
            train,
            validation_data=validation,
            initial_epoch=done,
            epochs=config.epochs,
            shuffle=False,  # The batches are shuffled already.
            # Epochs on vectors are too short to be shown, those on photos too long not to be.
            verbose=0 if material.store else 2,  # type: ignore[arg-type]
            callbacks=[*_averaging(model), checkpoint, stopping, keeper, *callbacks],
        )
        model.load_weights(best)
    return keeper.rows


def training_key(knobs: dict[str, Any], features: Sequence[str], prepared: Prepared) -> str:
    """Hash all that decides what a training gives.

    Args:
        knobs: Those of `Config` that count.
        features: Keys of what it is trained and judged on (see `FeatureStore.key`).
        prepared: The data set.
    """
    facts = {
        "config": knobs,
        "labels": prepared.labels,
        "features": features,
        "classes": [class_numbers(prepared, split).tolist() for split in ("train", "validation")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def _averaging(model: Any) -> list[keras.callbacks.Callback]:
    """Put averaged weights, if there are any, into the model for validation and saving."""
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if model.optimizer.use_ema else []


def unwatched(stage: str) -> Sequence[keras.callbacks.Callback]:
    """Return the callbacks of a stage that nobody looks at."""
    return ()


def write_history(rows: list[dict[str, Any]], file: Path) -> None:
    """Write one row an epoch as CSV."""
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
