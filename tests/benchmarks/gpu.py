"""Measures training on a graphics card, where neither TensorFlow nor a network is.

    python -m tests.benchmarks.gpu pack --data clothing --weights imagenet PACK
    KERAS_BACKEND=jax timeout 120 python -m tests.benchmarks.gpu run PACK
    KERAS_BACKEND=jax timeout 150 python -m tests.benchmarks.gpu run PACK --recipes recipes.json

`pack` puts what is needed beside this repository into pieces of at most 60 MB: photos for training
and validation, weights in half precision, and wheels of small packages. `run` measures photos per
second of features and of fine-tuning from pixels, with augmentation in the model and without, each
beside the bare step on photos that lie on the card, and the memory of the card. With `--recipes`, a
JSON list of objects of fields of `Config`, it trains these, and notes validation accuracy. Each
finding is at once in `results/benchmarks/gpu.json`, where `used` is the reached share of the bare
step's speed.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import cli
from fashion_keras.config import Config, InputError
from tests.benchmarks import gpu_pack
from tests.benchmarks.common import provenance, timed, write

BASE = Config(fine_tune_from="pixels")
PACKED = ("data", "weights", "backbone")
FIELDS = ("image_size", "batch_size", "feature_batch_size", "precision")
SECONDS = 2.0  # That a speed is measured for; compiling takes more.

Note = Callable[[dict[str, Any]], None]


def read_recipes(file: Path, base: Config) -> list[Config]:
    """Return the configurations of a JSON list of objects of fields that differ from `base`."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return [dataclasses.replace(base, **fields) for fields in found]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"Expected a JSON list of objects of fields in {file}: {error}") from error


def keep(results: Path, part: str, found: dict[str, Any]) -> None:
    """Add findings of a part, a name of its own in the file, to the results; print them."""
    print(part, json.dumps(found), flush=True)
    file = results / "benchmarks" / "gpu.json"
    parts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write(results, "gpu", parts | {part: parts.get(part, {}) | found | {"run": provenance()}})


def measure_speeds(config: Config, cache: Path, seconds: float, note: Note) -> None:
    """Measure features, then fine-tuning with augmentation in the model and without."""
    from fashion_keras.model import precision_in_force
    from fashion_keras.training import prepare_datasets

    datasets = prepare_datasets(config, cache)
    note({"precision": precision_in_force(config.precision)})
    note({"features": feature_speeds(config, datasets, seconds)})
    for name, copies in {"augmented": 1, "as_they_are": 0}.items():
        chosen = dataclasses.replace(config, fine_tuning_copies=copies)
        note({f"fine_tuning_{name}": tuning_speeds(chosen, datasets, seconds)})


def feature_speeds(config: Config, datasets: Any, seconds: float) -> dict[str, Any]:
    """Return photos per second through the frozen backbone: as they are, and augmented copies."""
    from fashion_keras.features import FeatureStore

    prepared, size = datasets.prepared, config.feature_batch_size
    compute, (pixels, _) = datasets.store.run(), on_card(config, prepared, size)
    bare = rate(lambda steps: [compute(pixels) for _ in range(steps)], size, seconds)
    train = prepared.split("train")[: size * whole_batches(prepared, size, bare * seconds)]
    some = prepared._replace(photos=[*train, *prepared.split("validation")[:size]])
    with tempfile.TemporaryDirectory() as name:
        store = FeatureStore(some, config, datasets.backbone, Path(name))
        store.make([("validation", 0), ("validation", 1)])  # Compiles.
        taken = timed(
            {f"copy_{copy}": lambda c=copy: store.make([("train", c)]) for copy in (0, 1)}
        )
    return compared(bare, {name: len(train) / value for name, value in taken.items()})


def tuning_speeds(config: Config, datasets: Any, seconds: float) -> dict[str, Any]:
    """Return photos per second of fine-tuning from pixels: bare, and with photos from the disk."""
    from fashion_keras import fine_tuning
    from fashion_keras.model import build_head

    prepared, size = datasets.prepared, config.batch_size
    head = build_head(config, len(prepared.labels))
    trainee, *_ = fine_tuning.build_trainee(config, datasets, head)
    rates = fine_tuning.learning_rates(config, len(prepared.split("train")))
    fine_tuning.compile_trainee(trainee, config, rates)
    batch = on_card(config, prepared, size)

    def fit(batches: Any, steps: int) -> None:
        trainee.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    bare = rate(lambda steps: fit(repeated(batch, steps), steps), size, seconds)
    train, _ = fine_tuning.fine_tuning_datasets(config, datasets)
    steps = whole_batches(prepared, size, bare * seconds)
    fit(train, 1)
    taken = timed({"from_disk": lambda: fit(train, steps)})
    return compared(bare, {name: size * steps / value for name, value in taken.items()})


def rate(work: Callable[[int], Any], photos: int, seconds: float) -> float:
    """Return photos per second of a work of so many steps, after one that compiles."""
    work(1)
    steps, taken = 1, 0.0
    while taken < seconds:
        steps *= 2
        (taken,) = timed({"": functools.partial(work, steps)}).values()
    return photos * steps / taken


def on_card(config: Config, prepared: Any, size: int) -> tuple[Any, Any]:
    """Return a batch of photos and their one-hot labels, on the device that computes."""
    from fashion_keras.backend import keras
    from fashion_keras.data.batches import load_split, one_hot

    batches = load_split(prepared, "train", config.image_size, size)
    pixels, labels = next(iter(one_hot(batches, len(prepared.labels))))
    convert = keras.ops.convert_to_tensor
    return convert(np.asarray(pixels)), convert(np.asarray(labels))


def repeated(batch: tuple, steps: int) -> Iterator[tuple]:
    """Yield a batch again and again: a generator, which Keras takes as a dataset."""
    for _ in range(steps):
        yield batch


def whole_batches(prepared: Any, size: int, photos: float) -> int:
    """Return the number of full batches in so many training photos: JAX compiles each size."""
    return max(1, min(len(prepared.split("train")), round(photos)) // size)


def compared(bare: float, ours: dict[str, float]) -> dict[str, Any]:
    """Return photos per second, the share of the bare speed that ours reach, and memory."""
    rates = {"bare": bare} | ours
    return {
        "photos_per_second": {name: round(value, 1) for name, value in rates.items()},
        "used": {name: round(value / bare, 3) for name, value in ours.items()},
        "peak_card_memory_gb": peak_card_memory(),
    }


def peak_card_memory() -> float | None:
    """Return what this process took of the card at most so far; None without a card."""
    from fashion_keras.backend import keras

    engine, peak = keras.backend.backend(), 0
    module: Any = sys.modules[engine]
    if engine == "jax":
        peak = (module.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    elif engine == "torch":
        peak = module.cuda.max_memory_allocated()
    elif module.config.list_logical_devices("GPU"):
        peak = module.config.experimental.get_memory_info("GPU:0")["peak"]
    return round(peak / 1e9, 2) or None


def train_recipes(configs: Sequence[Config], cache: Path, note: Note) -> None:
    """Train each configuration, and note its validation accuracy, epoch by epoch."""
    from fashion_keras.backend import keras
    from fashion_keras.fine_tuning import fine_tune
    from fashion_keras.training import prepare_datasets, train_head

    rows: list[dict[str, Any]] = []

    def record(stage: str, accuracy: float) -> None:
        taken = round(time.monotonic() - start, 1)
        rows[-1]["stages"][stage] = {"accuracy": round(accuracy, 4), "seconds": taken}
        note({"rows": rows})

    recorder = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: record(f"epoch {epoch + 1}", logs["val_accuracy"])
    )
    for config in configs:
        start = time.monotonic()
        rows.append({"recipe": differences(config), "stages": {}})
        try:
            datasets = prepare_datasets(config, cache)
            trained = train_head(config, datasets, cache)
            record("head", trained.best["val_accuracy"])
            if config.fine_tuning_epochs:
                tuned = fine_tune(config, datasets, trained, cache, [recorder])
                record("fine-tuning", tuned.validation["accuracy"])
        except InputError as error:  # Such as a loss that diverges; the others are tried.
            rows[-1]["error"] = str(error)
            note({"rows": rows})


def differences(config: Config) -> dict[str, Any]:
    """Return the fields of a recipe that differ from the defaults; all have the packed photos."""
    fields = dataclasses.asdict(config).items()
    return {name: x for name, x in fields if x != getattr(BASE, name) and name not in PACKED}


def _options() -> argparse.ArgumentParser:
    options = cli.parser(__doc__ or "", "tests.benchmarks.gpu")
    commands = options.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="make the pieces")
    packing.add_argument("--python", default="3.12", help="version there (default: %(default)s)")
    packing.add_argument("--packages", nargs="*", default=gpu_pack.PACKAGES, help="wheels to pack")
    cli.add_config_options(packing, PACKED, BASE)
    running = commands.add_parser("run", help="measure under the backend of KERAS_BACKEND")
    running.add_argument("--recipes", type=Path, metavar="FILE", help="JSON list of objects")
    cli.add_config_options(running, FIELDS, BASE)
    cli.add_results_option(running, "results", "what was measured")
    for command in (packing, running):
        cli.add_cache_option(command)
        command.add_argument("folder", type=Path, metavar="PACK", help="folder of the pieces")
    return options


def main() -> None:
    """Make the pieces, or measure."""
    given = _options().parse_args()
    config = cli.chosen(given, BASE)
    if given.command == "pack":
        gpu_pack.pack(config, given.cache, given.folder, given.python, given.packages)
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(given.cache / "compiled"))
    config = dataclasses.replace(config, **gpu_pack.unpack(given.folder, given.cache))
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if given.recipes:
        note = functools.partial(keep, given.results, f"recipes, {backend}")
        train_recipes(read_recipes(given.recipes, config), given.cache, note)
    else:
        note = functools.partial(keep, given.results, f"{backend}, {config.precision}")
        measure_speeds(config, given.cache, SECONDS, note)


if __name__ == "__main__":
    cli.run(main)
