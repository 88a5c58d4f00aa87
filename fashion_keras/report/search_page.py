"""The page of a search, which can be watched while the search runs, and its part of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashion_keras.config import Config
from fashion_keras.figures import best_so_far, hyperparameter_chart, trial_charts
from fashion_keras.report.html import write_page
from fashion_keras.report.outcome import read_json, read_rows

_MOST_TRIALS = 10


def write_search_page(
    folder: Path, config: Config, planned: int, space: Sequence[dict], file: Path
) -> None:
    """Write the page of what a search has found so far, whole or not at all.

    Args:
        folder: Has `trials.csv` and, in the end, `finalists.csv`, `curves.csv`, `search.json`.
        config: Hyperparameters that are not searched for.
        planned: Number of trials in all.
        space: Range of each searched hyperparameter: `name`, `min`, `max` and `steps`.
        file: Where to write the page.
    """
    content = {
        "data": Path(config.data).expanduser().resolve().name,
        "image_size": config.image_size,
        "planned": planned,
        "search": search_section(folder, space),
    }
    write_page("search.html", content, file)


def search_section(folder: Path, space: Sequence[dict] = ()) -> dict[str, Any]:
    """Return a search as tables and charts; `space` counts where `search.json` has none."""
    trials, finalists, curves = (
        read_rows(folder / f"{name}.csv") for name in ("trials", "finalists", "curves")
    )
    summary = read_json(folder / "search.json")
    done = [row for row in trials if row["status"] == "COMPLETED"]
    best = sorted(done, key=lambda row: (-row["val_accuracy"], row["val_loss"]))
    return {
        "summary": summary,
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
