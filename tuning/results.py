"""Writes what a search finds: a line per trial, tables, pictures, the page, TensorBoard."""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.figures import hyperparameter_chart, save_png, trial_charts
from fashion_keras.report import tensor_board
from fashion_keras.report.search_page import write_search_page
from fashion_keras.timing import corrected
from fashion_keras.training import write_rows
from tuning.finalists import CURVES, Finalist
from tuning.oracle import Oracle, Trial
from tuning.trials import Outcome

PAGE = "report.html"
PICTURES = ("space.png", *(f"{name}.png" for name in CURVES))
TABLES = ("trials.csv", "finalists.csv", "curves.csv")
FILES = (*TABLES, *PICTURES, "search.json", PAGE, "best_config.json")
_PAUSE = 10  # Seconds from one page to the next.


class Cost(NamedTuple):
    """Expected seconds: to start a trial, of an epoch, and of what comes after all trials."""

    start: float
    epoch: float
    later: float = 0.0

    def of(self, trials: int, epochs: int) -> float:
        """Return how long so many trials take that have so many epochs in all."""
        return trials * self.start + epochs * self.epoch


class Report:
    """Shows the trials of a search as they finish, and writes what was found at its end.

    Tables and pictures go to the folder `work`, what was found so far to the file `page`, and if
    `log_dir` is given, what TensorBoard shows to it. With `before`, the folder of the results of
    the head's search, the page shows that, too. `cost` is what trials should take; from the time
    `end`, of `time.monotonic`, on no others begin.
    """

    def __init__(
        self,
        oracle: Oracle,
        work: Path,
        page: Path,
        log_dir: Path | None,
        before: Path | None,
        cost: Cost,
        end: float = math.inf,
    ) -> None:
        self.rows: list[dict[str, Any]] = []  # Of `trials.csv`.
        self.reasons: list[str] = []  # Why trials failed, one each.
        self._oracle, self._space, self._plan = oracle, oracle.space, oracle.plan()
        self._work, self._page, self._before = work, page, before
        self._log_dir, self._found = log_dir, 0
        self._cost, self.end = cost, end
        # The first trial that is not in the cache waits for processes to start: it is not timed.
        self._first, self._expected, self._took = 0.0, 0.0, 0.0
        self._written = -float("inf")

    def add(self, trial: Trial, outcome: Outcome, found: bool) -> None:
        """Show a trial; `found` says whether its outcome was in the cache."""
        row = self._trial_row(trial, outcome)
        self.rows.append(row)
        self.reasons += [row["reason"]] if row["reason"] else []
        self._found += found
        if not found:
            now = time.monotonic()
            self._expected += self._cost.of(1, _epochs_of(row)) if self._first else 0.0
            self._first = self._first or now
            self._took = now - self._first
        write_rows(self.rows, self._work / "trials.csv")
        print(self._line(row, found), flush=True)
        if self._log_dir:
            self._log(row, outcome, self._log_dir / f"trial-{row['trial']:03}")
        if time.monotonic() - self._written > _PAUSE:
            self._write_page(self._page)
            self._written = time.monotonic()

    def _line(self, row: dict, found: bool) -> str:
        name = self._space.objective
        text = f"trial {row['trial']}/{self._plan.trials}  "
        if row["reason"]:
            text += f"failed: {row['reason']}"
        else:
            best: Any = self._space.best([one for one in self.rows if not one["reason"]])
            text += f"{name} {row[name]:.4f}  best {best[name]:.4f}  to epoch {row['last_epoch']}"
        text += "  found in the cache" if found else f"  {row['seconds']:.1f} s"
        return f"{text}  {cli.duration(self.left())} left in all"

    def left(self) -> float:
        """Return how many seconds are left: what was expected, by how long trials took, or less."""
        trials, epochs = self._plan.trials - len(self.rows), sum(map(_epochs_of, self.rows))
        expected = self._cost.of(trials, self._plan.epochs - epochs) + self._cost.later
        allowed = max(self.end - time.monotonic(), 0.0)
        return min(corrected(expected, self._expected, self._took), allowed)

    def _log(self, row: dict, outcome: Outcome, log_dir: Path) -> None:
        searched = {name: row[name] for name in self._space.fields}
        fields = dataclasses.asdict(self._oracle.base) | searched
        metrics = {f"validation_{name[4:]}": row[name] for name in row if name.startswith("val_")}
        results = {} if row["reason"] else metrics
        tensor_board.add_run(log_dir, fields, results, row["seconds"], outcome.rows)

    def _write_page(self, file: Path) -> None:
        base, space = self._oracle.base, self._space
        stages: dict[Path, Any] = {self._before: ()} if self._before else {}
        stages[self._work] = space.ranges(base)
        write_search_page(stages, base, self._plan.trials, file)

    def add_finalists(self, finalists: Sequence[Finalist]) -> None:
        """Show the best configurations, the winner first."""
        rows = [self._space.values(one.config) | _scores_of(one) for one in finalists]
        write_rows(rows, self._work / "finalists.csv")
        for row in rows:
            print("  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def add_curves(self, curves: Sequence[dict]) -> None:
        """Write what other values of one field at a time gave (see `finalists.curves`)."""
        write_rows(curves, self._work / "curves.csv")
        for name in CURVES:
            save_png([hyperparameter_chart(curves, name)], self._work / f"{name}.png")

    def write(
        self, winner: Config, scores: dict[str, Any], photos: str, start: float, page: Path
    ) -> None:
        """Write the rest.

        Args:
            winner: The configuration that was found.
            scores: What it reached on validation.
            photos: Fingerprint of the data set.
            start: When the command began, a `time.monotonic()`.
            page: Where to write the page.
        """
        save_png(trial_charts(self.rows), self._work / "space.png", columns=3)
        summary = scores | {
            "image_size": winner.image_size,
            "fingerprint": photos,
            "winner": self._space.values(winner),
            "space": self._space.ranges(self._oracle.base),
            "trials": len(self.rows),
            "failed": len(self.reasons),
            "epochs": sum(map(_epochs_of, self.rows)),
            "trials_of_an_interrupted_run": self._found,
            "run": cli.provenance(start),
        }
        text = json.dumps(summary, indent=2) + "\n"
        (self._work / "search.json").write_text(text, encoding="utf-8")
        self._write_page(page)

    def _trial_row(self, trial: Trial, outcome: Outcome) -> dict[str, Any]:
        values, best = trial.hyperparameters.values, self._space.best(outcome.rows) or {}
        metrics = dict.fromkeys(("val_accuracy", "val_loss", self._space.objective))
        return {
            "trial": int(trial.trial_id) + 1,
            "status": trial.status,
            **self._space.values(self._oracle.config_of(trial)),
            "bracket": values["tuner/bracket"],
            "first_epoch": values["tuner/initial_epoch"],
            "last_epoch": values["tuner/epochs"],
            **{name: best.get(name) for name in metrics},
            "seconds": round(outcome.seconds, 2),
            "reason": outcome.reason,
        }


def _epochs_of(row: dict[str, Any]) -> int:
    return row["last_epoch"] - row["first_epoch"]


def _scores_of(finalist: Finalist) -> dict[str, float]:
    seeds = {f"seed_{n}": value for n, value in enumerate(finalist.scores, 1)}
    numbers = {"mean": finalist.mean, "spread": finalist.spread} | seeds
    return {name: round(value, 4) for name, value in numbers.items()}
