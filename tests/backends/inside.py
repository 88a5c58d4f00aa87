"""Loads a `.keras` file with plain Keras and predicts photos; runs inside an environment.

    python inside.py MODEL PHOTOS FOUND

PHOTOS is a folder of `.npy` files, one photo each, `(height, width, 3)` uint8. Into the folder
FOUND go `probabilities.npz`, `facts.json`, and `saved_again.keras`. Nothing of this project is
imported: it is not installed there.
"""

import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

# How many photos are enough, where not all are shown (OpenVINO takes seconds for each).
REPEATED, SAVED_AGAIN, PREDICTED = 1, 2, 8


def call(model: Any, photos: list[np.ndarray]) -> np.ndarray:
    """Return the probabilities `(photos, classes)`, each photo by itself in its own size.

    The model is called, not compiled: JAX and OpenVINO would compile it anew for each size.
    """
    return np.concatenate([_array(model(photo[None], training=False)) for photo in photos])


def predict(model: Any, photos: list[np.ndarray]) -> np.ndarray:
    """Return the probabilities, the photos in one batch, resized one by one by the model's layer.

    Resizing a second time, inside the model, changes nothing.
    """
    resize = model.get_layer("resize")
    same = [_array(resize(photo[None].astype("float32"))) for photo in photos]
    return model.predict(np.concatenate(same), batch_size=len(same), verbose=0)


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def examine(model_file: Path, photos: list[np.ndarray], found: Path) -> tuple[dict, dict]:
    """Load, predict, predict again, save, load and predict.

    Returns:
        Probabilities: `called` of all photos, `repeated`, `saved_again` and `predicted` of the
        first few. Seconds: `load` and `called`.
    """
    start = time.monotonic()
    model: Any = keras.saving.load_model(model_file)
    loaded = time.monotonic()
    probabilities = {"called": call(model, photos)}
    seconds = {"load": loaded - start, "called": time.monotonic() - loaded}
    probabilities["repeated"] = call(model, photos[:REPEATED])
    probabilities["predicted"] = predict(model, photos[:PREDICTED])
    model.save(found / "saved_again.keras")
    again: Any = keras.saving.load_model(found / "saved_again.keras")
    probabilities["saved_again"] = call(again, photos[:SAVED_AGAIN])
    return probabilities, {name: round(value, 2) for name, value in seconds.items()}


def precision(backend: str) -> str:
    """Return what a compiled model computes in; OpenVINO takes bfloat16 where the CPU has it."""
    if backend != "openvino":
        return "float32"
    openvino: Any = importlib.import_module("openvino")
    kind = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
    return names.get(kind) or str(kind)


def versions(backend: str) -> dict[str, str]:
    """Return the versions of what is in use here."""
    owners = importlib.metadata.packages_distributions()
    packages = ["keras", owners[backend][0], "numpy"]
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def main() -> None:
    """Read the command line, examine and write what was found."""
    model, photos, found = map(Path, sys.argv[1:])
    pixels = [np.load(file) for file in sorted(photos.glob("*.npy"))]
    probabilities, seconds = examine(model, pixels, found)
    np.savez(found / "probabilities.npz", **probabilities)
    backend = keras.backend.backend()
    facts = {
        "backend": backend,
        "versions": versions(backend),
        "seconds": seconds,
        "precision": precision(backend),
        "has_project": importlib.util.find_spec("fashion_keras") is not None,
    }
    (found / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
