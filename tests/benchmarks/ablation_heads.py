"""Choices of the head, on vectors of the training photos."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, one_hot
from fashion_keras.data.prepare import prepare
from fashion_keras.model import FEATURES, build_head
from fashion_keras.training import compile_model, open_datasets
from tests.benchmarks.folds import Measure, cross_validate

EPOCHS = 15  # No early stopping: every choice gets the same training.
VIEWS = 4
SILENT: Any = 0  # Keras declares text; the text "0" is loud.
HEAD = {"inner_size": 167, "droprate": 0.317, "learning_rate": 0.00143}  # The search's winner.


def compiled_head(config: Config, classes: int, steps: float) -> Any:
    """Return a compiled head whose weights are averaged over `config.ema_epochs`."""
    momentum = max(1 - 1 / (config.ema_epochs * steps), 0.0) if config.ema_epochs else 0.0
    average: dict[str, Any] = {"use_ema": momentum > 0, "ema_momentum": momentum}
    head = build_head(config, classes)
    optimizer = keras.optimizers.Adam(config.learning_rate, **average)
    compile_model(head, optimizer, config, steps_per_execution=16)
    return head


def average_heads(heads: Sequence[keras.Model]) -> keras.Model:
    """Return one head that gives the mean of the logits of several."""
    inputs = keras.Input((FEATURES,))
    for number, head in enumerate(heads, start=1):
        head.name = f"head_{number}"  # Layers of one model need different names.
    return keras.Model(inputs, keras.layers.Average()([head(inputs) for head in heads]))


def train_heads(
    config: Config,
    augmented_copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    weights: Any = None,
    count: int = 1,
) -> keras.Model:
    """Train so many heads on features and return their mean."""
    classes = int(numbers.max()) + 1
    heads = []
    for seed in range(config.seed, config.seed + count):
        keras.utils.set_random_seed(seed)
        head = compiled_head(config, classes, math.ceil(len(numbers) / config.batch_size))
        batches = one_hot(
            feature_batches(augmented_copies, numbers, config.batch_size, seed), classes
        )
        if weights is not None:
            batches = batches.map(lambda x, y: (x, y, keras.ops.sum(y * weights, axis=-1)))
        # At the end of `fit` the averaged weights, if there are any, take the place of the others.
        head.fit(batches, epochs=config.epochs, shuffle=False, verbose=SILENT)
        heads.append(head)
    return average_heads(heads) if len(heads) > 1 else heads[0]


def softmax(logits: Any) -> np.ndarray:
    """Return probabilities for logits."""
    return np.asarray(keras.ops.softmax(logits))


def measure(
    config: Config,
    augmented_copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    seeds: int,
    folds: int,
    balanced: bool = False,
    heads: int = 1,
) -> dict[str, list[float]]:
    """Cross-validate heads on the first `config.copies` augmented copies."""

    def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        used = [view[train] for view in augmented_copies[: config.augmented_copies + 1]]
        counts = np.bincount(numbers[train])
        weights = (counts.mean() / counts).astype("float32") if balanced else None
        seeded = dataclasses.replace(config, seed=100 * seed)
        head = train_heads(seeded, used, numbers[train], weights, heads)
        return softmax(head.predict_on_batch(augmented_copies[0][rows]))

    return cross_validate(numbers, seeds, folds, predict)


def rows(base: Config, cache: Path, seeds: int, folds: int) -> Iterator[tuple[str, Measure]]:
    """Yield one row a choice."""
    prepared = prepare(base.data, cache, base.split_seed)
    store = open_datasets(base, prepared, cache).store
    numbers = class_numbers(prepared, "train")
    augmented_copies = [np.array(store.features("train", view)) for view in range(VIEWS + 1)]
    config = dataclasses.replace(base, epochs=EPOCHS, **HEAD)
    choices: dict[str, dict[str, Any]] = {
        "the search's winner, one head, K = 1": {},
        "no augmented view (K = 0)": {"augmented_copies": 0},
        "K = 2": {"augmented_copies": 2},
        "K = 4": {"augmented_copies": 4},
        "no inner layer": {"inner_size": 0},
        "the course's head (inner 100, droprate 0.2, rate 0.0005)": {
            "inner_size": 100,
            "droprate": 0.2,
            "learning_rate": 0.0005,
        },
        "no label smoothing": {"label_smoothing": 0.0},
        "no average of weights": {"ema_epochs": 0.0},
    }
    for name, knobs in choices.items():
        changed = dataclasses.replace(config, **knobs)
        yield name, functools.partial(measure, changed, augmented_copies, numbers, seeds, folds)
    common = functools.partial(measure, config, augmented_copies, numbers, seeds, folds)
    yield "mean of three heads", functools.partial(common, heads=3)
    yield "class weights", functools.partial(common, balanced=True)
    yield from kept_epochs(config, augmented_copies, numbers, seeds, folds)


def log_loss(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Return the mean negative logarithm of the probabilities of the true classes."""
    return float(-np.log(probabilities[np.arange(len(true)), true] + 1e-9).mean())


def share_wrong(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Return the share of photos whose most probable class is not the true one."""
    return float((probabilities.argmax(axis=1) != true).mean())


class _Epochs(keras.callbacks.Callback):
    """Notes after each epoch what it says about the photos that choose and those that score."""

    def __init__(self, choosing: np.ndarray, scoring: np.ndarray) -> None:
        super().__init__()
        self._parts = (choosing, scoring)
        self.found: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Predict both parts with the averaged weights (see `SwapEMAWeights`)."""
        model: Any = self.model
        self.found.append([softmax(model.predict_on_batch(part)) for part in self._parts])


def kept_epochs(
    config: Config,
    augmented_copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    seeds: int,
    folds: int,
) -> Iterator[tuple[str, Measure]]:
    """Yield one row for each way to choose the epoch, a sixth of the photos choosing it.

    The ways look at the same trainings, one for each seed and fold.
    """
    trained: dict[tuple[int, bytes], list[list[np.ndarray]]] = {}
    costs: dict[str, Callable[[np.ndarray, np.ndarray], float] | None] = {
        "a sixth of the photos held back; last of 15 epochs": None,
        "a sixth held back to choose the epoch by loss (val_loss)": log_loss,
        "a sixth held back to choose the epoch by accuracy (val_accuracy)": share_wrong,
    }
    for name, cost in costs.items():

        def predict(train: np.ndarray, rows: np.ndarray, seed: int, cost: Any = cost) -> np.ndarray:
            order = np.random.default_rng(seed).permutation(train)
            choosing, learning = order[: len(order) // 6], order[len(order) // 6 :]
            fold = (seed, rows.tobytes())
            if fold not in trained:
                watch = _Epochs(augmented_copies[0][choosing], augmented_copies[0][rows])
                used = [view[learning] for view in augmented_copies[:2]]
                _train_watched(config, used, numbers[learning], seed, watch)
                trained[fold] = watch.found
            epochs = trained[fold]
            if cost is None:
                return epochs[-1][1]
            best = np.argmin([cost(chosen, numbers[choosing]) for chosen, _ in epochs])
            return epochs[best][1]

        yield name, functools.partial(cross_validate, numbers, seeds, folds, predict)


def _train_watched(
    config: Config,
    augmented_copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    seed: int,
    watch: _Epochs,
) -> None:
    """Train one head while `watch` looks at it after each epoch."""
    keras.utils.set_random_seed(100 * seed)
    classes = int(numbers.max()) + 1
    # Steps are not rounded up here: the published rows were measured like that.
    head = compiled_head(config, classes, len(numbers) / config.batch_size)
    batches = feature_batches(augmented_copies, numbers, config.batch_size, seed)
    head.fit(
        one_hot(batches, classes),
        epochs=config.epochs,
        shuffle=False,
        verbose=SILENT,
        callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True), watch],
    )
