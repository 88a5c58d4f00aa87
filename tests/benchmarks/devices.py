"""Measures precisions on real photos and weights.

    python -m tests.benchmarks.devices --data clothing --model results/final/fashion.keras

Speeds: photos in a second of one core's time (so that other work beside it does not count)
through Xception and in a step of fine-tuning on feature maps, in each precision, in turns on the
same pixels; the best of two. Differences: probabilities of the saved model for the validation
photos at 150 px in each precision against float32. Writes `results/benchmarks/devices.json`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras import cli, load_classifier
from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import PRECISIONS, Config
from fashion_keras.data.batches import class_numbers, load_split
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.engine import converted
from fashion_keras.model import (
    build_classifier,
    build_feature_model,
    build_head,
    build_top,
    copied,
    feature_maps_shape,
    unfreeze,
)
from fashion_keras.training import compile_model
from tests.benchmarks.common import parser, provenance, timed, write

SIZES = {150: 16, 299: 8}  # Side in pixels: photos in a batch.
FIXED = PRECISIONS[1:]  # Without `auto`.
TRAINED = ("float32", "mixed_bfloat16")
ROUNDS = 2


def best_rates(steps: dict[str, Callable[[], Any]], photos: int) -> dict[str, float]:
    """Return photos in a second of a core of each step, in turns after one that compiles."""
    rounds = [timed(steps, time.process_time) for _ in range(ROUNDS + 1)][1:]
    return {name: round(photos / min(taken[name] for taken in rounds), 2) for name in steps}


def forward_rates(backbone: keras.Model, size: int, photos: int, cache: Path) -> dict[str, float]:
    """Return the speeds of the way through the backbone, by engine and precision."""
    pixels = np.random.default_rng(1).uniform(0, 255, (photos, size, size, 3)).astype("float32")
    model = build_feature_model(backbone)
    runs: dict[str, Any] = {
        name: build_feature_model(copied(backbone, name)).predict_on_batch for name in FIXED
    } | {
        f"OpenVINO, {name}": converted(model, size, cache, {"precision": name}) for name in TRAINED
    }
    return best_rates({name: lambda run=run: run(pixels) for name, run in runs.items()}, photos)


def tuning_rates(backbone: keras.Model, size: int, photos: int = 32) -> dict[str, float]:
    """Return the speeds of fine-tuning (in float16 a step takes minutes)."""
    generator, block = np.random.default_rng(1), ARCHITECTURES["xception"].block
    maps = generator.random((photos, *feature_maps_shape(backbone, block, size))).astype("float32")
    labels = np.eye(10, dtype="float32")[generator.integers(0, 10, photos)]
    steps = {}
    for name in TRAINED:
        copy = copied(backbone, name)
        unfreeze(copy, block)
        top = build_top(copy, build_head(Config(), 10), block)
        compile_model(top, keras.optimizers.Adam(1e-4), Config())
        steps[name] = lambda top=top: top.train_on_batch(maps, labels)
    return best_rates(steps, photos)


def differences(model: Path, prepared: Prepared, size: int) -> dict[str, dict[str, float]]:
    """Return how far each precision moves probabilities, and accuracy, on validation."""
    saved = load_classifier(model)
    backbone, head = (saved.model.get_layer(name) for name in ("xception", "head"))
    numbers = class_numbers(prepared, "validation")
    temperature, found = saved.metadata["temperature"], {}
    for name in FIXED:
        whole = build_classifier(copied(backbone, name), head, size, temperature=temperature)
        batches = load_split(prepared, "validation", size, 32)
        found[name] = np.concatenate([whole.predict_on_batch(pixels) for pixels, _ in batches])
    exact = found["float32"]
    return {
        name: {
            "largest_difference": round(float(np.abs(rows - exact).max()), 5),
            "mean_difference": round(float(np.abs(rows - exact).mean()), 6),
            "other_categories": int((rows.argmax(1) != exact.argmax(1)).sum()),
            "accuracy": round(float((rows.argmax(1) == numbers).mean()), 4),
        }
        for name, rows in found.items()
    }


def main() -> None:
    """Measure all, and write what was found after each part."""
    options = parser("devices", __doc__, ("data",))
    options.add_argument("--model", type=Path, required=True, help="a saved classifier")
    given = options.parse_args()
    prepared = prepare(cli.chosen(given, Config()), given.cache)
    backbone = load_classifier(given.model).model.get_layer("xception")
    parts: dict[str, Callable[[], Any]] = {
        "differences_at_150": lambda: differences(given.model, prepared, 150),
        "forward": lambda: {
            size: forward_rates(backbone, size, photos, given.cache)
            for size, photos in SIZES.items()
        },
        "fine_tuning": lambda: {size: tuning_rates(backbone, size) for size in SIZES},
    }
    result: dict[str, Any] = {"validation_photos": len(prepared.split("validation"))}
    for name, measure in parts.items():
        result |= {name: measure(), "run": provenance()}
        print(name, json.dumps(result[name]), flush=True)
        write(given.results, "devices", result)


if __name__ == "__main__":
    cli.run(main)
