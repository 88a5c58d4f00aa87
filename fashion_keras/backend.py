"""Imports Keras, with TensorFlow's start-up messages hidden; other modules take it from here.

The messages are written to the process's own standard error, before any Python setting can
silence them. Set TF_CPP_MIN_LOG_LEVEL to 0, 1 or 2 to see them.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


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


if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Each trial of a search compiles a model of its own; TensorFlow warns of that as a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet(2):
        import keras
else:  # The user asks to see messages.
    import keras

__all__ = ["keras", "quiet"]
