"""Tests of what is written for TensorBoard, read back with TensorBoard's own reader."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from fashion_keras.backend import keras
from fashion_keras.config import Config
from fashion_keras.report import tensor_board
from fashion_keras.report.outcome import Predictions

HISTORY = [
    {"epoch": epoch, "loss": 0.5, "accuracy": 0.6, "val_loss": 0.7, "val_accuracy": epoch / 10}
    for epoch in (3, 4)
]
RESULTS = {"validation_accuracy": 0.8, "validation_loss": 0.5}


def read(folder):
    return EventAccumulator(str(folder)).Reload()


def points(folder, tag):
    # Files of one second are read in the order of their names, in which 10 comes before 9.
    return sorted(
        (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
        for event in read(folder).Tensors(tag)
    )


def start_of(folder):
    content = read(folder).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    return metadata.parse_session_start_info_plugin_data(content)


def settings_of(folder):
    return {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in start_of(folder).hparams.items()
    }


def test_settings_results_and_curves_of_a_trial(tmp_path):
    settings = dataclasses.asdict(Config())
    run = tmp_path / "trial-001"
    tensor_board.add_run(run, settings, RESULTS, 60.0, HISTORY)
    assert settings_of(run) == settings
    assert start_of(run).group_name == f"{tmp_path.name}/trial-001"
    assert points(run, "validation_accuracy") == [(0, pytest.approx(0.8))]
    assert points(run, "epoch_val_accuracy") == [(2, pytest.approx(0.3)), (3, pytest.approx(0.4))]
    assert points(run, "epoch_loss") == [(2, 0.5), (3, 0.5)]
    (file,) = run.iterdir()
    written = file.read_bytes()
    tensor_board.add_run(run, {"droprate": 0.9}, RESULTS, 1.0, HISTORY)  # The search goes on.
    assert [found.read_bytes() for found in run.iterdir()] == [written]


def test_curves_of_a_training_and_of_epochs_from_the_cache(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data: tuple = (np.zeros((4, 2)), np.ones(4))
    callbacks = tensor_board.callbacks(tmp_path, "fine-tuning")
    epochs = keras.callbacks.CallbackList(callbacks, model=model)
    epochs.on_epoch_end(0, {"loss": 9.0, "val_loss": 7.0})
    given: Any = {"validation_data": data, "initial_epoch": 1, "epochs": 3, "verbose": 0}
    history = model.fit(*data, callbacks=callbacks, **given).history
    run = tmp_path / "fine-tuning"
    assert [step for step, _ in points(run / "train", "epoch_loss")] == [0, 1, 2]
    found = [value for _, value in points(run / "validation", "epoch_loss")]
    assert found == pytest.approx([7.0, *history["val_loss"]])
    tensor_board.add_run(tmp_path, {"droprate": 0.5}, RESULTS, 1.0)
    assert settings_of(tmp_path) == {"droprate": 0.5}


def test_nothing_is_written_without_a_folder(tmp_path):
    assert tensor_board.new_log_dir(None, "final") is None
    assert tensor_board.callbacks(None, "head") == []
    first = tensor_board.new_log_dir(tmp_path, "final")
    assert first is not None
    assert first.parent == tmp_path
    assert first.name.startswith("final-20")
    assert not list(tmp_path.iterdir())


def test_confusion_matrix_and_worst_predictions_are_pictures(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    scored = Predictions(
        ["one", "two"], np.array([0, 1]), np.array([[0.1, 0.9], [0.0, 1.0]]), ["hat", "shoes"]
    )
    files: dict = dict.fromkeys(scored.names, tmp_path / "photo.png")
    tensor_board.add_predictions(tmp_path / "run", scored, files)
    found = read(tmp_path / "run")
    for name in ("confusion matrix", "worst predictions"):
        (event,) = found.Tensors(name)
        width, height, png = event.tensor_proto.string_val
        image = Image.open(io.BytesIO(png))
        assert image.size == (int(width), int(height))
        assert np.asarray(image).std() > 0
