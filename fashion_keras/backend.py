"""Imports Keras, with TensorFlow's start-up messages hidden; other modules take both from here.

The messages are written to the process's own standard error, before any Python setting can
silence them. Set TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2 to see them.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet(*outputs: int) -> Iterator[None]:
    """Hide what is written to the process's own outputs, from C++ as well; show it after an error.

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


with _quiet_start():
    import keras


@functools.cache
def tensorflow() -> Any:
    """Return TensorFlow, which reads batches under every backend; None if it is not installed."""
    if not importlib.util.find_spec("tensorflow"):
        return None
    with _quiet_start():
        import tensorflow as tf
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")  # It would take all memory of the cards.
    return tf


@contextlib.contextmanager
def all_cards() -> Iterator[int]:
    """Share the training of what is built within among all graphics cards; yield their number."""
    if keras.backend.backend() != "tensorflow":
        yield 1
        return
    tf = tensorflow()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        yield 1
        return
    print(f"working on {len(devices)} devices", flush=True)
    with tf.distribute.MirroredStrategy([device.name for device in devices]).scope():
        yield len(devices)


__all__ = ["all_cards", "keras", "quiet", "tensorflow"]
