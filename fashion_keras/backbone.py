"""The backbone, Xception: where its weights come from, and its blocks."""

import contextlib
import hashlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from fashion_keras.config import InputError

BACKBONE = "xception"  # Name of the backbone layer in every model built here.
COPY_VARIABLE = "FASHION_KERAS_WEIGHTS"  # Names a copy of the ImageNet weights, for `imagenet`.
IMAGENET_ADDRESS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_TIMEOUT = 20  # Seconds without a single byte before a download is given up.
BLOCKS = tuple(f"block{number}" for number in range(2, 15))  # The names of Keras' Xception.
VECTOR_SIZE = 2048  # Numbers that the backbone gives for one photo after pooling.


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
    with patient_download(
        f"the ImageNet weights from {IMAGENET_ADDRESS}",
        "Give a copy of the file with `--weights FILE`, or train from random weights with "
        "`--weights none`.",
    ):
        return _xception("imagenet")


@contextlib.contextmanager
def patient_download(what: str, advice: str = "Try again with a connection.") -> Iterator[None]:
    """Let Keras download inside; it does not wait for ever, and a failure is told in one line.

    Args:
        what: What is downloaded, for the error.
        advice: What to do if it fails.

    Raises:
        InputError: If a download fails.
    """
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # Keras itself waits for ever for a server that stalls.
    try:
        yield
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        failed = ("URL fetch failure", "corrupted file")
        expected = isinstance(error, OSError | http.client.HTTPException)
        if not expected and not any(sign in str(error) for sign in failed):
            raise
        raise InputError(f"Cannot download {what}: {error}. {advice}") from error
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


def blocks(backbone: keras.Model) -> dict[str, Any]:
    """Return what goes into each block of the backbone, by the names of `BLOCKS`.

    Layers that Keras names itself (`add_10`) have other names in every further Xception of a
    process; those of the blocks never change.
    """
    inputs: dict[str, Any] = {}
    for layer in backbone.layers:
        name = layer.name.partition("_")[0]
        if name in BLOCKS:
            inputs.setdefault(name, layer.input)
    return inputs


def unfreeze(backbone: keras.Model) -> None:
    """Let all layers be trained except batch normalisation."""
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def weights_digest(backbone: keras.Model) -> str:
    """Return the SHA-256 over all weights, in hexadecimal digits."""
    digest = hashlib.sha256()
    for weight in backbone.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
