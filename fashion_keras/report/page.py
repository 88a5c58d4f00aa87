"""The report: gathers the results of a run as plain values, and makes one HTML page of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.classifier import NOVELTY
from fashion_keras.cli import stage
from fashion_keras.evaluate import Labelled, in_words
from fashion_keras.figures import learning_curves
from fashion_keras.inspection import read_metadata
from fashion_keras.report import gallery, sections
from fashion_keras.report.html import write_page
from fashion_keras.report.outcome import read_json, read_predictions, read_rows
from fashion_keras.report.search_page import FINE_TUNING, search_section


class Sources(NamedTuple):
    """Where the results are that a page shows."""

    model: Path
    tested: Path  # Folder with `predictions.csv` and `metrics.json` of `evaluate`.
    trained: Path  # Folder with `history.csv`, `training.json` and `config.json` of `final`.
    search: Path  # Folder with the results of `tuning.search`.
    data: str  # Name of the photos that the model was tested on.
    warning: str = ""  # What readers must know about these photos.


@stage("report")
def write_report(sources: Sources, photos: Sequence[Labelled], file: Path, model: Any) -> None:
    """Write the page of the results and of the photos that were tested, if any.

    `model` is the Keras model of `sources.model`.
    """
    write_page("report.html", gather(sources, photos, model), file)


def gather(sources: Sources, photos: Sequence[Labelled], model: Any) -> dict[str, Any]:
    """Return everything that the page shows as plain values; for what is missing, the reason."""
    metadata = read_metadata(sources.model)
    training = read_json(sources.trained / "training.json")
    foreign = bool(training) and training.get("validation") != metadata.get("validation")
    training = {} if foreign else training
    config = read_json(sources.trained / "config.json") if training else {}
    metrics = read_json(sources.tested / "metrics.json")
    no_search = _why_no_search(sources, metadata, config)
    searched = {} if no_search else read_json(sources.search / "search.json")
    runs = {"search": searched, "training": training, "test": metrics}
    return {
        "model": sources.model.name,
        "data": sources.data,
        "warning": sources.warning,
        "metadata": metadata,
        "cross_validation": in_words(metrics or training),
        "metrics": metrics,
        "curves": _curves(sources, training, foreign),
        "tested": _tested(sources, metrics, photos, model, metadata.get("temperature", 1.0)),
        "novelty": _novelty(sources, metadata, training),
        "search": {"missing": no_search} if no_search else _search(sources, config),
        "config": config,
        "peak_memory_gb": training.get("peak_memory_gb"),
        "runs": [{"stage": name, **one["run"]} for name, one in runs.items() if "run" in one],
    }


def _tested(
    sources: Sources, metrics: dict, photos: Sequence[Labelled], model: Any, temperature: float
) -> dict | None:
    scored = read_predictions(sources.tested / "predictions.csv")
    if scored is None:
        return None
    files = {photo.name: photo.file for photo in photos}
    found = gallery.cells(scored, files)
    return {
        "matrix": sections.matrix(scored),
        "cells": found,
        "mistakes": [cell for cell in found if not cell["correct"]][:10],
        "classes": sections.classes(metrics),
        "losses": gallery.worst_predictions(scored, files, model),
        "calibration": sections.calibration(scored, temperature),
        "coverage": sections.coverage(scored),
    }


def _curves(sources: Sources, training: dict, foreign: bool) -> dict:
    history = read_rows(sources.trained / "history.csv")
    model = sources.model.name
    if foreign:
        return {"missing": f"The history next to {model} is that of another training run."}
    if not training or not history:
        return {"missing": f"There is no history of the training next to {model}."}
    seconds: dict[str, float] = {}
    for row in history:
        seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + row["seconds"]
    return {"charts": learning_curves(history), "seconds": seconds}


def _novelty(sources: Sources, metadata: dict, training: dict) -> dict:
    known, model = metadata.get(NOVELTY), sources.model.name
    if not known:
        return {"missing": f"{model} answers each photo with a category: it knows no others."}
    rows = read_rows(sources.trained / "distances.csv") if training else []
    if not rows:
        return {"known": known, "missing": f"There are no distances next to {model}."}
    return {"known": known, "chart": sections.novelty(rows, known["threshold"])}


def _why_no_search(sources: Sources, metadata: dict, config: dict) -> str:
    """Return why no search is shown; empty if it is the one that the saved file came from."""
    model, summary = sources.model.name, read_json(sources.search / "search.json")
    if not config or not read_rows(sources.search / "trials.csv"):
        return f"There is no search that {model} is known to come from."
    photos = summary.get("fingerprint")  # Earlier versions did not write it.
    if photos and photos != metadata.get("data", {}).get("fingerprint"):
        return f"The search next to {model} used other photos."
    winner = summary.get("winner", {})
    if not winner or not (_is_of(config, winner) or _is_of(config, winner | _tuned(sources))):
        return f"The search next to {model} found other hyperparameters than it was trained with."
    return ""


def _is_of(config: dict, winner: dict) -> bool:
    return all(config.get(name) == value for name, value in winner.items())


def _tuned(sources: Sources) -> dict:
    """Return the fine-tuning that was found after the search; empty if there is none."""
    return read_json(sources.search / FINE_TUNING / "search.json").get("winner", {})


def _search(sources: Sources, config: dict) -> dict[str, Any]:
    tuned = _tuned(sources)
    shown = sources.search / FINE_TUNING if tuned and _is_of(config, tuned) else None
    stages = {"tuned": search_section(shown) if shown else None}
    return search_section(sources.search) | stages
