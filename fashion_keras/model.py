"""The models: backbone, augmentation and head, and how they are put together."""

import contextlib
import functools
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.backend import keras
from fashion_keras.config import RELEASED, Config, InputError
from fashion_keras.inspection import check_file


class Architecture(NamedTuple):
    """One kind of backbone, as `keras.applications` builds it."""

    build: Callable[..., keras.Model]
    address: str  # Of its ImageNet weights.
    scale: float  # From pixels in [0, 255] to what it expects; `offset` is added then.
    offset: float
    blocks: tuple[str, ...]  # First words of layers' names, from which on it can be fine-tuned.
    features: int  # Channels of its output.


ARCHITECTURES = {
    # Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions".
    "xception": Architecture(
        build=lambda **options: keras.applications.Xception(**options),
        address="https://storage.googleapis.com/tensorflow/keras-applications/xception/"
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        scale=1 / 127.5,
        offset=-1,
        blocks=tuple(f"block{number}" for number in range(2, 15)),
        features=2048,
    )
}
BACKBONE = "xception"  # Also the name of its layer in every model built here.
_ARCHITECTURE = ARCHITECTURES[BACKBONE]
BLOCKS, FEATURES = _ARCHITECTURE.blocks, _ARCHITECTURE.features
PIXELS, _CPU_DEFAULT = "pixels", "block11"  # Where fine-tuning starts with `auto`.
WEIGHTS_VARIABLE = "FASHION_KERAS_WEIGHTS"  # Names a copy of the ImageNet weights, for `imagenet`.
_TIMEOUT = 20  # Seconds without a single byte before a download is given up.


def check_weights(weights: str) -> Path | None:
    """Return the file that `Config.weights` names; None for a download.

    Raises:
        InputError: If there is no such file.
    """
    copy = os.environ.get(WEIGHTS_VARIABLE) if weights == "imagenet" else None
    if weights == "imagenet" and not copy:
        return None
    file = RELEASED if weights == "released" else Path(copy or weights).expanduser()
    if file.is_file():
        return file
    advice = (
        f"Correct ${WEIGHTS_VARIABLE}, which names it."
        if copy
        else "`--weights` takes `imagenet`, `released`, a weights file of Xception without its top "
        "(.h5), or a .keras file saved by this project."
    )
    raise InputError(f"No weights file {file}. {advice}")


def build_backbone(weights: str) -> keras.Model:
    """Return the frozen backbone, without its top.

    Args:
        weights: See `Config.weights`. Of a saved classifier only the backbone is used.

    Returns:
        Model from scaled pixels `(batch, height, width, 3)` to feature maps
        `(batch, rows, columns, FEATURES)`.

    Raises:
        InputError: If the weights cannot be downloaded, found or used.
    """
    file = check_weights(weights)
    if file:
        backbone = _from_file(file)
    else:
        with patient_download(
            f"the ImageNet weights from {_ARCHITECTURE.address}",
            "Give a copy of the file with `--weights FILE`, or start from the released model with "
            "`--weights released`.",
        ):
            backbone = _without_top("imagenet")
    backbone.trainable = False
    return backbone


def _without_top(weights: str | None) -> keras.Model:
    return _ARCHITECTURE.build(
        include_top=False, weights=weights, input_shape=(None, None, 3), name=BACKBONE
    )


def _from_file(file: Path) -> keras.Model:
    try:
        if file.suffix != ".keras":
            return _without_top(str(file))
        check_file(file)
        saved: Any = keras.saving.load_model(file, compile=False)
        backbone = _without_top(None)
        backbone.set_weights(saved.get_layer(BACKBONE).get_weights())
        return backbone
    except Exception as error:  # h5py and Keras raise many kinds for a file of another sort.
        raise InputError(
            f"{file} does not hold the weights of an Xception without its top: {error}"
        ) from error


@contextlib.contextmanager
def patient_download(what: str, advice: str = "Try again with a connection.") -> Iterator[None]:
    """Let Keras download within a time limit; raise an `InputError` with `advice` if it fails."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # Keras itself waits for ever for a server that stalls.
    try:
        yield
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise InputError(f"Cannot download {what}: {error}. {advice}") from error
    finally:
        socket.setdefaulttimeout(patience)


def blocks(backbone: keras.Model) -> dict[str, Any]:
    """Return the input of each block of the backbone, by the names of `BLOCKS`.

    Other layers have names with numbers that differ in every further model of a process.
    """
    inputs: dict[str, Any] = {}
    for layer in backbone.layers:
        name = layer.name.partition("_")[0]
        if name in BLOCKS:
            inputs.setdefault(name, layer.input)
    return inputs


def feature_maps_shape(backbone: keras.Model, fine_tune_from: str, image_size: int) -> tuple:
    """Return rows, columns and channels of the feature maps of one photo."""
    lower = keras.Model(backbone.inputs, blocks(backbone)[fine_tune_from])
    shape: Any = lower.compute_output_shape((1, image_size, image_size, 3))
    return shape[1:]


def check_fine_tune_from(config: Config) -> None:
    """Raise an `InputError` for a block that does not exist, before anything slow is done."""
    if config.fine_tune_from not in ("auto", PIXELS, *BLOCKS):
        raise InputError(
            f"`fine_tune_from` must be `auto`, `{PIXELS}` or one of {', '.join(BLOCKS)}. "
            f"Received: fine_tune_from={config.fine_tune_from!r}"
        )


def chosen_fine_tune_from(config: Config) -> str:
    """Return `config.fine_tune_from` with `auto` replaced by what suits this machine."""
    if config.fine_tune_from != "auto":
        return config.fine_tune_from
    return PIXELS if keras.distribution.list_devices("gpu") else _CPU_DEFAULT


def unfreeze(backbone: keras.Model) -> None:
    """Make all layers trainable except batch normalisation."""
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 over all weights, in hexadecimal digits."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def versions() -> list[str]:
    """Return the versions that decide the last bits of what models compute, for keys."""
    engine = keras.backend.backend()
    return [keras.__version__, engine, sys.modules[engine].__version__]


def build_augmentation(config: Config, seed: int) -> keras.Sequential:
    """Return the random layers that make an augmented copy of each photo; `seed` decides all draws.

    They are never part of a saved model: Keras' random layers act whenever a model is called
    without `training=False`. With any change here raise `_LAYOUT` of `features` and `fine_tuning`.
    """
    # In float32 under any policy: half precision cannot hold the values 0 to 255 exactly.
    flip = keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32")
    rotate = keras.layers.RandomRotation(config.rotation, seed=seed + 1, dtype="float32")
    zoom = keras.layers.RandomZoom(config.zoom, seed=seed + 2, dtype="float32")
    return keras.Sequential([flip, rotate, zoom], name="augmentation")


def build_head(config: Config, classes: int) -> keras.Model:
    """Return the trained part: features `(batch, FEATURES)` to logits `(batch, classes)`."""
    features = keras.Input((FEATURES,), name="features")
    x = features
    if config.inner_size:
        x = keras.layers.Dense(config.inner_size, activation="relu", name="inner")(x)
    x = keras.layers.Dropout(config.droprate, name="dropout")(x)
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(features, logits, name="head")


def _scaled(pixels: Any) -> Any:
    return keras.layers.Rescaling(
        _ARCHITECTURE.scale, offset=_ARCHITECTURE.offset, dtype="float32", name="scale"
    )(pixels)


def _pooled(feature_maps: Any) -> Any:
    # The name that this layer has in saved files.
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="vectors")(feature_maps)


def build_feature_model(
    backbone: keras.Model, fine_tune_from: str | None = None, precision: str = "float32"
) -> keras.Model:
    """Return the model from pixels `(batch, height, width, 3)` to what is kept of the backbone.

    Args:
        backbone: See `build_backbone`.
        fine_tune_from: Name of a block (see `blocks`).
        precision: See `Config.precision`; in another one than float32 a copy computes.

    Returns:
        Model to a dictionary of `features`, `(batch, FEATURES)`, and, with `fine_tune_from`, of
        `feature_maps`, `(batch, rows, columns, channels)`, the input of that block.
    """
    if precision_in_force(precision) != "float32":
        backbone = copied(backbone, precision)
    pixels = keras.Input((None, None, 3), name="pixels")
    if not fine_tune_from:
        return keras.Model(pixels, {"features": _pooled(backbone(_scaled(pixels), training=False))})
    both = keras.Model(backbone.inputs, [backbone.output, blocks(backbone)[fine_tune_from]])
    top, feature_maps = both(_scaled(pixels), training=False)
    return keras.Model(pixels, {"features": _pooled(top), "feature_maps": feature_maps})


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
        temperature: Divides the logits, to calibrate them.

    Returns:
        Model from pixels `(batch, height, width, 3)`, uint8 or float in [0, 255], any height and
        width, to probabilities `(batch, classes)`, float32, each row summing to 1.
    """
    pixels = keras.Input((None, None, 3), name="pixels")
    x = keras.layers.Resizing(
        image_size, image_size, interpolation="bilinear", dtype="float32", name="resize"
    )(pixels)
    # Batch normalisation always uses the statistics it was trained with (training=False).
    logits = head(_pooled(backbone(_scaled(x), training=False)))
    if temperature != 1:
        calibrate = keras.layers.Rescaling(1 / temperature, dtype="float32", name="calibrate")
        logits = calibrate(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name=name)(logits)
    return keras.Model(pixels, probabilities, name="classifier")


def build_trainer(
    config: Config, backbone: keras.Model, head: keras.Model, seed: int | None = None
) -> keras.Model:
    """Return the model that trains backbone and head on pixels, augmented if there is a seed.

    It gives logits, shares the weights of both and is never saved (see `build_augmentation`).
    """
    pixels = keras.Input((config.image_size, config.image_size, 3), name="pixels")
    x = pixels if seed is None else build_augmentation(config, seed)(pixels)
    features = _pooled(backbone(_scaled(x), training=False))
    return keras.Model(pixels, head(features), name="trainer")


def build_top(backbone: keras.Model, head: keras.Model, fine_tune_from: str) -> keras.Model:
    """Return the model from feature maps (see `build_feature_model`) to logits."""
    upper = keras.Model(blocks(backbone)[fine_tune_from], backbone.output, name="upper")
    feature_maps = keras.Input(upper.input_shape[1:], name="feature_maps")
    logits = head(_pooled(upper(feature_maps, training=False)))
    return keras.Model(feature_maps, logits, name="top")


def copied(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a copy of a functional model of plain layers, with weights of its own in float32.

    It computes in `precision`, a dtype policy.
    """

    def copied_layer(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": precision})

    copy: Any = keras.models.clone_model(model, clone_function=copied_layer)
    copy.set_weights(model.get_weights())
    return copy


@functools.cache
def precision_in_force(wanted: str) -> str:
    """Return the precision to compute in; float32, and a line that says so, if `wanted` is slower.

    Graphics cards compute in all of them. On CPUs bfloat16 is faster with AMX, and float16 is
    slower (measured: see `docs/devices.md`).
    """
    fast = wanted == "mixed_bfloat16" and _has_amx()
    if wanted == "float32" or fast or keras.distribution.list_devices("gpu"):
        return wanted
    print(f"{wanted} would be no faster on this CPU: computing in float32", flush=True)
    return "float32"


def _has_amx() -> bool:
    cpu = Path("/proc/cpuinfo")  # On Linux only; elsewhere no CPU is known to be faster.
    return cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8")
