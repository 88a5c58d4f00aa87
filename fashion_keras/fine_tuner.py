"""The model that is fine-tuned: where the backbone is cut, its optimizer, what it is fed with."""

import dataclasses
from typing import Any

import keras

from fashion_keras.backbone import BLOCKS, unfreeze
from fashion_keras.config import Config, InputError
from fashion_keras.data.batches import class_numbers, feature_batches, load_split, one_hot
from fashion_keras.devices import copied, precision_in_force
from fashion_keras.model import build_top, build_trainer
from fashion_keras.optimizer import adam
from fashion_keras.training import Material, Parts

PIXELS = "pixels"
_CPU_CUT = "block11"
_WARM_UP = 0.1  # Share of all steps in which the learning rate rises.


def check_fine_tune_from(config: Config) -> None:
    """Raise the error for a cut that does not exist, before anything slow is done.

    Raises:
        InputError: If `config.cut` is neither a block nor one of the words.
    """
    known = ("auto", PIXELS, *BLOCKS)
    if config.fine_tune_from not in known:
        raise InputError(
            f"`fine_tune_from` must be `auto`, `{PIXELS}` or one of {', '.join(BLOCKS)}. "
            f"Received: fine_tune_from={config.fine_tune_from!r}"
        )


def chosen_fine_tune_from(config: Config) -> str:
    """Return `config.cut` with `auto` replaced by what suits this machine."""
    if config.fine_tune_from != "auto":
        return config.fine_tune_from
    return PIXELS if keras.distribution.list_devices("gpu") else _CPU_CUT


def build_fine_tuner(
    config: Config, material: Material, head: keras.Model, first_pass: int = 0
) -> Parts:
    """Return the model to be fitted, from maps or pixels to logits, with the cut made.

    It is made of copies of backbone and head, for the devices in whose scope it is made.

    Args:
        config: `fine_tune_from`, `seed`, `precision`, and for `pixels` the augmentation, are used.
        material: Supplies the backbone.
        head: See `model.build_head`.
        first_pass: Number of passes that were made before; other random draws follow them.
    """
    keras.utils.set_random_seed(config.seed + first_pass)
    fine_tune_from = chosen_fine_tune_from(config)
    frozen, _ = material.frozen()
    # The head stays float32: it is a thousandth of the work.
    backbone, head = copied(frozen, precision_in_force(config.precision)), copied(head)
    unfreeze(backbone)
    if fine_tune_from != PIXELS:
        return Parts(build_top(backbone, head, fine_tune_from), head, backbone)
    augmented_copies, seed = config.fine_tuning_copies, config.seed + 1000 * first_pass
    augmented = dataclasses.replace(config, augmented_copies=augmented_copies, seed=seed)
    trainer = build_trainer(augmented, backbone, head, training=False)
    return Parts(trainer, head, backbone)


def compile_fine_tuner(trainer: keras.Model, config: Config, steps: int, parts: int = 1) -> None:
    """Give the model its loss and an optimizer whose rate rises, then falls along a cosine.

    Args:
        trainer: See `build_fine_tuner`.
        config: Rate, epochs, precision and label smoothing are used.
        steps: Batches in a pass.
        parts: In which each batch comes (see `devices.shared`).
    """
    total = steps * config.fine_tuning_epochs
    warm_up = max(1, round(_WARM_UP * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total - warm_up),
        warmup_target=config.fine_tuning_learning_rate,
        warmup_steps=warm_up,
    )
    compile_at(rate, trainer, config, parts)


def compile_at(rate: Any, trainer: keras.Model, config: Config, parts: int = 1) -> None:
    """Give the model its loss and an optimizer with a rate that is a number or a schedule."""
    optimizer = adam(rate, parts)
    if precision_in_force(config.precision) == "mixed_float16":
        # Small gradients would be 0 in float16.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        weighted_metrics=["accuracy"],
    )
    optimizer.build(trainer.trainable_variables)  # So that its state can be loaded.


def tuning_batches(config: Config, material: Material, first_pass: int = 0) -> tuple[Any, Any]:
    """Return the datasets for training and validation: maps, or pixels; missing maps are made."""
    prepared, fine_tune_from = material.prepared, chosen_fine_tune_from(config)
    classes, size = len(prepared.labels), config.batch_size
    if fine_tune_from == PIXELS:
        pixels = (config.image_size, size)
        keras.utils.set_random_seed(config.seed + first_pass)  # Decides the order, too.
        train = load_split(prepared, "train", *pixels, seed=config.seed + first_pass)
        validation = load_split(prepared, "validation", *pixels)
    else:
        _, store = material.frozen()
        augmented_copies = [
            store.maps("train", view, fine_tune_from)
            for view in range(config.fine_tuning_copies + 1)
        ]
        numbers = class_numbers(prepared, "train")
        train = feature_batches(augmented_copies, numbers, size, config.seed, first_pass)
        held_out = [store.maps("validation", 0, fine_tune_from)]
        validation = feature_batches(held_out, class_numbers(prepared, "validation"), size)
    return one_hot(train, classes), one_hot(validation, classes)
