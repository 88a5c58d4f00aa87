"""Choices of fine-tuning, from feature maps of the training photos."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, one_hot
from fashion_keras.data.prepare import prepare
from fashion_keras.fine_tuning import build_trainee, compile_trainee, learning_rates
from fashion_keras.training import open_datasets, steps_per_epoch
from tests.benchmarks.ablation_heads import HEAD, softmax, train_heads
from tests.benchmarks.folds import CrossValidate, Row, Scores

BASE: dict[str, Any] = {
    "fine_tune_from": "block13",
    "fine_tuning_copies": 1,
    "fine_tuning_epochs": 6,
    "fine_tuning_learning_rate": 0.0003,
    **HEAD,
}
# Fields of `Config`, or an `extra` that the product does not offer.
CHOICES: dict[str, dict[str, Any]] = {
    "from block 13, K = 1, six epochs, rate 0.0003": {},
    "not at all (heads on frozen features)": {"fine_tuning_epochs": 0},
    "from block 14": {"fine_tune_from": "block14"},
    "from block 11": {"fine_tune_from": "block11"},
    "rate 0.0001": {"fine_tuning_learning_rate": 0.0001},
    "rate 0.001": {"fine_tuning_learning_rate": 0.001},
    "K = 0": {"fine_tuning_copies": 0},
    "K = 3": {"fine_tuning_copies": 3},
    "twelve epochs": {"fine_tuning_epochs": 12},
    "no label smoothing": {"label_smoothing": 0.0},
    "no inner layer in the head": {"inner_size": 0},
    "mean of three heads": {"extra": "three"},
    "average of weights over the last two epochs": {"extra": "average"},
    "weight decay 0.05": {"extra": "decay"},
    "mixup 0.2 of feature maps": {"extra": "mixup"},
}


def rows(base: Config, cache: Path, validate: CrossValidate) -> Iterator[Row]:
    """Yield one row a choice; each fold begins with the same backbone."""
    base = dataclasses.replace(base, **BASE)
    prepared = prepare(base.data, cache, base.split_seed)
    datasets = open_datasets(base, prepared, cache)
    numbers = class_numbers(prepared, "train")
    classes = len(prepared.labels)
    features = [np.array(datasets.store.features("train", copy)) for copy in range(2)]

    def measure(extra: str = "", **changes: Any) -> Scores:
        changed = dataclasses.replace(base, **changes)
        maps = [
            datasets.store.feature_maps("train", copy, changed.fine_tune_from)
            for copy in range(changed.fine_tuning_copies + 1)
        ]

        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            config = dataclasses.replace(changed, seed=100 * seed)
            used, count = [copy[train] for copy in features], 3 if extra == "three" else 1
            head = train_heads(config, used, numbers[train], count)
            if not config.fine_tuning_epochs:
                return softmax(head.predict_on_batch(features[0][rows]))
            trainer, *_ = build_trainee(config, datasets, head)
            batches = feature_batches(
                [copy[train] for copy in maps], numbers[train], config.batch_size, config.seed
            )
            fine_tune(config, trainer, one_hot(batches, classes), len(train), extra)
            held_out = feature_batches([maps[0][rows]], numbers[rows], 64)
            return softmax(trainer.predict(one_hot(held_out, classes), verbose=0))

        return validate(numbers, predict)

    for choice, changes in CHOICES.items():
        yield choice, functools.partial(measure, **changes)


def fine_tune(config: Config, trainer: Any, batches: Any, photos: int, extra: str) -> None:
    """Fit the model from feature maps to logits, perhaps with something extra."""
    compile_trainee(trainer, config, learning_rates(config, photos))
    steps = steps_per_epoch(config, photos)
    changes = {
        "average": {"use_ema": True, "ema_momentum": 1 - 1 / (2 * steps)},
        "decay": {"weight_decay": 0.05},
    }
    if extra in changes:
        settings = trainer.optimizer.get_config() | changes[extra]
        optimizer = type(trainer.optimizer).from_config(settings)
        trainer.compile(optimizer, trainer.loss, metrics=["accuracy"])
    if extra == "mixup":
        batches = batches.map(mixed)
    epochs = config.fine_tuning_epochs
    trainer.fit(batches, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0)


def mixed(maps: Any, labels: Any) -> tuple[Any, Any]:
    """Mix each photo of a batch with another one: they come in random order already."""
    shape: Any = keras.ops.shape(labels)
    share: Any = keras.random.beta((shape[0], 1), 0.2, 0.2)
    wide = share[:, :, None, None]
    return maps * wide + maps[::-1] * (1 - wide), labels * share + labels[::-1] * (1 - share)
