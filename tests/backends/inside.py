"""Loads a `.keras` file with plain Keras and predicts photos; runs inside an environment.

    python inside.py MODEL PHOTOS FOUND

PHOTOS is a folder of `.npy` files, one photo each, `(height, width, 3)` uint8. Into the folder
FOUND go `probabilities.npz` and `found.json`. Nothing of this project is imported: it is not
installed there.
"""

import base64
import importlib.metadata
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

SAVED_AGAIN, PREDICTED = 2, 8  # OpenVINO takes seconds for each photo, so a few are enough.


def labels_in(file: Path) -> list[str]:
    """Return the labels in the name of the last layer, read with the standard library alone."""
    with zipfile.ZipFile(file) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    packed = layers[-1]["config"]["name"].removeprefix("facts_")
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))["labels"]


def call(model: Any, photos: list[np.ndarray]) -> np.ndarray:
    """Return the probabilities `(photos, classes)`, each photo by itself in its own size.

    The model is called, not compiled: JAX and OpenVINO would compile it again for each size.
    """
    return np.concatenate([_array(model(photo[None], training=False)) for photo in photos])


def predict(model: Any, photos: list[np.ndarray]) -> np.ndarray:
    """Return the probabilities, the photos in one batch, each resized by the model's own layer."""
    resize = model.get_layer("resize")
    same = [_array(resize(photo[None].astype("float32"))) for photo in photos]
    return model.predict(np.concatenate(same), batch_size=len(same), verbose=0)


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def main() -> None:
    """Load, predict, save, load and predict again; write what was found."""
    file, folder, found = map(Path, sys.argv[1:])
    photos = [np.load(photo) for photo in sorted(folder.glob("*.npy"))]
    start = time.monotonic()
    model: Any = keras.saving.load_model(file)
    loaded = time.monotonic()
    probabilities: dict[str, Any] = {"called": call(model, photos)}
    called = time.monotonic()
    probabilities["predicted"] = predict(model, photos[:PREDICTED])
    model.save(found / "saved_again.keras")
    again: Any = keras.saving.load_model(found / "saved_again.keras")
    probabilities["saved_again"] = call(again, photos[:SAVED_AGAIN])
    np.savez(found / "probabilities.npz", **probabilities)
    package = importlib.metadata.packages_distributions()[keras.backend.backend()][0]
    facts = {
        "labels": labels_in(found / "saved_again.keras"),
        "load_seconds": round(loaded - start, 2),
        "call_seconds": round(called - loaded, 2),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", package)},
    }
    (found / "found.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
