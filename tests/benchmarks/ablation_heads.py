"""Choices of the head, on features of the training photos."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, one_hot
from fashion_keras.data.prepare import prepare
from fashion_keras.training import build_compiled_head, open_datasets, steps_per_epoch
from tests.benchmarks.folds import CrossValidate, Row, Scores

# No early stopping: every choice gets the same training. Sizes and rate are the search's winner.
HEAD: dict[str, Any] = {
    "epochs": 15,
    "inner_size": 167,
    "droprate": 0.317,
    "learning_rate": 0.00143,
}
COPIES = 4
CHOICES: dict[str, dict[str, Any]] = {
    "the search's winner, one head, K = 1": {},
    "no augmented copy (K = 0)": {"augmented_copies": 0},
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
# The epoch with the lowest cost is kept; of its number, and of probabilities and true classes.
COSTS: dict[str, Callable[..., float]] = {
    "a sixth of the photos held back; last of 15 epochs": lambda epoch, found, true: -epoch,
    "a sixth held back to choose the epoch by loss (val_loss)": (
        lambda epoch, found, true: -np.log(found[np.arange(len(true)), true] + 1e-9).mean()
    ),
    "a sixth held back to choose the epoch by accuracy (val_accuracy)": (
        lambda epoch, found, true: (found.argmax(axis=1) != true).mean()
    ),
}


def train_heads(
    config: Config,
    copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    count: int = 1,
    weights: np.ndarray | None = None,
    watch: Callable[[Any], None] | None = None,
) -> Any:
    """Train heads on features and return one that gives the mean of their logits.

    Args:
        config: The configuration.
        copies: Features of the photos, then of augmented copies of them.
        numbers: Class number of each photo.
        count: Number of heads.
        weights: Of the classes in the loss.
        watch: Receives the head, with averaged weights, after each epoch.
    """
    classes, heads = int(numbers.max()) + 1, []
    for seed in range(config.seed, config.seed + count):
        seeded = dataclasses.replace(config, seed=seed)
        head = build_compiled_head(seeded, classes, len(numbers))
        batches = one_hot(feature_batches(copies, numbers, config.batch_size, seed), classes)
        if weights is not None:
            batches = batches.map(lambda x, y: (x, y, keras.ops.sum(y * weights, axis=-1)))
        callbacks = _showing(head, watch) if watch else []
        # At the end of `fit` the averaged weights, if there are any, take the place of the others.
        head.fit(
            batches,
            steps_per_epoch=steps_per_epoch(config, len(numbers)),
            epochs=config.epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        heads.append(head)
    if count == 1:
        return heads[0]
    inputs = keras.Input(heads[0].input_shape[1:])
    for number, head in enumerate(heads, start=1):
        head.name = f"head_{number}"  # Layers of one model need different names.
    return keras.Model(inputs, keras.layers.Average()([head(inputs) for head in heads]))


def _showing(head: Any, watch: Callable[[Any], None]) -> list[keras.callbacks.Callback]:
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: watch(head))
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), after]


def softmax(logits: Any) -> np.ndarray:
    """Return probabilities for logits."""
    return np.asarray(keras.ops.softmax(logits))


def rows(base: Config, cache: Path, validate: CrossValidate) -> Iterator[Row]:
    """Yield one row a choice."""
    prepared = prepare(base, cache)
    store = open_datasets(base, prepared, cache).store
    numbers = class_numbers(prepared, "train")
    copies = [np.array(store.features("train", copy)) for copy in range(COPIES + 1)]
    base = dataclasses.replace(base, **HEAD)

    def measure(changes: dict[str, Any], balanced: bool = False, count: int = 1) -> Scores:
        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            config = dataclasses.replace(base, seed=100 * seed, **changes)
            used = [copy[train] for copy in copies[: config.augmented_copies + 1]]
            counts = np.bincount(numbers[train])
            weights = (counts.mean() / counts).astype("float32") if balanced else None
            head = train_heads(config, used, numbers[train], count, weights)
            return softmax(head.predict_on_batch(copies[0][rows]))

        return validate(numbers, predict)

    for choice, changes in CHOICES.items():
        yield choice, functools.partial(measure, changes)
    yield "mean of three heads", functools.partial(measure, {}, count=3)
    yield "class weights", functools.partial(measure, {}, balanced=True)
    yield from kept_epochs(base, copies, numbers, validate)


def kept_epochs(
    base: Config, copies: Sequence[np.ndarray], numbers: np.ndarray, validate: CrossValidate
) -> Iterator[Row]:
    """Yield one row for each way to choose the epoch, a sixth of the photos choosing it."""
    # Of each seed and fold, after each epoch: the probabilities of the sixth, and of the fold.
    trained: dict[tuple[int, bytes], list[list[np.ndarray]]] = {}

    def measure(cost: Callable[..., float]) -> Scores:
        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            order = np.random.default_rng(seed).permutation(train)
            choosing, learning = np.split(order, [len(order) // 6])
            epochs = trained.setdefault((seed, rows.tobytes()), [])
            if not epochs:
                parts = copies[0][choosing], copies[0][rows]
                config = dataclasses.replace(base, seed=100 * seed)
                used = [copy[learning] for copy in copies[:2]]

                def watch(head: Any) -> None:
                    epochs.append([softmax(head.predict_on_batch(part)) for part in parts])

                train_heads(config, used, numbers[learning], watch=watch)
            true = numbers[choosing]
            costs = [cost(number, chosen, true) for number, (chosen, _) in enumerate(epochs)]
            return epochs[np.argmin(costs)][1]

        return validate(numbers, predict)

    for choice, cost in COSTS.items():
        yield choice, functools.partial(measure, cost)
