"""Train, test and use a classifier of clothing photos with Keras.

Importing the package imports Keras once, with TensorFlow's start-up messages hidden: they are
written to the process's own standard error, before any Python setting can silence them. It takes
seconds, in which a command that is told to end does so at once.
"""

from fashion_keras.ending import end_at_once

end_at_once()  # Before all other imports: they take time, too.

import contextlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402

__version__ = "0.1.0"


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
        went_well = False
        try:
            yield
            went_well = True
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if not went_well:
                held_back.seek(0)
                os.write(2, held_back.read())


with _quiet_start():
    import keras as _keras  # noqa: F401

from fashion_keras.classifier import Classifier, Prediction, load_classifier  # noqa: E402

__all__ = ["Classifier", "Prediction", "load_classifier"]
