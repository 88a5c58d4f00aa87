"""Trains the top of the backbone further, together with the head that was trained before.

First the head alone, then both (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"):
a trained head does not distort the features of the backbone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras import model as models
from fashion_keras.artifacts import fingerprint, one_at_a_time, whole_file
from fashion_keras.backend import all_cards, keras
from fashion_keras.cli import duration, memory_advice, stage
from fashion_keras.config import Config, InputError, deciding
from fashion_keras.data.batches import (
    class_numbers,
    class_weights,
    divisible,
    feature_batches,
    load_split,
    one_hot,
)
from fashion_keras.features import training_arrays
from fashion_keras.model import (
    chosen_fine_tune_from,
    copied,
    precision_in_force,
    tunes_on_pixels,
)
from fashion_keras.training import (
    MONITOR,
    Datasets,
    History,
    Recorder,
    TrainedHead,
    compile_model,
    labels_key,
    read_state,
    restore,
    show_epochs,
    state_of,
    steps_per_epoch,
    write_state,
)

STAGE = "fine-tuning"  # Name of its rows in a history.
_WARM_UP = 0.1  # Share of all steps in which the learning rate rises.
_LAYOUT = 2  # Raise it when epochs of older versions must not be used any more.


class FineTuned(NamedTuple):
    """New models after the best epoch, one row an epoch, and the best one's validation.

    The best epoch has the lowest loss on validation; `validation` has its `loss` and `accuracy`.
    """

    backbone: keras.Model
    head: keras.Model
    history: History
    validation: dict[str, float]


def build_trainee(
    config: Config, datasets: Datasets, head: keras.Model, first_epoch: int = 0
) -> tuple[Any, keras.Model, keras.Model]:
    """Return a model from feature maps or pixels to logits, not compiled, and its two parts.

    They are copies of the backbone and of a trained head. After `first_epoch` epochs other random
    draws follow.
    """
    keras.utils.set_random_seed(config.seed + first_epoch)
    block = chosen_fine_tune_from(config)
    # The head stays float32: it is a thousandth of the work.
    backbone = copied(datasets.backbone, precision_in_force(config.precision))
    head = copied(head)
    models.unfreeze(backbone, block)
    if not tunes_on_pixels(config):
        return models.build_top(backbone, head, block), backbone, head
    seed = config.augmentation_seed + 1000 * first_epoch if config.fine_tuning_copies else None
    return models.build_trainer(config, backbone, head, seed), backbone, head


def compile_trainee(
    model: keras.Model, config: Config, rate: Any, averaged_steps: float = 0.0
) -> None:
    """Compile a model for fine-tuning.

    Args:
        model: See `build_trainee`.
        config: The configuration.
        rate: Learning rate, a number or a schedule.
        averaged_steps: An exponential moving average of the weights is kept over about this many
            steps; 0 for none.
    """
    momentum = 1 - 1 / max(1.0, averaged_steps)
    optimizer: Any = keras.optimizers.Adam(rate, use_ema=momentum > 0, ema_momentum=momentum)
    if precision_in_force(config.precision) == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # Small gradients would be 0.
    # The loss depends on label smoothing; this does not, and compares configurations.
    log_loss = keras.metrics.CategoricalCrossentropy("log_loss", from_logits=True)
    compile_model(model, optimizer, config, metrics=[log_loss])


def learning_rates(config: Config, photos: int) -> Any:
    """Return the schedule for so many training photos: a rise, then a fall along a cosine."""
    total = config.fine_tuning_epochs * steps_per_epoch(config, photos)
    warm_up = max(1, round(_WARM_UP * total))
    rise = {"warmup_target": config.fine_tuning_learning_rate, "warmup_steps": warm_up}
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, total - warm_up), **rise)


def fine_tuning_datasets(
    config: Config, datasets: Datasets, first_epoch: int = 0
) -> tuple[Any, Any]:
    """Return batches and one-hot labels for training and validation: feature maps, or pixels.

    Missing feature maps are computed; only `FeatureStore.make_feature_maps` asks whether the disk
    has room for them. After `first_epoch` epochs feature maps come in the order in which they
    would have continued, pixels in another one.
    """
    prepared, store, block = datasets.prepared, datasets.store, chosen_fine_tune_from(config)
    size, seed, classes = config.batch_size, config.seed, len(prepared.labels)
    numbers = class_numbers(prepared, "train")
    if tunes_on_pixels(config):
        keras.utils.set_random_seed(seed + first_epoch)  # Decides the order, too.
        train = load_split(prepared, "train", config.image_size, size, seed + first_epoch)
        validation = load_split(prepared, "validation", config.image_size, size)
    else:
        arrays = training_arrays(config.fine_tuning_copies)
        store.make(arrays, block)
        *copies, held_out = (store.feature_maps(*array, block) for array in arrays)
        train = feature_batches(copies, numbers, size, seed, first_epoch)
        validation = feature_batches([held_out], class_numbers(prepared, "validation"), size)
    return one_hot(train, classes, class_weights(config, numbers)), one_hot(validation, classes)


def fine_tuning_key(config: Config, datasets: Datasets, head: keras.Model) -> str:
    """Return the key of all that decides a fine-tuning that starts from a trained head."""
    store, block = datasets.store, chosen_fine_tune_from(config)
    on_pixels = tunes_on_pixels(config)
    fields = deciding(config, "fine_tuning") | {
        "fine_tune_from": block,
        "fine_tune_on": on_pixels,
        "precision": precision_in_force(config.precision),
    }
    if on_pixels:
        augmented = bool(config.fine_tuning_copies)  # How many makes no difference.
        fields |= {"fine_tuning_copies": augmented}
        fields |= deciding(config, "copies") if augmented else {}
        features = [store.key("train"), store.key("validation")]
    else:
        features = [store.key(*one, block) for one in training_arrays(config.fine_tuning_copies)]
    return fingerprint(
        fields=fields,
        features=features,
        head=models.weights_digest(head),
        labels=labels_key(datasets.prepared),
        versions=models.versions(),
        layout=_LAYOUT,
    )


@stage(STAGE)
def fine_tune(
    config: Config,
    datasets: Datasets,
    trained: TrainedHead,
    cache: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuned:
    """Train the backbone from `config.fine_tune_from` on, and the head, for a number of epochs.

    The epoch with the lowest validation loss counts. Its state and the last one are kept: an
    interrupted run continues there and, on feature maps, on one kind of CPU, ends with the same
    weights to the last bit. Several graphics cards share each batch; they add up sums in another
    order each time. Missing feature maps are computed. Callbacks see the epochs of an earlier run
    first.

    Raises:
        InputError: If a loss is not a number any more, or memory does not suffice.
    """
    key = fine_tuning_key(config, datasets, trained.head)
    states = cache / "fine-tuning" / key  # The epoch and a suffix are added to this name.
    with one_at_a_time(states.with_suffix(".lock"), "this fine-tuning"), all_cards() as cards:
        fitted = _fit(config, datasets, trained.head, states, callbacks, cards)
    trained_backbone, head, history = fitted
    backbone = copied(datasets.backbone)  # It computes in float32 whatever the trained one did.
    backbone.set_weights(trained_backbone.get_weights())
    best = history[(epoch := _best_epoch(history)) - 1]
    print(
        f"epoch {epoch} of {len(history)} has the lowest validation loss, and is kept", flush=True
    )
    validation = {name: best[f"val_{name}"] for name in ("loss", "accuracy")}
    return FineTuned(backbone, copied(head), history, validation)


def _fit(
    config: Config,
    datasets: Datasets,
    head: keras.Model,
    states: Path,
    callbacks: Sequence[keras.callbacks.Callback],
    cards: int,
) -> tuple[keras.Model, keras.Model, History]:
    kept = _kept(states)
    state, history = read_state(kept[max(kept)]) if kept else ([], [])
    batches = fine_tuning_datasets(config, datasets, len(history))
    train, validation = (divisible(one, cards) for one in batches)
    model, backbone, head = build_trainee(config, datasets, head, len(history))
    photos = len(datasets.prepared.split("train"))
    compile_trainee(model, config, learning_rates(config, photos))
    if history:
        print(f"fine-tuning continues after epoch {len(history)}, found in the cache", flush=True)
        restore(model, state)
        show_epochs(history, model, callbacks)
    keeper = _Keeper(history, states)
    with memory_advice("--batch-size", config.batch_size):
        model.fit(
            train,
            validation_data=validation,
            steps_per_epoch=steps_per_epoch(config, photos),
            initial_epoch=len(history),
            epochs=config.fine_tuning_epochs,
            shuffle=False,  # The batches are shuffled already.
            verbose=1 if sys.stdout.isatty() else 0,
            callbacks=[keeper, *callbacks],
        )
    restore(model, read_state(_kept(states)[_best_epoch(keeper.history)])[0])
    return backbone, head, keeper.history


def _best_epoch(history: History) -> int:
    return int(min(history, key=lambda row: row[MONITOR])["epoch"])


def _kept(states: Path) -> dict[int, Path]:
    """Return the states that were kept, by epoch."""
    files = states.parent.glob(f"{states.name}-*.npz")
    return {int(file.stem.rpartition("-")[2]): file for file in files}


class _Keeper(Recorder):
    """Records, shows and keeps each epoch; stops where a loss is not a number."""

    def __init__(self, history: History, states: Path) -> None:
        super().__init__(history)
        self._states = states

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the epoch, keep its state, say how long the rest takes."""
        super().on_epoch_end(epoch, logs)
        row = self.history[-1]
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            raise InputError(
                f"Fine-tuning diverged in epoch {epoch + 1}: training loss {row['loss']}, "
                f"validation loss {row['val_loss']}. Try a smaller `--fine-tuning-learning-rate`."
            )
        with whole_file(Path(f"{self._states}-{epoch + 1:04d}.npz")) as unfinished:
            write_state(unfinished, state_of(self.model), self.history)
        for number, file in _kept(self._states).items():
            if number not in (epoch + 1, _best_epoch(self.history)):
                file.unlink()
        params: Any = self.params
        left = duration((params["epochs"] - epoch - 1) * row["seconds"])
        scores = f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
        done = f"epoch {epoch + 1} of {params['epochs']}, training loss {row['loss']:.4f}, {scores}"
        print(f"fine-tuning: {done}, {duration(row['seconds'])} an epoch, {left} left", flush=True)
