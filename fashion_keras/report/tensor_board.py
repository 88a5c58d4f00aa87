"""Writes what TensorBoard shows of training runs and trials: curves, settings, pictures."""

import argparse
import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.report.outcome import Predictions

_PHOTOS, _COLUMNS = 12, 4  # In the picture of the worst predictions.


def _folder(text: str) -> Path:
    if not importlib.util.find_spec("tensorflow"):
        raise argparse.ArgumentTypeError("TensorFlow writes it: pip install tensorflow")
    return Path(text)


def add_option(options: argparse.ArgumentParser) -> None:
    """Add `--tensorboard`."""
    options.add_argument(
        "--tensorboard",
        type=_folder,
        metavar="FOLDER",
        help="folder to write to for TensorBoard, which shows the run while it lasts: "
        "`tensorboard --logdir FOLDER` (default: nothing is written)",
    )


def new_log_dir(folder: Path | None, name: str) -> Path | None:
    """Return a folder for a run that starts now; None if nothing is to be written."""
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}" if folder else None


def callbacks(log_dir: Path | None, stage: str) -> list[Any]:
    """Return callbacks for the `fit` of a stage of a run; none if nothing is to be written."""
    from fashion_keras.backend import keras

    if log_dir is None:
        return []
    return [keras.callbacks.TensorBoard(str(log_dir / stage), write_graph=False)]


def add_run(
    log_dir: Path,
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    seconds: float,
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the settings and results of a finished run or trial, for the page HParams.

    A folder that has settings stays as it is: a search that is started again passes all trials.

    Args:
        log_dir: Folder of the run.
        settings: Hyperparameter to value: a number, a truth value or text.
        results: Metric to value; empty if the run failed.
        seconds: How long the run took.
        history: Epochs whose curves no callback wrote: rows as in `history.csv`.
    """
    if any(log_dir.glob("events.out.tfevents.*")):
        return
    from tensorboard.plugins.hparams import api, summary

    from fashion_keras.backend import tensorflow

    tf = tensorflow()
    writer = tf.summary.create_file_writer(str(log_dir))
    with writer.as_default(step=0):
        name = f"{log_dir.parent.name}/{log_dir.name}"  # Another search has such trials, too.
        api.hparams(dict(settings), name, time.time() - seconds)
        for row in history:
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                tf.summary.scalar(f"epoch_{name}", row[name], step=int(row["epoch"]) - 1)
        for name, value in results.items():
            tf.summary.scalar(name, value)
        end = summary.session_end_pb("STATUS_SUCCESS" if results else "STATUS_FAILURE")
        tf.summary.experimental.write_raw_pb(end.SerializeToString())
    writer.close()


def add_predictions(log_dir: Path, scored: Predictions, files: Mapping[str, Path]) -> None:
    """Write the confusion matrix and the worst predictions; `files` are paths by photos' names."""
    from fashion_keras.backend import tensorflow
    from fashion_keras.figures import draw_confusion, draw_sheet, tile_of
    from fashion_keras.metrics import confusion

    matrix, sheet = BytesIO(), BytesIO()
    table = confusion(scored.true, scored.predicted, len(scored.labels))
    draw_confusion(table, scored.labels, f"accuracy {scored.correct.mean():.4f}", matrix)
    tiles = [
        tile_of(files[scored.names[at]], scored.caption(at)) for at in scored.top_losses(_PHOTOS)
    ]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    draw_sheet(rows, "Worst predictions", sheet)
    tf = tensorflow()
    writer = tf.summary.create_file_writer(str(log_dir))
    with writer.as_default(step=0):
        for name, png in (("confusion matrix", matrix), ("worst predictions", sheet)):
            tf.summary.image(name, np.asarray(Image.open(png).convert("RGB"))[None])
    writer.close()
