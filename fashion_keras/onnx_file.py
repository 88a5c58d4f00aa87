"""An `.onnx` file of the export, run by ONNX Runtime: neither Keras nor TensorFlow is needed."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.config import InputError

Run = Callable[[np.ndarray], np.ndarray]

SUFFIX = ".onnx"
INPUT, OUTPUT, FEATURES = "pixels", "probabilities", "features"


def open_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    """Open an exported classifier with ONNX Runtime, on the processor and in float32.

    Args:
        path: A file that `python -m fashion_keras.export --format onnx` wrote.

    Returns:
        A function that maps pixels `(batch, height, width, 3)`, of any size, from 0 to 255, to
        probabilities and features side by side, `(batch, classes + channels)`, in any thread; and
        the texts in the file: `labels` and `metadata`, both JSON, and perhaps `class_means`.
        Exports of earlier versions give no features.

    Raises:
        InputError: If the file is missing, damaged or no such export, or ONNX Runtime is not
            installed.
    """
    if not path.is_file():
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.export --format onnx` makes one."
        )
    onnxruntime = _import_runtime(path)
    options = onnxruntime.SessionOptions()
    # TensorFlow's variable, which `serve --workers` sets; 0 is a thread per core.
    options.intra_op_num_threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each kind, without a common one.
        raise InputError(
            f"{path} is damaged, or no .onnx file (copy or export it again): {str(error)[:300]}"
        ) from error
    ends = session.get_inputs(), session.get_outputs()
    inputs, outputs = ([one.name for one in found] for found in ends)
    texts = session.get_modelmeta().custom_metadata_map
    known = inputs == [INPUT] and outputs in ([OUTPUT], [OUTPUT, FEATURES])
    if not known or not {"labels", "metadata"} <= texts.keys():
        raise InputError(
            f"{path} is no export of this project; `python -m fashion_keras.export MODEL --format "
            "onnx` makes one."
        )

    def run(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate(session.run(outputs, {INPUT: pixels.astype("float32")}), axis=1)

    return run, texts


def _import_runtime(path: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # It would send messages to its maker.
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} needs ONNX Runtime, which is not installed. Run `pip install onnxruntime`."
        ) from error
