"""Choices of fine-tuning, from feature maps of the training photos."""

import dataclasses
import functools
import gc
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from fashion_keras.config import Config
from fashion_keras.data.batches import class_numbers, feature_batches, one_hot
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.fine_tuning import build_trainee, compile_trainee, learning_rates
from fashion_keras.model import build_augmentation, build_head
from fashion_keras.training import Datasets, open_datasets, steps_per_epoch
from tests.benchmarks.ablation_heads import HEAD, softmax, train_heads
from tests.benchmarks.ablation_photos import changed
from tests.benchmarks.folds import CrossValidate, Row, Scores

BASE: dict[str, Any] = {
    "fine_tune_from": "block5",
    "fine_tuning_copies": 2,
    "fine_tuning_epochs": 4,
    "fine_tuning_learning_rate": 0.001,
    **HEAD,
}
_SIX_SLOW = {"fine_tuning_epochs": 6, "fine_tuning_learning_rate": 0.0003}
# Fields of `Config`, an `extra` of training, or `layers` of augmentation, after the others.
CHOICES: dict[str, dict[str, Any]] = {
    "from block 5, K = 2, four epochs, rate 0.001": {},
    "not at all (the head on frozen features)": {"fine_tuning_epochs": 0},
    "six epochs": {"fine_tuning_epochs": 6},
    "rate 0.0003": {"fine_tuning_learning_rate": 0.0003},
    "rate 0.002": {"fine_tuning_learning_rate": 0.002},
    "six epochs, rate 0.0003": _SIX_SLOW,
    "six epochs, rate 0.0003, from block 8": {"fine_tune_from": "block8", **_SIX_SLOW},
    "six epochs, rate 0.0003, from block 11": {"fine_tune_from": "block11", **_SIX_SLOW},
    "average of weights over the last two epochs": {"extra": "average"},
    "no label smoothing": {"label_smoothing": 0.0},
    "mixup 0.2 of feature maps": {"extra": "mixup"},
    "weight decay 0.05": {"extra": "decay"},
    "K = 4": {"fine_tuning_copies": 4},
    "K = 0": {"fine_tuning_copies": 0},
    "rate halved from block to block, downwards": {"extra": "lower rates"},
    "constant rate after warm-up, average of weights": {"extra": "constant average"},
    "half as strong: rotation 0.015, zoom 0.05": {"rotation": 0.015, "zoom": 0.05},
    "twice as strong: rotation 0.06, zoom 0.2": {"rotation": 0.06, "zoom": 0.2},
    "for the next three: no other layer": {"layers": ("RandomTranslation", (0.0, 0.0))},
    "translation 0.1, too": {"layers": ("RandomTranslation", (0.1, 0.1))},
    "brightness 0.2, too": {"layers": ("RandomBrightness", (0.2,))},
    "contrast 0.2, too": {"layers": ("RandomContrast", (0.2,))},
}


def rows(base: Config, cache: Path, validate: CrossValidate) -> Iterator[Row]:
    """Yield one row a choice; each fold begins with the same backbone."""
    base = dataclasses.replace(base, **BASE)
    prepared = prepare(base, cache)
    datasets = open_datasets(base, prepared, cache)
    numbers = class_numbers(prepared, "train")
    classes = len(prepared.labels)
    features = [np.array(datasets.store.features("train", copy)) for copy in range(2)]

    def measure(extra: str = "", layers: tuple = (), **changes: Any) -> Scores:
        whole = dataclasses.replace(base, **changes)

        def predict(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
            gc.collect()  # Earlier models are freed by nothing else.
            config = dataclasses.replace(whole, seed=100 * seed)
            compiled = train_heads(config, [copy[train] for copy in features], numbers[train])
            head: Any = build_head(config, classes)  # Compiled models cannot be copied.
            head.set_weights(compiled.get_weights())
            if not config.fine_tuning_epochs:
                return softmax(head.predict_on_batch(features[0][rows]))
            trainer, *_ = build_trainee(config, datasets, head)
            batches = feature_batches(
                [copy[train] for copy in maps], numbers[train], config.batch_size, config.seed
            )
            fine_tune(config, trainer, one_hot(batches, classes), len(train), extra)
            held_out = feature_batches([maps[0][rows]], numbers[rows], 64)
            return softmax(trainer.predict(one_hot(held_out, classes), verbose=0))

        with ExitStack() as stack:
            maps = feature_maps(whole, datasets, layers, cache, stack)
            return validate(numbers, predict)

    for choice, changes in CHOICES.items():
        yield choice, functools.partial(measure, **changes)


def feature_maps(
    config: Config, datasets: Datasets, layers: tuple, cache: Path, stack: ExitStack
) -> list[Any]:
    """Return the feature maps of the training photos, then of their augmented copies."""
    block, copies = config.fine_tune_from, range(1, config.fine_tuning_copies + 1)
    store = open_datasets(config, datasets.prepared, cache).store  # Of this augmentation.
    found = [store.feature_maps("train", 0, block)]
    if not config.fine_tuning_epochs:
        return found
    if not layers:
        return [*found, *(store.feature_maps("train", copy, block) for copy in copies)]
    for copy in copies:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        others = augmented(datasets.prepared, layers, config, copy, folder)
        found.append(others.store.feature_maps("train", 0, block))
    return found


def augmented(
    prepared: Prepared, layers: tuple, config: Config, copy: int, folder: Path
) -> Datasets:
    """Return augmented copies, made by the product's layers and another one of Keras."""
    name, arguments = layers
    usual = build_augmentation(config, copy)
    another = getattr(keras.layers, name)(*arguments, seed=copy)

    def change(photo: Image.Image, size: int) -> Image.Image:
        pixels = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR), "float32")
        found = another(usual(pixels[None], training=True), training=True)
        return Image.fromarray(np.clip(np.rint(np.asarray(found)[0]), 0, 255).astype("uint8"))

    return changed(prepared, change, config, folder)


def fine_tune(config: Config, trainer: Any, batches: Any, photos: int, extra: str) -> None:
    """Fit the model from feature maps to logits, perhaps with something extra."""
    compile_trainee(trainer, config, learning_rates(config, photos))
    steps, epochs = steps_per_epoch(config, photos), config.fine_tuning_epochs
    for word, change in EXTRAS.items():
        if word in extra:
            trainer.compile(change(trainer, config, steps), trainer.loss)
    if extra == "mixup":
        batches = batches.map(mixed)
    trainer.fit(batches, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0)


def changed_optimizer(trainer: Any, **changes: Any) -> Any:
    """Return an optimizer that is like that of a model but for some settings."""
    settings = trainer.optimizer.get_config() | changes
    return type(trainer.optimizer).from_config(settings)


def constant_rate(trainer: Any, config: Config, steps: int) -> Any:
    """Return an optimizer whose rate rises for half an epoch and stays."""
    rate: Any = keras.optimizers.schedules.CosineDecay(
        0.0,
        10**9,
        warmup_target=config.fine_tuning_learning_rate,
        warmup_steps=steps // 2,
    )
    return keras.optimizers.Adam(rate)


class LowerRates(keras.optimizers.Adam):
    """Adam with a rate that is halved from block to block of Xception, from the last one down."""

    def build(self, var_list: Any) -> None:
        """Note the share of the rate for each variable: that of the last block named before it."""
        super().build(var_list)
        named, self._shares = 14, []
        for variable in var_list:
            found = re.search(r"block(\d+)", variable.path)  # Shortcuts have no name of a block.
            named = int(found[1]) if found else named
            self._shares.append(0.5 ** (14 - named))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable."""
        share = self._shares[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)


EXTRAS: dict[str, Callable[[Any, Config, int], Any]] = {  # In this order.
    "constant": constant_rate,
    "average": lambda trainer, config, steps: changed_optimizer(
        trainer, use_ema=True, ema_momentum=1 - 1 / (2 * steps)
    ),
    "decay": lambda trainer, config, steps: changed_optimizer(trainer, weight_decay=0.05),
    "lower rates": lambda trainer, config, steps: LowerRates(learning_rates_of(trainer)),
}


def learning_rates_of(trainer: Any) -> Any:
    """Return the schedule of the optimizer of a model."""
    return trainer.optimizer._learning_rate


def mixed(maps: Any, labels: Any) -> tuple[Any, Any]:
    """Mix each photo of a batch with another one: they come in random order already."""
    shape: Any = keras.ops.shape(labels)
    share: Any = keras.random.beta((shape[0], 1), 0.2, 0.2)
    wide = share[:, :, None, None]
    return maps * wide + maps[::-1] * (1 - wide), labels * share + labels[::-1] * (1 - share)
