"""The page of a search: it can be watched while the search runs."""

from pathlib import Path
from typing import Any

import keras_tuner

from fashion_keras.config import Config
from fashion_keras.report import search_page
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
    search_page.write_search_page(folder, base, planned, space_of(base), file)
