"""The layers: augmentation, preprocessing, backbone and head, and how they are put together."""

import http.client
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from fashion_keras.config import Config, InputError

BACKBONE = "xception"  # Name of the backbone layer in every model built here.
COPY_VARIABLE = "FASHION_KERAS_WEIGHTS"  # Names a copy of the ImageNet weights, for `imagenet`.
IMAGENET_ADDRESS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_TIMEOUT = 20  # Seconds without a single byte before a download is given up.
VECTOR_SIZE = 2048  # Numbers that the backbone gives for one photo after pooling.


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


def check_weights(weights: str) -> None:
    """Raise the error for a weights file that does not exist, before anything slow is done.

    Raises:
        InputError: If `weights` is neither a word of `Config.weights` nor a file.
    """
    copy = os.environ.get(COPY_VARIABLE)
    if weights == "imagenet" and copy and not Path(copy).is_file():
        raise InputError(f"No weights file {copy}, to which ${COPY_VARIABLE} is set: correct it.")
    if weights not in ("imagenet", "none") and not Path(weights).expanduser().is_file():
        raise InputError(
            f"No weights file {weights}. `--weights` takes `imagenet`, `none`, a weights file of "
            "Xception without its top (.h5), or a .keras file saved by this project."
        )


def build_backbone(weights: str) -> keras.Model:
    """Return Xception without its top, frozen unless its weights are random.

    Source: Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions".

    Args:
        weights: See `Config.weights`.

    Returns:
        Model from scaled pixels `(batch, height, width, 3)` in [-1, 1] to maps
        `(batch, rows, columns, 2048)`.

    Raises:
        InputError: If the weights cannot be downloaded, found or used.
    """
    check_weights(weights)
    copy = os.environ.get(COPY_VARIABLE)
    if weights == "imagenet" and copy:
        backbone = _backbone_from_file(Path(copy))
    elif weights == "imagenet":
        backbone = _imagenet_backbone()
    elif weights == "none":
        backbone = _xception(None)
    else:
        backbone = _backbone_from_file(Path(weights).expanduser())
    backbone.trainable = weights == "none"
    return backbone


def _xception(weights: str | None) -> keras.Model:
    return keras.applications.Xception(
        include_top=False,
        weights=weights,  # pyright: ignore[reportArgumentType] -- None is documented.
        input_shape=(None, None, 3),
        name=BACKBONE,
    )


def _imagenet_backbone() -> keras.Model:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # Keras itself waits for ever for a server that stalls.
    try:
        return _xception("imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        failed = ("URL fetch failure", "corrupted file")
        expected = isinstance(error, OSError | http.client.HTTPException)
        if not expected and not any(sign in str(error) for sign in failed):
            raise
        raise InputError(
            f"Cannot download the ImageNet weights from {IMAGENET_ADDRESS}: {error}. Give a copy "
            "of the file with `--weights FILE`, or train from random weights with `--weights none`."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _backbone_from_file(file: Path) -> keras.Model:
    try:
        if file.suffix == ".keras":
            saved: Any = keras.saving.load_model(file, compile=False)
            backbone = _xception(None)
            backbone.set_weights(saved.get_layer(BACKBONE).get_weights())
            return backbone
        return _xception(str(file))
    except Exception as error:  # h5py and Keras raise many kinds for a file of another sort.
        raise InputError(
            f"{file} does not hold the weights of an Xception without its top: {error}"
        ) from error


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


def _vectors(pixels: Any, backbone: keras.Model, **options: Any) -> Any:
    """Scale pixels as Xception expects, so that nobody else has to, and pool its maps."""
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="scale")(pixels)
    x = backbone(x, **options)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="vectors")(x)


def build_vector_model(backbone: keras.Model) -> keras.Model:
    """Return the model from pixels `(batch, height, width, 3)` to vectors `(batch, 2048)`."""
    pixels = keras.Input((None, None, 3), name="pixels")
    vectors = _vectors(pixels, backbone, training=False)
    return keras.Model(pixels, vectors, name="vector_model")


def build_classifier(
    backbone: keras.Model, head: keras.Model, image_size: int, name: str = "probabilities"
) -> keras.Model:
    """Put backbone and head together to the model that is saved; it shares their weights.

    Args:
        backbone: See `build_backbone`.
        head: See `build_head`.
        image_size: Side in pixels to which the model itself resizes photos.
        name: Name of the last layer.

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
    probabilities = keras.layers.Softmax(dtype="float32", name=name)(head(x))
    return keras.Model(pixels, probabilities, name="classifier")


def build_trainer(config: Config, backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Return the model that trains backbone and head together on augmented pixels; it gives logits.

    It shares the weights of both and is never saved (see `build_augmentation`).
    """
    pixels = keras.Input((config.image_size, config.image_size, 3), name="pixels")
    x = pixels
    if config.views:
        x = build_augmentation(config, config.seed)(x)
    return keras.Model(pixels, head(_vectors(x, backbone)), name="trainer")
