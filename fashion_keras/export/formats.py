"""The formats of an export: how a classifier is written in each, with its labels inside."""

import base64
import functools
import importlib
import importlib.util
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.classifier import CLASS_MEANS, Classifier, named_outputs
from fashion_keras.config import InputError
from fashion_keras.engine import import_openvino
from fashion_keras.inspection import POOLING
from fashion_keras.novelty import to_bytes
from fashion_keras.onnx_file import FEATURES, INPUT, OUTPUT

LABELS_FILE, METADATA_FILE = "labels.txt", "fashion.json"
EXTRA = "assets.extra"  # TensorFlow's folder in a SavedModel for files that it does not read.
SECTION = "fashion_keras"  # Of OpenVINO's `rt_info`: the labels and the metadata, as JSON.
_OPSET = 18  # Supported by ONNX Runtime 1.14 (2023) and newer.


class Format(NamedTuple):
    """A format of an export.

    Attributes:
        ending: Of the name of the file or folder.
        packages: Modules that it requires in addition to TensorFlow.
        write: Takes a model (see `with_names`), the file or folder to write, the classifier that
            it is of, and whether to store the weights in half precision.
        half: Whether weights can be stored in half precision.
        note: What users of the export must know.
    """

    ending: str
    packages: tuple[str, ...]
    write: Callable[[Any, Path, Classifier, bool], None]
    half: bool
    note: str


def check_packages(name: str) -> None:
    """Check that a format can be written on this machine.

    Raises:
        InputError: If a package is not installed, or Keras does not run on TensorFlow.
    """
    from fashion_keras.backend import keras

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


def with_names(classifier: Any) -> Any:
    """Return `Classifier.model` as a model from `{"pixels": ...}` to `{"probabilities": ...}`."""
    from fashion_keras.backend import keras

    probabilities = named_outputs(classifier)[OUTPUT]
    return keras.Model({INPUT: classifier.input}, {OUTPUT: probabilities}, name="classifier")


def _signature() -> list[dict[str, Any]]:
    from fashion_keras.backend import keras

    return [{INPUT: keras.InputSpec(shape=(None, None, None, 3), dtype="float32", name=INPUT)}]


def _files(metadata: dict) -> dict[str, str]:
    return {
        LABELS_FILE: "\n".join(metadata["labels"]),
        METADATA_FILE: json.dumps(metadata, indent=2),
    }


def _write_saved_model(model: Any, target: Path, classifier: Classifier, half: bool) -> None:
    from fashion_keras.backend import keras

    # `model.export` tracks the model as well, and so stores each weight twice.
    archive: Any = keras.export.ExportArchive()
    archive.add_endpoint("serve", functools.partial(model, training=False), _signature())
    archive.write_out(str(target), verbose=False)
    (target / EXTRA).mkdir()
    for name, text in _files(classifier.metadata).items():
        (target / EXTRA / name).write_text(text, encoding="utf-8")


def _write_onnx(model: Any, target: Path, classifier: Classifier, half: bool) -> None:
    from fashion_keras.backend import keras

    # Otherwise tf2onnx logs an error of one of its optimizers and goes on without it.
    os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"
    onnx: Any = importlib.import_module("onnx")
    metadata, means = classifier.metadata, classifier.class_means
    features = {FEATURES: model.get_layer(POOLING).output}
    model = keras.Model(model.input, model.output | features, name="classifier")
    # Without a signature, Keras wants a model that was called.
    options: Any = {"opset_version": _OPSET, "input_signature": _signature(), "verbose": False}
    try:
        model.export(str(target), "onnx", **options)
    except ValueError:  # With MobileNetV3 that optimizer fails: it has to do without.
        del os.environ["TF2ONNX_CATCH_ERRORS"]
        model.export(str(target), "onnx", **options)
    exported = onnx.load(str(target))
    # Programs that take the first output get the probabilities.
    outputs = sorted(exported.graph.output, key=lambda output: output.name != OUTPUT)
    del exported.graph.output[:]
    exported.graph.output.extend(outputs)
    for tensor in (exported.graph.input[0], *exported.graph.output):
        names = ("batch", "height", "width")[: len(tensor.type.tensor_type.shape.dim) - 1]
        for side, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
            side.dim_param = name
    texts = {"labels": json.dumps(metadata["labels"]), "metadata": json.dumps(metadata)}
    if means is not None:
        texts[CLASS_MEANS] = base64.b64encode(to_bytes(means)).decode()
    onnx.helper.set_model_props(exported, texts)
    if half:
        _store_in_half(onnx, exported.graph)
    onnx.save(exported, str(target))
    try:
        onnx.checker.check_model(str(target), full_check=True)
    except onnx.checker.ValidationError as error:
        raise InputError(
            f"Keras {keras.__version__} writes no valid ONNX of this model, whose backbone is "
            f"{metadata.get('backbone')}. Choose another format, such as `--format openvino`."
        ) from error


def _store_in_half(onnx: Any, graph: Any) -> None:
    """Store kernels in half precision; runtimes cast them to float32 when they load them."""
    casts = []
    for weight in graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        kernel = values.dtype == np.float32 and values.ndim > 1
        if not kernel or np.abs(values).max() > np.finfo("float16").max:
            continue
        name, stored = weight.name, f"{weight.name}_half"
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]  # In the order of computation.
    del graph.node[:]
    graph.node.extend(nodes)


def _write_openvino(model: Any, target: Path, classifier: Classifier, half: bool) -> None:
    openvino = import_openvino()
    metadata, labels = classifier.metadata, classifier.labels
    joined = " ".join("_".join(label.split()) for label in labels)
    known = {"model_type": "Classification", "labels": joined, "layout": "NHWC"}
    with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as folder:
        file = str(Path(folder, "keras.xml"))
        model.export(file, format="openvino", verbose=False)
        exported = openvino.Core().read_model(file)
        for name, text in known.items():
            exported.set_rt_info(text, ["model_info", name])
        for name, value in (("labels", labels), ("metadata", metadata)):
            exported.set_rt_info(json.dumps(value), [SECTION, name])
        openvino.save_model(exported, str(target), compress_to_fp16=half)


def _write_litert(model: Any, target: Path, classifier: Classifier, half: bool) -> None:
    options = {}
    if half:
        tf: Any = importlib.import_module("tensorflow")
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        options["target_spec"] = {"supported_types": [tf.float16]}
    model.export(str(target), format="litert", verbose=False, **options)
    # Appended as a zip, as the metadata of LiteRT is. Its table is left out on purpose: MediaPipe,
    # which reads it, would shrink each photo to 1 x 1 pixels, the size that stands for any height
    # and width. Without the table it refuses the file.
    with zipfile.ZipFile(target, "a") as archive:
        for name, text in _files(classifier.metadata).items():
            archive.writestr(name, text)


FORMATS = {
    "onnx": Format(
        ending=".onnx",
        packages=("onnx", "tf2onnx", "onnxruntime"),
        write=_write_onnx,
        half=True,
        note="The labels are in the model's metadata under `labels`, as JSON. The second output, "
        "`features`, is what the backbone gives for each photo.",
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
        packages=("openvino", "scipy"),
        write=_write_openvino,
        half=True,
        note="Two files, `.xml` and `.bin`, that belong together. Compile the model with "
        "INFERENCE_PRECISION_HINT f32: without it, newer processors compute in bfloat16, which "
        "changes probabilities by 0.01. The labels are in `rt_info` under `fashion_keras` as JSON, "
        "and under `model_info` as OpenVINO's Model API needs them, with `_` for spaces.",
    ),
    "saved_model": Format(
        ending="_saved_model",
        packages=(),
        write=_write_saved_model,
        half=False,
        note="A folder; the labels are in `assets.extra/labels.txt`, one per line.",
    ),
}
