"""The page of a search: it can be watched while the search runs."""

from pathlib import Path
from typing import Any

import keras_tuner

from fashion_keras.config import Config
from fashion_keras.report.outcome import read_json, read_rows
from fashion_keras.report.page import render, write_page
from fashion_keras.report.search_section import search_section
from fashion_keras.stopwatch import stage
from tuning.space import sample_config

PAGE = "report.html"


def space_of(base: Config) -> list[dict[str, Any]]:
    """Return the range of each searched hyperparameter: `name`, `least`, `most` and `steps`."""
    hp = keras_tuner.HyperParameters()
    sample_config(hp, base)
    return [_range(one) for one in hp.space]


def _range(one: Any) -> dict[str, Any]:
    if not hasattr(one, "min_value"):
        return {"name": one.name, "least": "no", "most": "yes", "steps": "either"}
    steps = one.sampling or "linear"
    return {"name": one.name, "least": one.min_value, "most": one.max_value, "steps": steps}


@stage("page")
def write_search_page(folder: Path, base: Config, planned: int, file: Path) -> None:
    """Write the page of what a search has found so far, whole or not at all.

    Args:
        folder: Where `trials.csv` lies, and, when the search is at its end, `finalists.csv`,
            `curves.csv` and `search.json`.
        base: Knobs that are not searched for.
        planned: Number of trials in all.
        file: Where to write it.
    """
    summary = read_json(folder / "search.json") or {"space": space_of(base)}
    trials, finalists, curves = (
        read_rows(folder / f"{name}.csv") for name in ("trials", "finalists", "curves")
    )
    content = {
        "data": Path(base.data).expanduser().resolve().name,
        "image_size": base.image_size,
        "frozen": base.weights != "none",
        "planned": planned,
        "search": search_section(trials, finalists, curves, summary),
    }
    write_page(render("search.html", content), file)
