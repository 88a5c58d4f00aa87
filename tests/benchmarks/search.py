"""Times the search against a plain Keras Tuner search on whole models, side by side.

    python -m tests.benchmarks.search --data clothing --weights imagenet

The same ten configurations are trained for the same number of epochs on every tenth photo of each
class at 150 px: (a) as a Keras Tuner user would, the whole model with augmentation inside, Keras'
defaults; (b) with this project, features included. From the counted epochs and trials
both are extrapolated to the default search on all photos. Writes
`results/benchmarks/search.json`; its `ratio` is the extrapolated one.
"""

import dataclasses
import functools
import os
import statistics
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
from fashion_keras.training import Recorder, head_data, open_datasets
from tests.benchmarks.common import link_share, parser, provenance, write
from tuning.hypermodel import FashionHyperModel
from tuning.oracle import Oracle, Plan
from tuning.space import sample_config

CONFIGURATIONS, EPOCHS, STEP = 10, 3, 10


def plain_model(
    base: Config, weights: str, classes: int, hp: keras_tuner.HyperParameters
) -> keras.Model:
    """Return what a user of Keras Tuner writes: augmentation, frozen backbone and head in one."""
    config = sample_config(hp, base)
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


def timed_search(hypermodel: Any, folder: Path, *data: Any, **options: Any) -> dict:
    """Run the ten configurations; return times, configurations and accuracies."""
    start, clock = time.monotonic(), EpochClock()
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        "val_accuracy",
        max_trials=CONFIGURATIONS,
        seed=1,
        directory=folder,
        project_name="s",
    )
    tuner.search(*data, epochs=EPOCHS, verbose=0, callbacks=[clock], **options)
    seconds = time.monotonic() - start
    # The first one compiles.
    epoch = statistics.median(row["seconds"] for row in clock.history if row["epoch"] > 1)
    trials = [tuner.oracle.trials[name] for name in sorted(tuner.oracle.trials)]
    return {
        "seconds": round(seconds, 1),
        "seconds_an_epoch": round(epoch, 3),
        "seconds_more_a_trial": round(seconds / CONFIGURATIONS - EPOCHS * epoch, 3),
        "configurations": [trial.hyperparameters.values for trial in trials],
        "val_accuracies": [round(trial.score or 0, 4) for trial in trials],
    }


def plain_search(base: Config, prepared: Prepared, weights: str, folder: Path) -> dict:
    """Search as a Keras Tuner user would."""
    side = (base.image_size, base.image_size)
    train, validation = (
        keras.utils.image_dataset_from_directory(
            prepared.folder / split, image_size=side, seed=1, verbose=False
        )
        for split in ("train", "validation")
    )
    build = functools.partial(plain_model, base, weights, len(prepared.labels))
    return timed_search(build, folder, train, validation_data=validation)


def our_search(base: Config, prepared: Prepared, folder: Path) -> dict:
    """Search with this project, features included."""
    start = time.monotonic()
    data = head_data(base, open_datasets(base, prepared, folder))
    seconds = round(time.monotonic() - start, 1)
    return {"seconds_for_features": seconds, **timed_search(FashionHyperModel(base, data), folder)}


def whole_search_seconds(outcome: dict, photos: float, trials: int, epochs: int) -> float:
    """Extrapolate to all trials, epochs and photos; starting a trial costs the same on any data."""
    grows = outcome.get("seconds_for_features", 0) + epochs * outcome["seconds_an_epoch"]
    return photos * grows + trials * outcome["seconds_more_a_trial"]


def both_searches(base: Config, whole: Prepared) -> tuple[dict, dict, Plan, int]:
    """Run both on a tenth; return their outcomes, the default plan and the number of photos."""
    copy = os.environ.get(WEIGHTS_VARIABLE) if base.weights == "imagenet" else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tenth = prepare(link_share(whole, folder / "tenth", STEP), folder)
        ours = our_search(base, tenth, folder / "ours")
        print("ours", ours, flush=True)
        plain = plain_search(base, tenth, copy or base.weights, folder / "plain")
        print("plain", plain, flush=True)
        plan = Oracle(base, 30, 3, folder / "plan").plan()
    if ours["configurations"] != plain["configurations"]:
        raise RuntimeError("the two searches drew different configurations")
    return ours, plain, plan, len(tenth.split("train"))


def main() -> None:
    """Run both and compare."""
    base = Config(image_size=150)
    given = parser("search", __doc__, ("data", "weights", "augmented_copies"), base).parse_args()
    base = dataclasses.replace(cli.chosen(given, base), epochs=EPOCHS)
    whole = prepare(base.data, given.cache)
    ours, plain, plan, photos = both_searches(base, whole)
    every = len(whole.split("train"))
    seconds = {
        name: round(whole_search_seconds(outcome, every / photos, plan.trials, plan.epochs))
        for name, outcome in (("plain", plain), ("ours", ours))
    }
    measured_ratio = plain["seconds"] / (ours["seconds"] + ours["seconds_for_features"])
    result = {
        "ratio": round(seconds["plain"] / seconds["ours"], 1),
        "ratio_of_the_measured_part": round(measured_ratio, 2),
        "whole_search_seconds": seconds,
        "whole_search": {"trials": plan.trials, "epochs": plan.epochs, "photos": every},
        "measured": {"trials": CONFIGURATIONS, "epochs_each": EPOCHS, "photos": photos},
        "plain": plain,
        "ours": ours,
        "run": provenance(),
    }
    file = write(given.results, "search", result)
    print(f"ratio {result['ratio']}; {file}")


if __name__ == "__main__":
    cli.run(main)
