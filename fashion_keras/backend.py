"""Imports Keras, with TensorFlow's start-up messages hidden; other modules take it from here.

The messages are written to the process's own standard error, before any Python setting can
silence them. Set TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2 to see them.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Hold back what is written to standard error; show it only if the import fails."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") != "3":  # The user asks to see messages.
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Each trial of a search compiles a model of its own; TensorFlow warns of that as a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as held_back:
        standard_error = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        complete = False
        try:
            yield
            complete = True
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if not complete:
                held_back.seek(0)
                os.write(2, held_back.read())


with _quiet_start():
    import keras

__all__ = ["keras"]
