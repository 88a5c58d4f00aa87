"""Plain Xception with the thousand classes of ImageNet, as Keras distributes it."""

import contextlib
import sys
from typing import Any

import numpy as np

from fashion_keras.backend import keras
from fashion_keras.classifier import Classifier
from fashion_keras.model import patient_download

_SIDE = 299  # Of the photos that its weights were trained on.


def load_imagenet() -> Classifier:
    """Return the classifier of Chollet 2017; Keras downloads its weights (92 MB) once.

    Its classes are those of ImageNet: it knows a `jersey` and a `sweatshirt` but no t-shirt.

    Raises:
        InputError: If the weights or the names of the classes cannot be downloaded.
    """
    what = "the ImageNet weights of Xception and the names of its classes"
    # Keras reports downloads on standard output, where the rows are printed.
    with patient_download(what), contextlib.redirect_stdout(sys.stderr):
        xception: Any = keras.applications.Xception(weights="imagenet")
        ranked = keras.applications.xception.decode_predictions(np.eye(1000), top=1)
    pixels = keras.Input((None, None, 3), name="pixels")
    x = keras.layers.Resizing(_SIDE, _SIDE, interpolation="bilinear", name="resize")(pixels)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(x)
    model = keras.Model(pixels, xception(x, training=False), name="classifier")
    labels = [best[0][1] for best in ranked]
    return Classifier(model, {"labels": labels, "image_size": _SIDE, "backbone": "xception"})
