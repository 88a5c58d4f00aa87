"""Imports Keras, with TensorFlow's start-up messages hidden; other modules take both from here.

The messages are written to the process's own standard error, before any Python setting can
silence them. Set TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2 to see them.
"""

import collections
import contextlib
import functools
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras.config import InputError

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "openvino": "OpenVINO"}
# Backends that train, and what lets them see NVIDIA's cards.
TRAIN = {
    "tensorflow": 'pip install "fashion_keras[gpu]"',
    "jax": 'pip install "jax[cuda12]"',
    "torch": "the build for CUDA, see https://pytorch.org/get-started",
}
DETERMINISTIC = "FASHION_KERAS_DETERMINISTIC"  # Variable that enables determinism everywhere.


@contextlib.contextmanager
def quiet(*outputs: int) -> Iterator[None]:
    """Hide what is written to the process's own outputs, from C++ as well; show it after an error.

    After an `InputError` it stays hidden: its message is enough.

    Args:
        outputs: 1 for standard output, 2 for standard error.
    """
    sys.stdout.flush()
    originals = {number: os.dup(number) for number in outputs}
    with tempfile.TemporaryFile() as hidden:
        complete = False
        try:
            for number in outputs:
                os.dup2(hidden.fileno(), number)
            yield
            complete = True
        except InputError:
            complete = True
            raise
        finally:
            sys.stdout.flush()
            for number, original in originals.items():
                os.dup2(original, number)
                os.close(original)
            if not complete:
                hidden.seek(0)
                os.write(2, hidden.read())


def _quiet_start() -> contextlib.AbstractContextManager[None]:
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":  # The user asks for messages.
        return contextlib.nullcontext()
    # Each trial of a search compiles a model of its own; TensorFlow warns of that as a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return quiet(2)


def _not_started(error: Exception) -> InputError:
    """Return what to do where Keras cannot be imported."""
    if getattr(error, "name", "") == "keras":
        return InputError(
            "Keras is not installed: install all of fashion_keras (README). Without it `predict`, "
            "`evaluate`, `serve` and `describe` take an .onnx file."
        )
    found = [name for name in TRAIN if importlib.util.find_spec(name)]
    settings = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    return InputError(
        f"Keras does not start: {error}. Set the variable KERAS_BACKEND to a backend that is "
        f"installed ({', '.join(found) or 'none'}; or install another one with pip), and correct "
        f"{settings}, if it exists."
    )


os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # Other programs use the cards, too.
try:
    with _quiet_start():
        import keras
except (ImportError, ValueError) as problem:
    raise _not_started(problem) from problem
# What a user's keras.json says otherwise is for other programs.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)


@functools.cache
def tensorflow() -> Any:
    """Return TensorFlow, which reads batches under every backend; None if it is not installed."""
    if not importlib.util.find_spec("tensorflow"):
        return None
    with _quiet_start():
        import tensorflow as tf
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")  # It would take memory of the cards.
    return tf


class Card(NamedTuple):
    """A graphics card that the backend computes on."""

    name: str = "graphics card"
    capability: tuple[int, ...] = ()  # NVIDIA's compute capability, such as (8, 0).


@functools.cache
def cards() -> list[Card]:
    """Return the graphics cards that the backend computes on."""
    name = keras.backend.backend()
    if name == "tensorflow":
        config = tensorflow().config
        found = config.list_physical_devices("GPU")
        details = map(config.experimental.get_device_details, found)
        names = "device_name", "compute_capability"
        return [Card(*(one[name] for name in names if name in one)) for one in details]
    if name == "jax":
        found = [one for one in sys.modules["jax"].devices() if one.platform != "cpu"]
        return [Card(one.device_kind, _numbers(one)) for one in found]
    if name != "torch":
        return []
    torch: Any = sys.modules["torch"]
    if torch.backends.mps.is_available():
        return [Card("Apple GPU")]
    facts = torch.cuda.get_device_name, torch.cuda.get_device_capability
    return [Card(*(fact(n) for fact in facts)) for n in range(torch.cuda.device_count())]


def _numbers(card: Any) -> tuple[int, ...]:
    text = getattr(card, "compute_capability", "")  # `9.0`; AMD's are words.
    return tuple(int(part) for part in str(text).split(".") if part.isdecimal())


def device() -> str:
    """Return what computes, for people: `TensorFlow 2.21 on CPU, 2 cores`."""
    name = keras.backend.backend()
    version = ".".join(sys.modules[name].__version__.split(".")[:2])
    counts = collections.Counter(card.name for card in cards())
    found = [f"{count} x {card}" if count > 1 else card for card, count in counts.items()]
    where = " and ".join(found) or f"CPU, {os.cpu_count()} cores"
    return f"{NAMES.get(name, name)} {version} on {where}"


def check_device() -> None:
    """Refuse a backend that cannot train; warn of a graphics card that is not used."""
    name = keras.backend.backend()
    if name not in TRAIN:
        raise InputError(
            f"Keras' backend {name} cannot train. Set the variable KERAS_BACKEND to one of "
            f"{', '.join(TRAIN)}."
        )
    hidden = {os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("JAX_PLATFORMS")}
    there = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")
    if there and not cards() and not hidden & {"", "-1", "cpu"}:
        print(
            f"WARNING: there is an NVIDIA graphics card, but {NAMES[name]} does not see it and "
            f"computes on the CPU, many times slower. Try: {TRAIN[name]}",
            file=sys.stderr,
            flush=True,
        )


def enable_determinism() -> None:
    """Let each operation give the same bits each time; call it before anything is computed.

    Worker processes inherit the variable.
    """
    os.environ[DETERMINISTIC] = "1"
    keras.utils.set_random_seed(1)
    name = keras.backend.backend()
    if name == "tensorflow":
        tensorflow().config.experimental.enable_op_determinism()
    elif name == "jax":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"
    elif name == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        sys.modules["torch"].use_deterministic_algorithms(True)


if os.environ.get(DETERMINISTIC):
    enable_determinism()


@contextlib.contextmanager
def all_cards() -> Iterator[int]:
    """Share the training of what is built within among all graphics cards; yield their number.

    Torch uses one.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        config = tensorflow().config
        found = config.list_logical_devices("GPU") or config.list_logical_devices("CPU")
        devices = [one.name for one in found]
    else:
        devices = keras.distribution.list_devices() if name == "jax" else []
    if len(devices) < 2:
        yield 1
        return
    print(f"working on {len(devices)} devices", flush=True)
    if name == "tensorflow":
        shared = tensorflow().distribute.MirroredStrategy(devices)
    else:
        shared = keras.distribution.DataParallel(devices=devices)
    with shared.scope():
        yield len(devices)


def array(tensor: Any) -> np.ndarray:
    """Return a tensor of any backend as an array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def torch_generator() -> Any:
    """Return what holds the state of Torch's random numbers, which no variable does; or None."""
    torch: Any = sys.modules["torch"] if keras.backend.backend() == "torch" else None
    return torch and (torch.cuda if torch.cuda.is_available() else torch)
