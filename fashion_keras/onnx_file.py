"""An `.onnx` file of the export, run by ONNX Runtime: neither Keras nor TensorFlow is needed."""

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.config import InputError

Run = Callable[[np.ndarray], np.ndarray]

SUFFIX = ".onnx"
INPUT, OUTPUT = "pixels", "probabilities"
_METADATA_PROPS = 14  # Of the message ModelProto: pairs of name and text.


def open_onnx(path: Path) -> Run:
    """Open an exported classifier with ONNX Runtime, on the processor and in float32.

    Args:
        path: A file that `python -m fashion_keras.export --format onnx` wrote.

    Returns:
        A function that maps pixels `(batch, height, width, 3)`, of any size, from 0 to 255, to
        probabilities `(batch, classes)`, in any thread.

    Raises:
        InputError: If the file is damaged or no such export, or ONNX Runtime is not installed.
    """
    onnxruntime = _import_runtime(path)
    options = onnxruntime.SessionOptions()
    # TensorFlow's variable, which `serve --workers` sets; 0 is a thread per core.
    options.intra_op_num_threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each kind, without a common one.
        raise _damaged(path, error) from error
    names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if names != [INPUT, OUTPUT]:
        raise _of_others(path)
    return lambda pixels: session.run([OUTPUT], {INPUT: pixels.astype("float32")})[0]


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts in an exported classifier: `labels` and `metadata`, both JSON.

    Only they are read: to open the file with ONNX Runtime takes 0.2 s and 150 MB.

    Raises:
        InputError: If the file does not exist, is damaged or no such export.
    """
    if not path.is_file():
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.export --format onnx` makes one."
        )
    try:
        fields = list(_fields(np.memmap(path, "uint8", "r")))
        pairs = [_fields(content) for number, content in fields if number == _METADATA_PROPS]
        texts = dict([text.tobytes().decode() for _, text in pair] for pair in pairs)
    except (IndexError, ValueError) as error:
        raise _damaged(path, error) from error
    if not {"labels", "metadata"} <= texts.keys():
        raise _of_others(path)
    return texts


def _fields(message: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and bytes of each field of a message of Protocol Buffers, but for integers.

    A key has the field's number and, in its last three bits, its type: 0 for an integer, 2 for
    bytes, whose length follows.
    """
    place = 0

    def integer() -> int:  # Seven bits a byte, the lowest first; the last byte is under 128.
        nonlocal place
        value = shift = 0
        while True:
            byte = int(message[place])
            value |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                return value

    while place < len(message):
        key, value = integer(), integer()
        if key & 7 == 2 and place + value <= len(message):
            yield key >> 3, message[place : place + value]
            place += value
        elif key & 7:
            raise ValueError(f"no field of ONNX at byte {place}")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged, or no .onnx file (copy or export it again): {str(error)[:300]}"
    )


def _of_others(path: Path) -> InputError:
    return InputError(
        f"{path} is no export of this project; `python -m fashion_keras.export MODEL --format "
        "onnx` makes one."
    )


def _import_runtime(path: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # It would send messages to its maker.
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} needs ONNX Runtime, which is not installed. Run `pip install onnxruntime`."
        ) from error
