"""Measures precisions, several devices, and too little memory, on real photos and weights.

    python -m tests.benchmarks.devices --data clothing --model results/final/fashion.keras

Speeds: photos in a second of one core's time (so that other work beside it does not count)
through Xception and in a step of fine-tuning from `block11`, in each precision, in turns on the
same pixels; the best of two. Differences: probabilities of the saved model for the validation
photos at 150 px in each precision against float32. Devices: the tests' program on one and two
halves of the CPU. Memory: 1024 photos of 71 px at once, with 1 GB left, in processes with a limit.
Writes `results/benchmarks/devices.json`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fashion_keras import cli, load_classifier
from fashion_keras.backbone import BACKBONE, unfreeze
from fashion_keras.config import PRECISIONS, Config
from fashion_keras.data.batches import class_numbers, load_split
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.data.sample import draw_sample
from fashion_keras.devices import copied
from fashion_keras.files import whole_file
from fashion_keras.model import build_classifier, build_feature_model, build_head, build_top
from fashion_keras.optimizer import compile_model

SIZES = {150: 16, 299: 8}  # Side in pixels: photos in a batch.
ROUNDS = 2


def best_rates(steps: dict[str, Callable[[], Any]], photos: int) -> dict[str, float]:
    """Return photos in a second of a core of each step, in turns after one that compiles."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return {name: round(photos / min(taken[1:]), 2) for name, taken in times.items()}


def forward_rates(backbone: keras.Model, size: int, photos: int) -> dict[str, float]:
    """Return the speeds of the way through the backbone."""
    pixels = np.random.default_rng(1).uniform(0, 255, (photos, size, size, 3)).astype("float32")
    models = {name: build_feature_model(copied(backbone, name)) for name in PRECISIONS}
    return best_rates(
        {name: lambda m=model: m.predict_on_batch(pixels) for name, model in models.items()}, photos
    )


def tuning_rates(backbone: keras.Model, photos: int = 32) -> dict[str, float]:
    """Return the speeds of fine-tuning from block 11 (in float16 a step takes minutes)."""
    generator = np.random.default_rng(1)
    maps = generator.random((photos, 10, 10, 728)).astype("float32")
    labels = np.eye(10, dtype="float32")[generator.integers(0, 10, photos)]
    steps = {}
    for name in ("float32", "mixed_bfloat16"):
        copy = copied(backbone, name)
        unfreeze(copy)
        top = build_top(copy, build_head(Config(), 10), "block11")
        compile_model(top, Config(learning_rate=1e-4))
        steps[name] = lambda top=top: top.train_on_batch(maps, labels)
    return best_rates(steps, photos)


def differences(model: Path, prepared: Prepared, size: int) -> dict[str, dict[str, float]]:
    """Return how far each precision moves probabilities, and accuracy, on validation."""
    saved = load_classifier(model)
    backbone, head = (saved.model.get_layer(name) for name in (BACKBONE, "head"))
    numbers = class_numbers(prepared, "validation")
    found = {}
    for name in PRECISIONS:
        warmth = saved.metadata["temperature"]
        whole = build_classifier(copied(backbone, name), head, size, temperature=warmth)
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


def two_devices() -> dict[str, float]:
    """Return the largest differences between one and two devices."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = draw_sample(folder / "sample", {"train": 4, "validation": 2, "test": 2})
        for number in ("1", "2"):
            words = [sys.executable, "-m", "tests.two_devices", number, str(photos), str(folder)]
            words += ["even", "odd", "pixels", "dropout"]
            subprocess.run(words, check=True)
        one, two = (dict(np.load(folder / f"devices-{number}.npz")) for number in (1, 2))
    return {
        name: float(np.abs(one[name].astype("f8") - two[name].astype("f8")).max()) for name in one
    }


LIMITED = """
import resource, sys
from fashion_keras import headroom
import numpy as np
from fashion_keras.backbone import build_backbone
from fashion_keras.forward import forward
backbone = build_backbone("none")
pixels = np.zeros((1024, 71, 71, 3), "float32")
list(forward([(pixels[:2], np.zeros(2))], backbone, None))  # Starts all threads.
used = headroom._field(headroom.Path("/proc/self/status"), "VmSize:")
resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, -1))
if sys.argv[1] == "unchecked":
    headroom.memory_left = lambda: None
((found, numbers),) = forward([(pixels, np.zeros(1024))], backbone, None)
print(found["vectors"].shape, len(numbers))
"""


def too_little_memory() -> dict[str, dict[str, Any]]:
    """Return how a batch ends that is too large, with and without a look at memory beforehand."""
    found = {}
    for name in ("checked", "unchecked"):
        ended = subprocess.run(
            [sys.executable, "-c", LIMITED, name], capture_output=True, text=True, check=False
        )
        found[name] = {"exit_code": ended.returncode, "said": ended.stdout.splitlines()}
    return found


def main() -> None:
    """Measure all, and write what was found."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.devices")
    cli.add_config_options(options, ("data",), Config())
    options.add_argument("--model", type=Path, required=True, help="a saved classifier")
    cli.add_folder_options(options)
    given = options.parse_args()
    prepared = prepare(cli.chosen(given, Config()).data, given.cache)
    backbone = load_classifier(given.model).model.get_layer(BACKBONE)
    parts: dict[str, Callable[[], Any]] = {
        "differences_at_150": lambda: differences(given.model, prepared, 150),
        "forward": lambda: {
            size: forward_rates(backbone, size, photos) for size, photos in SIZES.items()
        },
        "fine_tuning": lambda: tuning_rates(backbone),
        "too_little_memory": too_little_memory,
        "largest_differences_of_two_devices": two_devices,
    }
    result: dict[str, Any] = {"validation_photos": len(prepared.split("validation"))}
    file = given.results / "benchmarks" / "devices.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in parts.items():
        result |= {name: measure(), "run": cli.provenance(start)}
        print(name, json.dumps(result[name]), flush=True)
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
