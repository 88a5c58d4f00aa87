"""Choices of fine-tuning, from maps of the training photos."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, one_hot
from fashion_keras.data.prepare import prepare
from fashion_keras.fine_tuning import build_trainee, compile_trainee, learning_rates
from fashion_keras.training import Datasets, open_datasets
from tests.benchmarks.ablation_heads import EPOCHS, HEAD, SILENT, softmax, train_heads
from tests.benchmarks.folds import Measure, cross_validate

# Choices that the product does not offer are made by `_extra` below.
CHOICES: dict[str, dict[str, Any]] = {
    "from block 13, K = 1, six passes, rate 0.0003": {},
    "not at all (heads on frozen vectors)": {"fine_tuning_epochs": 0},
    "from block 14": {"fine_tune_from": "block14"},
    "from block 11": {"fine_tune_from": "block11"},
    "rate 0.0001": {"fine_tuning_learning_rate": 0.0001},
    "rate 0.001": {"fine_tuning_learning_rate": 0.001},
    "K = 0": {"fine_tuning_copies": 0},
    "K = 3": {"fine_tuning_copies": 3},
    "twelve passes": {"fine_tuning_epochs": 12},
    "no label smoothing": {"label_smoothing": 0.0},
    "no inner layer in the head": {"inner_size": 0},
    "one head instead of three": {"extra": "one"},
    "average of weights over the last two passes": {"extra": "average"},
    "weight decay 0.05": {"extra": "decay"},
    "mixup 0.2 of maps": {"extra": "mixup"},
}


def rows(base: Config, cache: Path, seeds: int, folds: int) -> Iterator[tuple[str, Measure]]:
    """Yield one row a choice."""
    config = dataclasses.replace(
        base,
        fine_tune_from="block13",
        epochs=EPOCHS,
        fine_tuning_copies=1,
        fine_tuning_epochs=6,
        fine_tuning_learning_rate=0.0003,
        **HEAD,
    )
    prepared = prepare(base.data, cache, base.split_seed)
    datasets = open_datasets(config, prepared, cache)
    numbers = class_numbers(prepared, "train")
    for name, knobs in CHOICES.items():
        extra = knobs.get("extra", "")
        known = {knob: value for knob, value in knobs.items() if knob != "extra"}
        changed = dataclasses.replace(config, **known)
        yield name, functools.partial(measure, changed, datasets, numbers, seeds, folds, extra)


def measure(
    config: Config, datasets: Datasets, numbers: np.ndarray, seeds: int, folds: int, extra: str
) -> dict[str, list[float]]:
    """Cross-validate head and fine-tuning; each fold begins with the same backbone."""
    store = datasets.store
    maps = [
        store.feature_maps("train", view, config.fine_tune_from)
        for view in range(config.fine_tuning_copies + 1)
    ]
    vectors = [np.array(store.features("train", view)) for view in range(2)]  # Of the heads.

    def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        seeded = dataclasses.replace(config, seed=100 * seed)
        used, count = [view[train] for view in vectors], 1 if extra == "one" else 3
        head = train_heads(seeded, used, numbers[train], count=count)
        if not config.fine_tuning_epochs:
            return softmax(head.predict_on_batch(vectors[0][rows]))
        augmented_copies = [view[train] for view in maps]
        trainer = _tuned(seeded, datasets, head, augmented_copies, numbers[train], extra)
        held_out = feature_batches([maps[0][rows]], numbers[rows], 64)
        classes = int(numbers.max()) + 1
        return softmax(trainer.predict(one_hot(held_out, classes), verbose=SILENT))

    return cross_validate(numbers, seeds, folds, predict)


def _tuned(
    config: Config,
    datasets: Datasets,
    head: keras.Model,
    augmented_copies: Sequence[np.ndarray],
    numbers: np.ndarray,
    extra: str,
) -> keras.Model:
    """Fine-tune on maps and return the model from maps to logits."""
    trainer, *_ = build_trainee(config, datasets, head)
    compile_trainee(trainer, config, learning_rates(config, len(numbers)))
    classes = int(numbers.max()) + 1
    batches = one_hot(
        feature_batches(augmented_copies, numbers, config.batch_size, config.seed), classes
    )
    batches = _extra(extra, trainer, batches, math.ceil(len(numbers) / config.batch_size))
    trainer.fit(batches, epochs=config.fine_tuning_epochs, shuffle=False, verbose=SILENT)
    return trainer


def _extra(extra: str, trainer: keras.Model, batches: Any, steps: int) -> Any:
    """Change optimizer or batches in a way that the product does not offer."""
    changes = {"average": {"use_ema": True, "ema_momentum": 1 - 1 / (2 * steps)}}
    changes["decay"] = {"weight_decay": 0.05}
    if extra in changes:
        optimizer: Any = trainer.optimizer
        changed = type(optimizer).from_config(optimizer.get_config() | changes[extra])
        changed.build(trainer.trainable_variables)
        trainer.compile(changed, trainer.loss, metrics=["accuracy"])
    if extra != "mixup":
        return batches
    draws = np.random.default_rng(1).beta(0.2, 0.2, size=4096).astype("float32")

    def mixed(maps: Any, labels: Any) -> tuple[Any, Any]:
        shape: Any = keras.ops.shape(maps)
        picked: Any = keras.random.randint((shape[0],), 0, len(draws))
        share: Any = keras.ops.take(keras.ops.convert_to_tensor(draws), picked)
        wide: Any = keras.ops.reshape(share, (-1, 1, 1, 1))
        flat: Any = keras.ops.reshape(share, (-1, 1))
        others: Any = (maps[::-1], labels[::-1])  # The photos come in random order already.
        return maps * wide + others[0] * (1 - wide), labels * flat + others[1] * (1 - flat)

    return batches.map(mixed)
