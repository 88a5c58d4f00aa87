"""The models: backbone, augmentation and head, and how they are put together."""

import contextlib
import functools
import hashlib
import os
import re
import socket
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.backend import DETERMINISTIC, NAMES, cards, device, keras
from fashion_keras.config import RELEASED, Config, InputError
from fashion_keras.inspection import POOLING, check_file, read_metadata

PIXELS = "pixels"  # As the place where fine-tuning starts: all of the backbone is trained.
WEIGHTS_VARIABLE = "FASHION_KERAS_WEIGHTS"  # Names a copy of the ImageNet weights, for `imagenet`.
_LARGER = (1.16, 1.32)  # Sides to predict at, over that of training.
_MIN_PHOTOS = 100  # For validation, so that the choice of a side means anything.
_TIMEOUT = 20  # Seconds without a single byte before a download is given up.


def check_weights(config: Config) -> Path | None:
    """Return the file that `config.weights` names; None for a download.

    Raises:
        InputError: If there is no such file, or it is a classifier with another backbone.
    """
    weights, name = config.weights, config.backbone
    copy = os.environ.get(WEIGHTS_VARIABLE) if weights == "imagenet" else None
    if weights == "imagenet" and not copy:
        return None
    file = RELEASED if weights == "released" else Path(copy or weights).expanduser()
    if not file.is_file():
        advice = (
            f"Correct ${WEIGHTS_VARIABLE}, which names it."
            if copy
            else "`--weights` takes `imagenet`, `released`, a weights file of "
            f"{ARCHITECTURES[name].constructor} without its top (.h5), or a .keras file saved by "
            "this project."
        )
        raise InputError(f"No weights file {file}. {advice}")
    if file.suffix == ".keras" and (found := read_metadata(file).get("backbone", name)) != name:
        raise InputError(
            f"The backbone in {file} is {found!a:.99}. Give `--backbone` and `--weights` that go "
            f"together. Received: --backbone {name} --weights {weights}"
        )
    return file


def build_backbone(config: Config) -> keras.Model:
    """Return the frozen backbone, without its top, with the weights of `config.weights`.

    Of a saved classifier only the backbone is used.

    Returns:
        Model from scaled pixels `(batch, height, width, 3)` to feature maps
        `(batch, rows, columns, channels)`; its name is `config.backbone`.

    Raises:
        InputError: If the weights cannot be downloaded, found or used.
    """
    file = check_weights(config)
    if file:
        backbone = _from_file(config.backbone, file, config.weights == "imagenet")
    else:
        with patient_download(
            f"the ImageNet weights of {ARCHITECTURES[config.backbone].constructor}",
            "Give a copy of the file with `--weights FILE`, or start from the released model, an "
            "Xception, with `--weights released`.",
        ):
            backbone = _without_top(config.backbone, "imagenet")
    backbone.trainable = False
    return backbone


def _without_top(name: str, weights: str | None) -> keras.Model:
    known = ARCHITECTURES[name]
    build = getattr(keras.applications, known.constructor)
    built = build(include_top=False, weights=weights, input_shape=(None, None, 3), **known.options)
    # Renamed afterwards: constructors make the names of layers and of downloads from it.
    return keras.Model(built.input, built.output, name=name)


def _from_file(name: str, file: Path, is_copy: bool) -> keras.Model:
    try:
        if file.suffix != ".keras":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # One for each layer, before the error.
                return _without_top(name, str(file))
        check_file(file)
        saved: Any = keras.saving.load_model(file, compile=False)
        backbone = _without_top(name, None)
        backbone.set_weights(saved.get_layer(name).get_weights())
        return backbone
    except Exception as error:  # h5py and Keras raise many kinds for a file of another sort.
        named = f" (named by ${WEIGHTS_VARIABLE})" if is_copy else ""
        raise InputError(
            f"{file}{named} does not hold the weights of {ARCHITECTURES[name].constructor} without "
            f"its top: {textwrap.shorten(str(error), 200)}"
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


def input_of(backbone: keras.Model, layers: str) -> Any:
    """Return the last tensor before some layers through which everything passes.

    A backbone can be cut in two there. It is None if there are no such layers, or nothing but
    pixels comes before them.

    Args:
        backbone: See `build_backbone`.
        layers: How their names begin. Names that Keras makes of a class and a number, such as
            `conv2d_3`, are passed over: they differ in every further model of a process.
    """
    depths = sorted(backbone._nodes_by_depth.items(), reverse=True)  # In the order of computation.
    nodes = [node for _, of_depth in depths for node in of_depth]
    last_use = {id(one): place for place, node in enumerate(nodes) for one in node.input_tensors}
    found, needed = None, 0  # Until which place tensors before the last one are needed.
    for place, node in enumerate(nodes):
        if node.operation.name.startswith(layers) and not _is_numbered(node.operation):
            return found
        if needed <= place and not node.is_input:
            found = node.outputs[0]
        needed = max(needed, *(last_use.get(id(one), 0) for one in node.outputs))
    return None


def _is_numbered(layer: Any) -> bool:
    """Return whether the name of a layer is its class and a number."""
    plain = re.sub(r"_\d+$", "", layer.name).replace("_", "")
    return plain == type(layer).__name__.lower()


def feature_maps_shape(backbone: keras.Model, fine_tune_from: str, image_size: int) -> tuple:
    """Return rows, columns and channels of the feature maps of one photo."""
    lower = keras.Model(backbone.inputs, input_of(backbone, fine_tune_from))
    shape: Any = lower.compute_output_shape((1, image_size, image_size, 3))
    return shape[1:]


def check_fine_tune_from(config: Config) -> None:
    """Raise an `InputError` for a place that does not exist, before anything slow is done."""
    blocks, chosen = ARCHITECTURES[config.backbone].blocks, config.fine_tune_from
    if chosen == PIXELS and config.fine_tune_on == "feature_maps":
        raise InputError(
            "`fine_tune_on=feature_maps` needs a block to start from. Received: "
            f"fine_tune_from={chosen}. Give `--fine-tune-on pixels`, or `--fine-tune-from "
            f"{blocks[-1]}`, or another."
        )
    if chosen in ("auto", PIXELS, *blocks):
        return
    if input_of(_without_top(config.backbone, None), chosen) is None:
        raise InputError(
            f"`fine_tune_from` must be `auto`, `{PIXELS}`, or the beginning of the name of a layer "
            f"of {config.backbone}, such as {', '.join(blocks)}. "
            f"Received: fine_tune_from={chosen!r}"
        )


def chosen_fine_tune_from(config: Config) -> str:
    """Return `config.fine_tune_from` with `auto` replaced by what suits this machine."""
    if config.fine_tune_from != "auto":
        return config.fine_tune_from
    everything = cards() and config.fine_tune_on != "feature_maps"
    return PIXELS if everything else ARCHITECTURES[config.backbone].block


def tunes_on_pixels(config: Config) -> bool:
    """Return whether fine-tuning reads photos, or feature maps that were computed once."""
    if config.fine_tune_on != "auto":
        return config.fine_tune_on == PIXELS
    return bool(cards()) or chosen_fine_tune_from(config) == PIXELS


def prediction_sides(config: Config, photos: int) -> list[int]:
    """Return the sides at which a classifier is tried on so many photos for validation.

    A network that was trained on photos of one size does better on larger ones (Touvron et al.
    2019, "Fixing the train-test resolution discrepancy"). Few photos cannot show that.
    """
    if config.predict_size:
        return [config.predict_size]
    larger = _LARGER if photos >= _MIN_PHOTOS else ()
    return [config.image_size, *(round(share * config.image_size) for share in larger)]


def unfreeze(backbone: keras.Model, fine_tune_from: str = PIXELS) -> None:
    """Make layers trainable from some on (see `input_of`), except batch normalisation."""
    layers = backbone.layers
    if fine_tune_from != PIXELS:
        layers = keras.Model(input_of(backbone, fine_tune_from), backbone.output).layers
    backbone.trainable = True
    for layer in backbone.layers:
        frozen = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not frozen and any(layer is one for one in layers)


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 over all weights, in hexadecimal digits."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def versions() -> list[str]:
    """Return the versions that decide the last bits of what models compute, for keys."""
    engine = keras.backend.backend()
    found = [keras.__version__, engine, sys.modules[engine].__version__]
    return [*found, DETERMINISTIC] if os.environ.get(DETERMINISTIC) else found


def build_augmentation(config: Config, seed: int) -> keras.Sequential:
    """Return the random layers that make an augmented copy of each photo; `seed` decides all draws.

    They are never part of a saved model: Keras' random layers act whenever a model is called
    without `training=False`. With any change here raise `_LAYOUT` of `features` and `fine_tuning`.
    """
    # In float32 under any policy: half precision cannot hold the values 0 to 255 exactly.
    flip = keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32")
    rotate = keras.layers.RandomRotation(config.rotation, seed=seed + 1, dtype="float32")
    zoom = keras.layers.RandomZoom(config.zoom, seed=seed + 2, dtype="float32")
    return keras.Sequential([*([flip] if config.mirror else []), rotate, zoom], name="augmentation")


def build_head(config: Config, classes: int) -> keras.Model:
    """Return the trained part: features `(batch, channels)` to logits `(batch, classes)`."""
    features = keras.Input((ARCHITECTURES[config.backbone].features,), name="features")
    x = features
    if config.inner_size:
        x = keras.layers.Dense(config.inner_size, activation="relu", name="inner")(x)
    x = keras.layers.Dropout(config.droprate, name="dropout")(x)
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(features, logits, name="head")


def _scaled(pixels: Any, backbone: keras.Model) -> Any:
    known: Any = ARCHITECTURES[backbone.name]
    scale = keras.layers.Rescaling(known.scale, known.offset, dtype="float32", name="scale")
    return scale(pixels)


def _pooled(feature_maps: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name=POOLING)(feature_maps)


def build_feature_model(
    backbone: keras.Model, fine_tune_from: str | None = None, precision: str = "float32"
) -> keras.Model:
    """Return the model from pixels `(batch, height, width, 3)` to what is kept of the backbone.

    Args:
        backbone: See `build_backbone`.
        fine_tune_from: See `input_of`.
        precision: See `Config.precision`; in another one than float32 a copy computes.

    Returns:
        Model to a dictionary of `features`, `(batch, channels)`, and, with `fine_tune_from`, of
        `feature_maps`, `(batch, rows, columns, channels)`, the input of these layers.
    """
    if precision_in_force(precision) != "float32":
        backbone = copied(backbone, precision)
    pixels = keras.Input((None, None, 3), name="pixels")
    if not fine_tune_from:
        return keras.Model(
            pixels, {"features": _pooled(backbone(_scaled(pixels, backbone), training=False))}
        )
    both = keras.Model(backbone.inputs, [backbone.output, input_of(backbone, fine_tune_from)])
    top, feature_maps = both(_scaled(pixels, backbone), training=False)
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
    logits = head(_pooled(backbone(_scaled(x, backbone), training=False)))
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
    features = _pooled(backbone(_scaled(x, backbone), training=False))
    return keras.Model(pixels, head(features), name="trainer")


def build_top(backbone: keras.Model, head: keras.Model, fine_tune_from: str) -> keras.Model:
    """Return the model from feature maps (see `build_feature_model`) to logits."""
    upper = keras.Model(input_of(backbone, fine_tune_from), backbone.output, name="upper")
    feature_maps = keras.Input(upper.input_shape[1:], name="feature_maps")
    logits = head(_pooled(upper(feature_maps, training=False)))
    return keras.Model(feature_maps, logits, name="top")


def copied(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a copy of a functional model, with weights of its own in float32.

    It computes in `precision`, a dtype policy.
    """

    def copied_layer(layer: Any) -> Any:
        # Operations such as a sum have no precision of their own.
        changes = {"dtype": precision} if isinstance(layer, keras.Layer) else {}
        return type(layer).from_config(layer.get_config() | changes)

    copy: Any = keras.models.clone_model(model, clone_function=copied_layer, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


@functools.cache
def precision_in_force(wanted: str) -> str:
    """Return the precision to compute in; float32, and a line that says so, if `wanted` is slower.

    Graphics cards compute in all of them, from compute capability 8.0 on in bfloat16, which `auto`
    takes there and on CPUs that multiply it, with TensorFlow. With JAX or PyTorch it is no faster
    on CPUs, and float16 is slower (measured: see `docs/devices.md`).
    """
    if found := cards():
        fast = all(card.capability >= (8, 0) for card in found)
    else:
        fast = cpu_multiplies_bfloat16() and keras.backend.backend() == "tensorflow"
    if wanted == "auto":
        return "mixed_bfloat16" if fast else "float32"
    if wanted == "float32" or found or (wanted == "mixed_bfloat16" and fast):
        return wanted
    print(f"{wanted} would be no faster on this CPU: computing in float32", flush=True)
    return "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16."""
    facts = Path("/proc/cpuinfo")  # On Linux only; elsewhere no CPU is known to be faster.
    words = set(facts.read_text(encoding="utf-8").split()) if facts.exists() else set()
    return not words.isdisjoint({"amx_bf16", "avx512_bf16"})


def show_device(config: Config, frozen: str) -> None:
    """Print what computes, in which precision, and the engine of the frozen backbone."""
    passes = "" if frozen == "keras" else f"; frozen passes: {NAMES[frozen.split()[0]]}"
    print(f"{device()}, {precision_in_force(config.precision)}{passes}", flush=True)
