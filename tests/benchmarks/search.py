"""Times the search against a plain Keras Tuner search on whole models, side by side.

    python -m tests.benchmarks.search --data clothing --weights imagenet

This project's search is run as users run it, from an empty cache: features, trials, finalists and
curves. The plain search is what a Keras Tuner user would write: the whole model with augmentation
inside, Keras' defaults. A few of its trials are run on every tenth photo of each class at the same
size; from these it is extrapolated to as many trainings and epochs, on all photos. Writes
`results/benchmarks/search.json`.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.model import WEIGHTS_VARIABLE
from fashion_keras.training import Recorder
from tests.benchmarks.common import link_share, parser, provenance, write
from tuning.space import sample_head

CONFIGURATIONS, EPOCHS, STEP = 5, 3, 10


def plain_model(
    base: Config, weights: str, classes: int, hp: keras_tuner.HyperParameters
) -> keras.Model:
    """Return what a user of Keras Tuner writes: augmentation, frozen backbone and head in one."""
    config = sample_head(hp, base)
    side = config.image_size
    backbone = keras.applications.Xception(
        include_top=False, weights=weights, input_shape=(side, side, 3)
    )
    backbone.trainable = False
    inputs = x = keras.Input((side, side, 3))
    if config.augmented_copies:
        x = keras.layers.RandomFlip("horizontal")(x)
        x = keras.layers.RandomRotation(config.rotation)(x)
        x = keras.layers.RandomZoom(config.zoom)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.GlobalAveragePooling2D()(backbone(x, training=False))
    x = keras.layers.Dense(config.inner_size, activation="relu")(x)
    x = keras.layers.Dropout(config.droprate)(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.Adam(config.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class EpochClock(Recorder):
    """Records the epochs of all trials: Keras Tuner copies callbacks for each of them."""

    def __deepcopy__(self, _: dict) -> "EpochClock":
        return self


def plain_search(base: Config, prepared: Prepared, weights: str, folder: Path) -> dict[str, float]:
    """Search as a Keras Tuner user would; return what an epoch and a training take."""
    side = (base.image_size, base.image_size)
    train, validation = (
        keras.utils.image_dataset_from_directory(
            prepared.folder / split, image_size=side, seed=1, verbose=False
        )
        for split in ("train", "validation")
    )
    build = functools.partial(plain_model, base, weights, len(prepared.labels))
    options: Any = {"max_trials": CONFIGURATIONS, "seed": 1, "directory": folder}
    tuner = keras_tuner.RandomSearch(build, "val_accuracy", **options)
    start, clock = time.monotonic(), EpochClock()
    tuner.search(train, validation_data=validation, epochs=EPOCHS, verbose=0, callbacks=[clock])
    seconds = time.monotonic() - start
    # The first one compiles.
    epoch = statistics.median(row["seconds"] for row in clock.history if row["epoch"] > 1)
    return {
        "seconds": round(seconds, 1),
        "photos": len(prepared.split("train")),
        "seconds_an_epoch": round(epoch, 3),
        "seconds_more_a_training": round(seconds / CONFIGURATIONS - EPOCHS * epoch, 3),
    }


def our_search(data: str, weights: str, folder: Path) -> dict[str, Any]:
    """Run the command; return its seconds, and how much it trained."""
    words = ["tuning.search", "--stage", "head", "--data", data, "--weights", weights]
    words += ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], check=True)
    seconds = time.monotonic() - start
    trained = [json.loads(file.read_text())["rows"] for file in folder.rglob("trials/*.json")]
    stages = json.loads((folder / "results/search/search.json").read_text())["run"]["stages"]
    epochs = sum(map(len, trained))
    found = {"seconds": round(seconds, 1), "trainings": len(trained), "epochs": epochs}
    return found | {"stages": stages}


def main() -> None:
    """Run both and compare."""
    base = Config(image_size=150)
    given = parser("search", __doc__, ("data", "weights"), base).parse_args()
    base = cli.chosen(given, base)
    copy = os.environ.get(WEIGHTS_VARIABLE) if base.weights == "imagenet" else None
    whole = prepare(base, given.cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = our_search(base.data, copy or base.weights, folder / "ours")
        print("ours", ours, flush=True)
        tenth = prepare(Config(data=link_share(whole, folder / "tenth", STEP)), folder)
        plain = plain_search(base, tenth, copy or base.weights, folder / "plain")
        print("plain", plain, flush=True)
    share = len(whole.split("train")) / plain["photos"]
    expected = share * ours["epochs"] * plain["seconds_an_epoch"]
    expected += ours["trainings"] * plain["seconds_more_a_training"]
    result = {
        "ratio": round(expected / ours["seconds"], 1),
        "ours": ours,
        "plain": plain | {"whole_search_seconds": round(expected)},
        "run": provenance(),
    }
    file = write(given.results, "search", result)
    print(f"ratio {result['ratio']}; {file}")


if __name__ == "__main__":
    cli.run(main)
