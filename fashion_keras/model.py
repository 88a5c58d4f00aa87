"""The layers: augmentation, preprocessing and head, and how they are put around the backbone."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fashion_keras.backbone import VECTOR_SIZE, blocks
from fashion_keras.config import Config


def build_augmentation(config: Config, seed: int) -> keras.Sequential:
    """Return the random layers that make one augmented view of each photo of a batch.

    They are never part of a saved model: Keras' random layers act whenever a model is called
    without `training=False`.

    Args:
        config: `rotation` and `zoom` are used.
        seed: Decides the whole sequence of random draws.
    """
    # In float32 under any policy: half precision cannot hold the values 0 to 255 exactly.
    common: dict[str, Any] = {"dtype": "float32"}
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal", seed=seed, **common),
            keras.layers.RandomRotation(config.rotation, seed=seed + 1, **common),
            keras.layers.RandomZoom(config.zoom, seed=seed + 2, **common),
        ],
        name="augmentation",
    )


def draw_on(augmentation: keras.Sequential, batches: int) -> None:
    """Let random layers draw from now on what they would draw after so many batches.

    Their draws depend on how many were made before, which they count: so counting up is enough,
    and earlier batches need not be augmented again.

    Args:
        augmentation: See `build_augmentation`; it has drawn nothing yet.
        batches: Batches that are left out.
    """
    for layer in augmentation.layers:
        state = layer.generator.state
        before = np.array(state)
        layer(np.zeros((1, 8, 8, 3), "float32"), training=True)
        state.assign(before + batches * (np.array(state) - before))


def build_head(config: Config, classes: int) -> keras.Model:
    """Return the searched part: vectors `(batch, 2048)` to logits `(batch, classes)`."""
    inputs = keras.Input((VECTOR_SIZE,), name="vector")
    x = inputs
    if config.inner_size:
        x = keras.layers.Dense(config.inner_size, activation="relu", name="inner")(x)
    x = keras.layers.Dropout(config.droprate, name="dropout")(x)
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="head")


def average_heads(heads: Sequence[keras.Model]) -> keras.Model:
    """Return one head that gives the mean of the logits of several.

    Heads differ by their first weights and the order of photos alone, and each is off in its own
    way; their mean is more accurate than one of them (Lakshminarayanan et al. 2017).
    """
    inputs = keras.Input((VECTOR_SIZE,), name="vector")
    for number, head in enumerate(heads, start=1):
        head.name = f"head_{number}"  # Layers of one model need different names.
    outputs = [head(inputs) for head in heads]
    logits = keras.layers.Average(dtype="float32", name="mean_logits")(outputs)
    return keras.Model(inputs, logits, name="head")


def _scaled(pixels: Any) -> Any:
    """Scale pixels as Xception expects, so that nobody else has to."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="scale")(pixels)


def _pooled(maps: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="vectors")(maps)


def _vectors(pixels: Any, backbone: keras.Model, **options: Any) -> Any:
    return _pooled(backbone(_scaled(pixels), **options))


def build_feature_model(backbone: keras.Model, fine_tune_from: str | None = None) -> keras.Model:
    """Return the model from pixels `(batch, height, width, 3)` to what is kept of the backbone.

    Args:
        backbone: See `build_backbone`.
        fine_tune_from: Name of a block of the backbone (see `blocks`).

    Returns:
        Model to a dictionary of `vectors`, `(batch, 2048)`, and, with a cut, `maps`,
        `(batch, rows, columns, channels)`, what goes into that block.
    """
    pixels = keras.Input((None, None, 3), name="pixels")
    if not fine_tune_from:
        return keras.Model(pixels, {"vectors": _vectors(pixels, backbone, training=False)})
    both = keras.Model(backbone.inputs, [backbone.output, blocks(backbone)[fine_tune_from]])
    top, maps = both(_scaled(pixels), training=False)
    return keras.Model(pixels, {"vectors": _pooled(top), "maps": maps})


def build_classifier(
    backbone: keras.Model,
    head: keras.Model,
    image_size: int,
    name: str = "probabilities",
    temperature: float = 1.0,
) -> keras.Model:
    """Put backbone and head together to the model that is saved; it shares their weights.

    Args:
        backbone: See `build_backbone`.
        head: See `build_head`.
        image_size: Side in pixels to which the model itself resizes photos.
        name: Name of the last layer.
        temperature: Divides the logits (see `metrics.fit_temperature`).

    Returns:
        Model from pixels `(batch, height, width, 3)`, uint8 or float in [0, 255], any height and
        width, to probabilities `(batch, classes)`, float32, each row summing to 1.
    """
    pixels = keras.Input((None, None, 3), name="pixels")
    x = keras.layers.Resizing(
        image_size, image_size, interpolation="bilinear", dtype="float32", name="resize"
    )(pixels)
    # Batch normalisation always uses the statistics it was trained with (training=False).
    x = _vectors(x, backbone, training=False)
    logits = head(x)
    if temperature != 1:
        calibrate = keras.layers.Rescaling(1 / temperature, dtype="float32", name="calibrate")
        logits = calibrate(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name=name)(logits)
    return keras.Model(pixels, probabilities, name="classifier")


def build_trainer(
    config: Config, backbone: keras.Model, head: keras.Model, **options: Any
) -> keras.Model:
    """Return the model that trains backbone and head together on augmented pixels; it gives logits.

    It shares the weights of both and is never saved (see `build_augmentation`).

    Args:
        config: The augmentation, `augmented_copies` and `image_size` are used.
        backbone: See `build_backbone`.
        head: See `build_head`.
        options: `training=False` keeps batch normalisation as the backbone was trained.
    """
    pixels = keras.Input((config.image_size, config.image_size, 3), name="pixels")
    x = pixels
    if config.augmented_copies:
        x = build_augmentation(config, config.seed)(x)
    return keras.Model(pixels, head(_vectors(x, backbone, **options)), name="trainer")


def build_top(backbone: keras.Model, head: keras.Model, fine_tune_from: str) -> keras.Model:
    """Return the model from maps at a cut (see `build_feature_model`) to logits.

    It shares the weights of backbone and head. Batch normalisation uses the statistics it was
    trained with.
    """
    upper = keras.Model(blocks(backbone)[fine_tune_from], backbone.output, name="upper")
    maps = keras.Input(upper.input_shape[1:], name="maps")
    return keras.Model(maps, head(_pooled(upper(maps, training=False))), name="top")
