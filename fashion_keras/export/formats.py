"""The formats of an export: how a classifier is written in each, with its labels inside."""

import contextlib
import errno
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from fashion_keras.config import InputError

INPUT, OUTPUT = "pixels", "probabilities"
ENDPOINT = "serving_default"  # What TensorFlow Serving and the LiteRT converter look for.
LABELS_FILE, CARD_FILE = "labels.txt", "fashion.json"
EXTRA = "assets.extra"  # TensorFlow's folder in a SavedModel for what it does not read itself.
OWN = "fashion_keras"  # Section of OpenVINO's `rt_info` with the labels and the card, as JSON.
_OPSET = 18  # Read by ONNX Runtime 1.14 (2023) and newer.


class Format(NamedTuple):
    """A format of an export.

    Attributes:
        ending: What the name of the file or folder ends in.
        packages: Modules that are needed beside TensorFlow.
        write: Called with the folder that `trace` made, the file or folder to write, the card, and
            whether to store weights in half precision.
        half: Whether weights can be stored in half precision.
        note: What a user has to know.
    """

    ending: str
    packages: tuple[str, ...]
    write: Callable[[Path, Path, dict, bool], None]
    half: bool
    note: str


def check_packages(name: str) -> None:
    """Raise the error for a format that cannot be written here.

    Raises:
        InputError: If a package is not installed, or Keras does not run on TensorFlow.
    """
    packages = FORMATS[name].packages
    missing = [package for package in packages if not importlib.util.find_spec(package)]
    if missing:
        raise InputError(
            f"Export to {name} needs {missing[0]}, which is not installed. Run "
            "`pip install 'fashion_keras[export]'`."
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"Export needs Keras on TensorFlow. Received: Keras on {keras.backend.backend()}. Set "
            "the variable KERAS_BACKEND to tensorflow."
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what converters and runtimes print, from C++ as well; show it if they fail."""
    sys.stdout.flush()
    outputs = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as held_back, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = True
        try:
            for number in outputs:
                os.dup2(held_back.fileno(), number)
            yield
            failed = False
        finally:
            sys.stdout.flush()
            for number, output in outputs.items():
                os.dup2(output, number)
                os.close(output)
            if failed:
                held_back.seek(0)
                os.write(2, held_back.read())


def trace(model: keras.Model, folder: Path) -> None:
    """Write a classifier as a plain SavedModel, from which all formats are made.

    The last layer is made anew: its name, which holds the card in a `.keras` file, becomes that of
    the output. Keras' own `export` would keep that name and store each weight twice.

    Args:
        model: See `classifier.Classifier`.
        folder: The SavedModel; its one signature maps `pixels` to `probabilities`.
    """
    tf: Any = importlib.import_module("tensorflow")
    last = keras.layers.Softmax(dtype="float32", name=OUTPUT)
    classifier: Any = keras.Model(model.inputs, last(model.layers[-1].input), name="classifier")
    module = tf.Module()
    module.weights = [variable.value for variable in classifier.variables]

    @tf.function(input_signature=[_pixels(tf)])
    def serve(pixels: Any) -> dict[str, Any]:
        return {OUTPUT: classifier(pixels, training=False)}

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={ENDPOINT: serve})


def _pixels(tf: Any) -> Any:
    return tf.TensorSpec((None, None, None, 3), "float32", name=INPUT)


def _texts(card: dict) -> dict[str, str]:
    return {LABELS_FILE: "\n".join(card["labels"]), CARD_FILE: json.dumps(card, indent=2)}


def _write_saved_model(traced: Path, target: Path, card: dict, half: bool) -> None:
    traced.rename(target)
    (target / EXTRA).mkdir()
    for name, text in _texts(card).items():
        (target / EXTRA / name).write_text(text, encoding="utf-8")


def _write_onnx(traced: Path, target: Path, card: dict, half: bool) -> None:
    # Else a step that fails is left out with a mere log line, and all takes twice as long.
    os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"
    names: tuple[Any, ...] = ("tensorflow", "onnx", "tf2onnx")
    tf, onnx, tf2onnx = map(importlib.import_module, names)
    loaded = tf.saved_model.load(str(traced))  # Has to live as long as its function is used.
    model, _ = tf2onnx.convert.from_function(loaded.serve, [_pixels(tf)], opset=_OPSET)
    _name_sides(model.graph.input[0], ("batch", "height", "width"))
    _name_sides(model.graph.output[0], ("batch",))
    facts = {"labels": json.dumps(card["labels"]), "card": json.dumps(card)}
    onnx.helper.set_model_props(model, facts)
    if half:
        _store_in_half(onnx, model.graph)
    onnx.save(model, str(target))
    onnx.checker.check_model(str(target), full_check=True)


def _name_sides(tensor: Any, names: tuple[str, ...]) -> None:
    for side, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
        side.dim_param = name


def _store_in_half(onnx: Any, graph: Any) -> None:
    """Store kernels in half precision; runtimes turn them into float32 when they load them."""
    casts = []
    for weight in graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        if np.abs(values).max() > np.finfo("float16").max:
            continue
        name, stored = weight.name, f"{weight.name}_half"
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]  # A node stands after those whose results it uses.
    del graph.node[:]
    graph.node.extend(nodes)


def import_openvino() -> Any:
    """Import OpenVINO without the message to its maker that it sends whenever it is imported."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # OpenVINO does without it if it is missing.
    return importlib.import_module("openvino")


def _write_openvino(traced: Path, target: Path, card: dict, half: bool) -> None:
    openvino = import_openvino()
    model = openvino.Core().read_model(str(traced))
    labels = " ".join("_".join(label.split()) for label in card["labels"])
    known = {"model_type": "Classification", "labels": labels, "layout": "NHWC"}
    for name, text in known.items():
        model.set_rt_info(text, ["model_info", name])
    for name, value in (("labels", card["labels"]), ("card", card)):
        model.set_rt_info(json.dumps(value), [OWN, name])
    try:
        openvino.save_model(model, str(target), compress_to_fp16=half)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # It means the disk, but does not say so.
        raise OSError(errno.ENOSPC, "No space left on device", str(target)) from error


def _write_litert(traced: Path, target: Path, card: dict, half: bool) -> None:
    tf: Any = importlib.import_module("tensorflow")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(traced), signature_keys=[ENDPOINT])
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    target.write_bytes(converter.convert())
    # Appended as a zip, as files in the metadata of LiteRT are. The table of metadata is left out
    # on purpose: MediaPipe, which reads it, would shrink each photo to 1 x 1 pixels, the size that
    # stands for any height and width. Without the table it refuses the file.
    with zipfile.ZipFile(target, "a") as archive:
        for name, text in _texts(card).items():
            archive.writestr(name, text)


FORMATS = {
    "onnx": Format(
        ending=".onnx",
        packages=("onnx", "tf2onnx", "onnxruntime"),
        write=_write_onnx,
        half=True,
        note="The labels stand in the model's metadata under `labels`, as JSON.",
    ),
    "litert": Format(
        ending=".tflite",
        packages=("ai_edge_litert",),
        write=_write_litert,
        half=True,
        note="The signature runner takes photos of any size; without it, call "
        "`resize_tensor_input` before each other size. MediaPipe and most accelerators cannot use "
        "the file: they need one fixed size. It is a zip, too: `labels.txt` and `fashion.json`.",
    ),
    "openvino": Format(
        ending=".xml",
        packages=("openvino",),
        write=_write_openvino,
        half=True,
        note="Two files, `.xml` and `.bin`, that belong together. Compile the model with "
        "INFERENCE_PRECISION_HINT f32: without it, newer processors compute in bfloat16, which "
        "moves probabilities by 0.01. The labels stand in `rt_info` under `fashion_keras` as JSON, "
        "and under `model_info` as OpenVINO's Model API wants them, with `_` for spaces.",
    ),
    "saved_model": Format(
        ending="_saved_model",
        packages=(),
        write=_write_saved_model,
        half=False,
        note="A folder; the labels stand in `assets.extra/labels.txt`, one a line.",
    ),
}
