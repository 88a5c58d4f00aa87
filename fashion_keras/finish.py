"""What follows training: calibrates a classifier, saves it, and tests the saved file once."""

import time
from pathlib import Path

import numpy as np

from fashion_keras.artifacts import sha256_of
from fashion_keras.classifier import Classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.evaluate import (
    Labelled,
    evaluate,
    headline,
    labelled,
    predict_all,
    write_metrics,
)
from fashion_keras.fine_tuning import FineTuned
from fashion_keras.metrics import fit_temperature
from fashion_keras.model import build_classifier
from fashion_keras.saving import add_metadata, save_classifier, training_metadata
from fashion_keras.stopwatch import stage

_TOLD = ("accuracy", "accuracy_interval", "correct", "photos", "macro_f1")


@stage("saving")
def save_calibrated(
    config: Config, prepared: Prepared, trained: FineTuned, file: Path, data_licence: str = ""
) -> float:
    """Save a trained classifier whose probabilities are calibrated on validation.

    Args:
        config: What it was trained with.
        prepared: What it was trained on.
        trained: Backbone and head.
        file: Where to save it (see `artifact.save_classifier`).
        data_licence: Licence of the photos, for the card.

    Returns:
        The temperature (see `metrics.fit_temperature`).
    """
    temperature = _temperature(config, prepared, trained)
    facts = training_metadata(config, prepared, trained.validation, data_licence)
    labels, size = prepared.labels, config.image_size
    save_classifier(trained.backbone, trained.head, labels, size, file, facts, temperature)
    print(f"probabilities calibrated on validation: temperature {temperature:.3f}", flush=True)
    return temperature


def _temperature(config: Config, prepared: Prepared, trained: FineTuned) -> float:
    model = build_classifier(trained.backbone, trained.head, config.image_size)
    card = {"labels": prepared.labels, "image_size": config.image_size}
    photos = labelled(prepared, "validation")
    # The way photos are predicted later, not the way of training, which decodes them differently.
    readable, probabilities, _ = predict_all(Classifier(model, card), photos, "calibrating")
    true = np.array([prepared.labels.index(photo.label) for photo in readable])
    return fit_temperature(true, probabilities)


@stage("scoring")
def score_once(file: Path, prepared: Prepared, results: Path) -> tuple[list[Labelled], dict]:
    """Score the saved file on the test split, every photo of it, once; the file then tells it.

    Args:
        file: The saved classifier.
        prepared: The data set.
        results: Folder for the files of `evaluate`.

    Returns:
        The photos and the numbers of `evaluate.evaluate`; nothing, if there is no such split.

    Raises:
        InputError: If a photo cannot be read any more.
    """
    start = time.monotonic()
    photos = labelled(prepared, "test")
    if not photos:
        print("the data has no test split: no test score")
        return [], {}
    metrics = evaluate(file, photos, results)
    if metrics["unreadable"]:
        raise InputError(f"This was readable and is not any more: {metrics['unreadable'][0]}.")
    add_metadata(file, {"test": {name: metrics[name] for name in _TOLD}})
    metrics["model_sha256"] = sha256_of(file)  # Of the file that now tells its own score.
    write_metrics(metrics, start, results / "metrics.json")
    print(f"test: {headline(metrics)}")
    return photos, metrics
