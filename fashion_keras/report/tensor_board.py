"""Writes what TensorBoard shows: curves, settings with their results, pictures.

Each record is appended by itself with TensorBoard's own record format: nothing stays open, and
what was written can be looked at while training goes on.
"""

import argparse
import importlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
from PIL import Image

from fashion_keras.figures import draw_confusion, draw_sheet, tile_of
from fashion_keras.metrics import confusion
from fashion_keras.report.outcome import Predictions as Tested
from fashion_keras.report.outcome import read_predictions as read_tested

_FILE = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
_SHOWN = 12  # Photos in the picture of the top losses.
_COLUMNS = 4
# Of the page HParams. Its table shows the first few settings, those that differ before the others;
# its lines are of runs that have all metrics, so every run names the same.
_FIRST_SETTINGS = ("learning_rate", "inner_size", "droprate", "augmented_copies")
_METRICS = ("validation_accuracy", "validation_loss")


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


def new_run(folder: Path | None, name: str) -> Path | None:
    """Return a folder for a run that starts now; None if nothing is to be written."""
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}" if folder else None


def watch(run: Path | None) -> Callable[[str], Sequence[keras.callbacks.Callback]]:
    """Return what writes the curves of each stage to a folder in that of the run, if any."""
    return (lambda stage: [Curves(run / stage.replace(" ", "-"))]) if run else lambda stage: ()


class Curves(keras.callbacks.Callback):
    """Writes loss and accuracy of each epoch, of training and of validation.

    All are in one run: TensorBoard shows none of more than forty runs until they are ticked.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write one point of each curve."""
        row = {
            f"{part}/{name}": (logs or {})[prefix + name]
            for part, prefix in (("train", ""), ("validation", "val_"))
            for name in ("loss", "accuracy")
        }
        add_scalars(self.folder, row, epoch + 1)


def add_scalars(run: Path, values: Mapping[str, float], step: int) -> None:
    """Write one point of each named curve.

    Args:
        run: Folder of the run; it is made if it is missing.
        values: Curve to value.
        step: Epochs (or passes) done, from 1.
    """
    summary_pb2 = _part("compat.proto.summary_pb2")
    rows = [{"tag": name, "simple_value": float(value)} for name, value in values.items()]
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**row) for row in rows])
    _append(run, [summary], step)


def add_picture(run: Path, name: str, png: bytes) -> None:
    """Write a picture.

    Args:
        run: Folder of the run.
        name: What it is called.
        png: The file's bytes.
    """
    summary_pb2 = _part("compat.proto.summary_pb2")
    width, height = Image.open(BytesIO(png)).size
    image = summary_pb2.Summary.Image(
        width=width, height=height, colorspace=3, encoded_image_string=png
    )
    value = summary_pb2.Summary.Value(tag=name, image=image)
    _append(run, [summary_pb2.Summary(value=[value])], 0)


def add_settings(
    run: Path, settings: Mapping[str, Any], results: Mapping[str, float], seconds: float
) -> None:
    """Write what a run was trained with and what it gave, for the page HParams.

    Args:
        run: Folder of the run; its curves may lie in folders below.
        settings: Knob to value: a number, a truth value or a text.
        results: What it gave, `validation_accuracy` and `validation_loss` among it; nothing if it
            failed.
        seconds: How long it took.
    """
    api_pb2, now = _part("plugins.hparams.api_pb2"), time.time()
    status = api_pb2.STATUS_SUCCESS if results else api_pb2.STATUS_FAILURE
    end = {"status": status, "end_time_secs": now}
    ended = _part("plugins.hparams.plugin_data_pb2").SessionEndInfo(**end)
    started = _part("plugins.hparams.api").hparams_pb(
        dict(settings), trial_id=run.name, start_time_secs=now - seconds
    )
    _append(run, [_columns(settings), started, _about("session_end_info", ended)], 0)
    if results:
        add_scalars(run, results, 0)


def _columns(settings: Mapping[str, Any]) -> Any:
    """Return the record of what the page HParams shows."""
    api_pb2 = _part("plugins.hparams.api_pb2")
    kinds = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    infos = [
        api_pb2.HParamInfo(
            name=name,
            type=kinds.get(type(value), api_pb2.DATA_TYPE_FLOAT64),
            differs=name in _FIRST_SETTINGS,
        )
        for name, value in settings.items()
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in _METRICS]
    return _about("experiment", api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics))


def _about(kind: str, content: Any) -> Any:
    """Return a record for the page HParams."""
    metadata, summary_pb2 = _part("plugins.hparams.metadata"), _part("compat.proto.summary_pb2")
    data = _part("plugins.hparams.plugin_data_pb2").HParamsPluginData(**{kind: content})
    value = summary_pb2.Summary.Value(
        tag=getattr(metadata, f"{kind.upper()}_TAG"),
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return summary_pb2.Summary(value=[value])


def add_test(run: Path, results: Path, files: Mapping[str, Path]) -> None:
    """Write the confusion matrix and the photos that were named most wrongly.

    Args:
        run: Folder of the run.
        results: Folder with `confusion.png` and `predictions.csv` (see `evaluate.evaluate`);
            without them there is nothing to write.
        files: Where each photo of `predictions.csv` lies.
    """
    tested = read_tested(results / "predictions.csv")
    if tested is None:
        return
    add_picture(run, "confusion matrix", (results / "confusion.png").read_bytes())
    _add_top_losses(run, tested, files)


def add_answers(run: Path, tested: Tested, files: Mapping[str, Path]) -> None:
    """Write the pictures of `add_test` for answers that lie in no file.

    Args:
        run: Folder of the run.
        tested: The answers.
        files: Where each photo lies.
    """
    table = confusion(tested.true, tested.predicted, len(tested.labels))
    title = f"accuracy {tested.correct.mean():.4f} on validation"
    with tempfile.TemporaryDirectory(prefix="fashion_keras-") as folder:
        matrix = Path(folder) / "matrix.png"
        draw_confusion(table, tested.labels, title, matrix)
        add_picture(run, "confusion matrix", matrix.read_bytes())
    _add_top_losses(run, tested, files)


def _add_top_losses(run: Path, tested: Tested, files: Mapping[str, Path]) -> None:
    tiles = [tile_of(files[name], words) for name, words in top_losses(tested)]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    with tempfile.TemporaryDirectory(prefix="fashion_keras-") as folder:
        sheet = Path(folder) / "sheet.png"
        draw_sheet(rows, "Top losses", sheet)
        add_picture(run, "top losses", sheet.read_bytes())


def top_losses(tested: Tested) -> list[tuple[str, str]]:
    """Return the photos whose true class got the least probability, the worst first.

    Returns:
        Name of each photo, and what was said of it in words.
    """
    told = []
    for at in tested.top_losses(_SHOWN):
        true, predicted = tested.labels[tested.true[at]], tested.labels[tested.predicted[at]]
        sure, loss = tested.confidence[at], tested.losses[at]
        said = "named rightly" if tested.correct[at] else f"taken for {predicted}"
        told.append((tested.names[at], f"{true}\n{said} ({sure:.2f})\nloss {loss:.2f}"))
    return told


def _append(run: Path, summaries: Sequence[Any], step: int) -> None:
    """Append records to the event file that this process writes in a run's folder."""
    event_pb2 = _part("compat.proto.event_pb2")
    run.mkdir(parents=True, exist_ok=True)
    now = time.time()
    events = [event_pb2.Event(wall_time=now, step=step, summary=summary) for summary in summaries]
    if not (run / _FILE).exists():  # The first record of a file tells its version.
        events.insert(0, event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
    with (run / _FILE).open("ab") as file:
        writer = _part("summary.writer.record_writer").RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


def _part(name: str) -> Any:
    """Return a module of TensorBoard, loaded at first use: most runs write nothing for it."""
    return importlib.import_module(f"tensorboard.{name}")
