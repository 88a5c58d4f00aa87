"""Writes what a search finds: a line per trial, tables, pictures, the page, TensorBoard."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.figures import hyperparameter_chart, save_png, trial_charts
from fashion_keras.report import tensor_board
from fashion_keras.report.search_page import write_search_page
from fashion_keras.training import write_rows
from tuning.finalists import CURVES, Finalist
from tuning.oracle import OBJECTIVE, Plan, Trial
from tuning.space import SEARCHED, sample_config, searched_values, space_of
from tuning.trials import Outcome

PAGE = "report.html"
PICTURES = ("space.png", *(f"{name}.png" for name in CURVES))
TABLES = ("trials.csv", "finalists.csv", "curves.csv")
FILES = (*TABLES, *PICTURES, "search.json", PAGE, "best_config.json")
_START_COST = 3  # Starting a trial takes about as long as this many epochs.
_PAUSE = 10  # Seconds from one page to the next.


class Report:
    """Shows the trials of a search as they finish, and writes what was found at its end.

    Tables and pictures go to the folder `work`, what was found so far to the file `page`, and if
    `log_dir` is given, what TensorBoard shows to it.
    """

    def __init__(
        self, base: Config, plan: Plan, work: Path, page: Path, log_dir: Path | None
    ) -> None:
        self.rows: list[dict[str, Any]] = []  # Of `trials.csv`.
        self.reasons: list[str] = []  # Why trials failed, one each.
        self._base, self._plan, self._work, self._page = base, plan, work, page
        self._log_dir, self._found = log_dir, 0
        self._cost = 0  # Of the trials that were not in the cache.
        self._start, self._written = time.monotonic(), -float("inf")

    def add(self, trial: Trial, outcome: Outcome, found: bool) -> None:
        """Show a trial; `found` says whether its outcome was in the cache."""
        row = _trial_row(trial, outcome, self._base)
        self.rows.append(row)
        self.reasons += [row["reason"]] if row["reason"] else []
        self._found += found
        self._cost += 0 if found else _cost_of(row)
        write_rows(self.rows, self._work / "trials.csv")
        print(self._line(row, found), flush=True)
        if self._log_dir:
            self._log(row, outcome, self._log_dir / f"trial-{row['trial']:03}")
        if time.monotonic() - self._written > _PAUSE:
            self._write_page(self._page)
            self._written = time.monotonic()

    def _line(self, row: dict, found: bool) -> str:
        best = max((one[OBJECTIVE] for one in self.rows if not one["reason"]), default=0.0)
        accuracy = row[OBJECTIVE] or 0.0
        trained = f"{OBJECTIVE} {accuracy:.4f}  best {best:.4f}  to epoch {row['last_epoch']}"
        text = f"trial {row['trial']}/{self._plan.trials}  "
        text += f"failed: {row['reason']}" if row["reason"] else trained
        text += "  found in the cache" if found else f"  {row['seconds']:.1f} s"
        if self._cost:
            left = self._plan.epochs + _START_COST * self._plan.trials
            left -= sum(map(_cost_of, self.rows))
            seconds = left * (time.monotonic() - self._start) / self._cost
            text += f"  {cli.duration(seconds)} left"
        return text

    def _log(self, row: dict, outcome: Outcome, log_dir: Path) -> None:
        fields = dataclasses.asdict(self._base) | {name: row[name] for name in SEARCHED}
        metrics = {f"validation_{name}": row[f"val_{name}"] for name in ("accuracy", "loss")}
        results = {} if row["reason"] else metrics
        tensor_board.add_run(log_dir, fields, results, row["seconds"], outcome.rows)

    def _write_page(self, file: Path) -> None:
        planned, space = self._plan.trials, space_of(self._base)
        write_search_page(self._work, self._base, planned, space, file)

    def add_finalists(self, finalists: Sequence[Finalist]) -> None:
        """Show the best configurations, the winner first."""
        rows = [_finalist_row(finalist) for finalist in finalists]
        write_rows(rows, self._work / "finalists.csv")
        for row in rows:
            print("  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def write(self, winner: Finalist, curves: Sequence[dict], photos: str, start: float) -> None:
        """Write the rest; `photos` is the data set's fingerprint, `start` the command's start."""
        save_png(trial_charts(self.rows), self._work / "space.png", columns=3)
        write_rows(curves, self._work / "curves.csv")
        for name in CURVES:
            save_png([hyperparameter_chart(curves, name)], self._work / f"{name}.png")
        text = json.dumps(self._summary(winner, photos, start), indent=2) + "\n"
        (self._work / "search.json").write_text(text, encoding="utf-8")
        self._write_page(self._work / PAGE)

    def _summary(self, winner: Finalist, photos: str, start: float) -> dict[str, Any]:
        return {
            "validation_accuracy": round(winner.mean, 4),
            "spread": round(winner.spread, 4),
            "seeds": len(winner.accuracies),
            "image_size": winner.config.image_size,
            "fingerprint": photos,
            "winner": searched_values(winner.config),
            "space": space_of(self._base),
            "trials": len(self.rows),
            "failed": len(self.reasons),
            "epochs": sum(row["last_epoch"] - row["first_epoch"] for row in self.rows),
            "trials_of_an_interrupted_run": self._found,
            "run": cli.provenance(start),
        }


def _trial_row(trial: Trial, outcome: Outcome, base: Config) -> dict[str, Any]:
    values, best = trial.hyperparameters.values, outcome.best or {}
    return {
        "trial": int(trial.trial_id) + 1,
        "status": trial.status,
        **searched_values(sample_config(trial.hyperparameters, base)),
        "bracket": values["tuner/bracket"],
        "first_epoch": values["tuner/initial_epoch"],
        "last_epoch": values["tuner/epochs"],
        "val_accuracy": best.get("val_accuracy"),
        "val_loss": best.get("val_loss"),
        "seconds": round(outcome.seconds, 2),
        "reason": outcome.reason,
    }


def _cost_of(row: dict[str, Any]) -> int:
    return row["last_epoch"] - row["first_epoch"] + _START_COST


def _finalist_row(finalist: Finalist) -> dict[str, float]:
    accuracies = {f"seed_{n}": value for n, value in enumerate(finalist.accuracies, 1)}
    numbers = {"mean": finalist.mean, "spread": finalist.spread} | accuracies
    return searched_values(finalist.config) | {name: round(numbers[name], 4) for name in numbers}
