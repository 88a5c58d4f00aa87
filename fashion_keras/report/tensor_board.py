"""Writes what TensorBoard shows of training runs and trials: curves, settings, pictures."""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.report.outcome import Predictions, read_predictions

_PHOTOS, _COLUMNS = 12, 4  # In the picture of the worst predictions.


def add_option(options: argparse.ArgumentParser) -> None:
    """Add `--tensorboard`."""
    options.add_argument(
        "--tensorboard",
        type=_folder,
        metavar="FOLDER",
        help="folder to write to for TensorBoard, which shows the run while it goes on: "
        "`tensorboard --logdir FOLDER` (default: nothing is written)",
    )


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder. Received: {text}, a file")
    return path


def new_log_dir(folder: Path | None, name: str) -> Path | None:
    """Return a folder for a run that starts now; None if nothing is to be written."""
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}" if folder else None


def callbacks(log_dir: Path | None) -> Callable[[str], list[Any]]:
    """Return a function from a stage's name (`head`, `fine-tuning`) to callbacks for its `fit`.

    Args:
        log_dir: Folder of the run; its stages are folders in it. None for no callbacks.
    """
    from fashion_keras.backend import keras

    def of_stage(stage: str) -> list[Any]:
        if log_dir is None:
            return []
        folder = str(log_dir / stage.replace(" ", "-"))
        return [keras.callbacks.TensorBoard(folder, write_graph=False)]

    return of_stage


def add_run(
    log_dir: Path,
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    seconds: float,
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the settings and results of a finished run or trial, for the page HParams.

    Nothing is written twice: a folder that has settings stays as it is, so that a search that is
    started again can pass all its trials.

    Args:
        log_dir: Folder of the run; its name is that of the run.
        settings: Hyperparameter to value: a number, a truth value or text.
        results: Metric to value; empty if the run failed.
        seconds: How long the run took.
        history: Epochs whose curves no callback wrote, such as those of a trial: rows with
            `epoch`, `loss`, `accuracy`, `val_loss` and `val_accuracy`.
    """
    if any(log_dir.glob("events.out.tfevents.*")):
        return
    import tensorflow as tf
    from tensorboard.plugins.hparams import api, summary

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
    """Write the confusion matrix and the worst predictions as pictures.

    Args:
        log_dir: Folder of the run.
        scored: What the classifier predicted.
        files: Path of each photo, by its name.
    """
    import tensorflow as tf

    from fashion_keras.figures import draw_confusion, draw_sheet, tile_of
    from fashion_keras.metrics import confusion

    matrix, sheet = BytesIO(), BytesIO()
    table = confusion(scored.true, scored.predicted, len(scored.labels))
    draw_confusion(table, scored.labels, f"accuracy {scored.correct.mean():.4f}", matrix)
    tiles = [tile_of(files[name], words) for name, words in captions(scored)]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    draw_sheet(rows, "Worst predictions", sheet)
    writer = tf.summary.create_file_writer(str(log_dir))
    with writer.as_default(step=0):
        for name, png in (("confusion matrix", matrix), ("worst predictions", sheet)):
            tf.summary.image(name, np.asarray(Image.open(png).convert("RGB"))[None])
    writer.close()


def captions(scored: Predictions) -> list[tuple[str, str]]:
    """Return the names of the photos with the highest losses, and what was predicted, in words."""
    found = []
    for at in scored.top_losses(_PHOTOS):
        true, predicted = scored.labels[scored.true[at]], scored.labels[scored.predicted[at]]
        verdict = "predicted correctly" if scored.correct[at] else f"predicted as {predicted}"
        words = f"{true}\n{verdict} ({scored.confidence[at]:.2f})\nloss {scored.losses[at]:.2f}"
        found.append((scored.names[at], words))
    return found


def Curves(folder: Path) -> Any:  # noqa: N802
    """Return a callback that does nothing; give `add_run` the history instead."""
    from fashion_keras.backend import keras

    return keras.callbacks.Callback()


def add_test(log_dir: Path, results: Path, files: Mapping[str, Path]) -> None:
    """Write the pictures of `predictions.csv`; use `add_predictions` instead."""
    scored = read_predictions(results / "predictions.csv")
    if scored:
        add_predictions(log_dir, scored, files)


new_run, watch, add_settings, add_answers = new_log_dir, callbacks, add_run, add_predictions
