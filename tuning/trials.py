"""What is told of a trial: its row in `trials.csv`, and what TensorBoard shows of it."""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from keras_tuner.engine.trial import Trial

from fashion_keras.config import Config
from fashion_keras.report.tensor_board import add_settings
from tuning.space import sample_config, searched_values


def number(trial: Trial) -> int:
    """Return the number that people see, from 1 on; those of Keras Tuner begin with 0."""
    return int(trial.trial_id) + 1


def folder_name(trial_number: int) -> str:
    """Return the name of a trial's folder for TensorBoard, which sorts by it."""
    return f"trial-{trial_number:03}"


def reason(trial: Trial) -> str:
    """Return why a trial failed: the last line of the error; empty if it did not fail."""
    lines = (trial.message or "").strip().splitlines()
    return lines[-1] if lines else ""


def trial_row(trial: Trial, base: Config, seconds: float) -> dict:
    """Return one trial as a row of `trials.csv`."""
    values = trial.hyperparameters.values

    def metric(name: str) -> float | None:
        return trial.metrics.get_best_value(name) if trial.metrics.exists(name) else None

    return {
        "trial": number(trial),
        "status": trial.status,
        **searched_values(sample_config(trial.hyperparameters, base)),
        "bracket": values["tuner/bracket"],
        "first_epoch": values["tuner/initial_epoch"],
        "last_epoch": values["tuner/epochs"],
        "val_accuracy": metric("val_accuracy"),
        "val_loss": metric("val_loss"),
        "seconds": round(seconds, 2),
        "reason": reason(trial),
    }


def append_row(file: Path, row: dict) -> None:
    """Add one row to a CSV file, with a header if the file is new."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def show_trial(row: dict, base: Config, run: Path) -> None:
    """Write a trial's knobs and its result for TensorBoard.

    Args:
        row: See `trial_row`.
        base: Knobs that are not searched for.
        run: Folder of the search; the trial's own one is in it.
    """
    knobs = dataclasses.asdict(base) | {name: row[name] for name in searched_values(base)}
    done = row["status"] == "COMPLETED"
    results = {f"validation_{name}": row[f"val_{name}"] for name in ("accuracy", "loss")}
    add_settings(run / folder_name(row["trial"]), knobs, results if done else {}, row["seconds"])


def show_earlier(trials: Iterable[Trial], base: Config, run: Path) -> None:
    """Write those trials of an interrupted search that TensorBoard does not show yet."""
    for trial in trials:
        if not (run / folder_name(number(trial))).exists():
            show_trial(trial_row(trial, base, 0.0), base, run)
