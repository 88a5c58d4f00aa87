"""The page of a search, which can be watched while the search runs, and its part of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_keras.config import Config
from fashion_keras.figures import best_so_far, hyperparameter_chart, trial_charts, trial_score
from fashion_keras.report.html import write_page
from fashion_keras.report.outcome import read_json, read_rows

FINE_TUNING = "fine_tuning"  # Folder of the search of fine-tuning, in that of the head's.
_MOST_TRIALS = 10
_NO_FIELDS = {  # Columns of `trials.csv`; the others are searched.
    *("trial", "status", "bracket", "first_epoch", "last_epoch", "seconds", "reason"),
    *("val_accuracy", "val_loss", "val_log_loss", "val_balanced_accuracy"),
}


def write_search_page(
    stages: Mapping[Path, Sequence[dict]], config: Config, planned: int, file: Path
) -> None:
    """Write the page of what a search has found so far, whole or not at all.

    Args:
        stages: Folders with `trials.csv` and, in the end, `finalists.csv`, `curves.csv` and
            `search.json`: of the head's search, and of fine-tuning, the last of which may still
            run. Of each, the range of each searched hyperparameter: `name`, `min`, `max`, `steps`.
        config: Hyperparameters that are not searched for.
        planned: Number of trials of the last stage in all.
        file: Where to write the page.
    """
    content = {
        "data": Path(config.data).expanduser().resolve().name,
        "image_size": config.image_size,
        "planned": planned,
        "stages": [search_section(folder, space) for folder, space in stages.items()],
    }
    write_page("search.html", content, file)


def search_section(folder: Path, space: Sequence[dict] = ()) -> dict[str, Any]:
    """Return a stage of a search as tables and charts.

    `space` counts where `search.json` has none.
    """
    trials, finalists, curves = (
        read_rows(folder / f"{name}.csv") for name in ("trials", "finalists", "curves")
    )
    summary = read_json(folder / "search.json")
    done = [row for row in trials if row["status"] == "COMPLETED"]
    tunes = "fine_tune_from" in (trials[0] if trials else {})
    metric, _, shares = trial_score(trials)
    sign = -1 if shares else 1
    best = sorted(done, key=lambda row: (sign * row[metric], row["val_loss"]))
    return {
        "title": "Fine-tuning" if tunes else "Head",
        "summary": summary,
        "fields": [name for name in trials[0] if name not in _NO_FIELDS] if trials else [],
        "metrics": list(dict.fromkeys((metric, "val_accuracy"))),
        "score": metric.removeprefix("val_") if shares else "accuracy",
        "finished": len(trials),
        "failed": len(trials) - len(done),
        "seconds": sum(row["seconds"] for row in trials),
        "best": best[:_MOST_TRIALS],
        "space": summary.get("space") or space,
        "charts": [*trial_charts(trials), best_so_far(trials)] if done else [],
        "finalists": [
            {**row, "seeds": [value for name, value in row.items() if name.startswith("seed_")]}
            for row in finalists
        ],
        "curves": [
            hyperparameter_chart(curves, name)
            for name in dict.fromkeys(row["hyperparameter"] for row in curves)
        ],
    }
