"""Gathers what a run wrote down into one plain structure, and makes an HTML page of it."""

import datetime
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from fashion_keras import __version__
from fashion_keras.classifier import load_classifier
from fashion_keras.cli import duration
from fashion_keras.evaluate import Labelled
from fashion_keras.files import whole_file
from fashion_keras.inspection import read_metadata
from fashion_keras.report.gallery import cells, top_losses
from fashion_keras.report.outcome import Tested, read_json, read_rows, read_tested
from fashion_keras.report.search_section import search_section
from fashion_keras.report.sections import (
    calibration,
    classes,
    coverage,
    learning_curves,
    matrix,
    pairs,
)

TEMPLATES = Path(__file__).parent / "templates"


class Sources(NamedTuple):
    """Where everything lies that a page tells.

    Attributes:
        model: The saved file.
        tested: Folder with `predictions.csv` and `metrics.json` of `evaluate`.
        trained: Folder with `history.csv`, `training.json` and `config.json` of `final`.
        search: Folder with what `tuning.search` wrote.
        data: Name of the photos tested on.
        warning: What has to be known of them; empty if nothing has.
    """

    model: Path
    tested: Path
    trained: Path
    search: Path
    data: str
    warning: str = ""


def gather(sources: Sources, photos: Sequence[Labelled]) -> dict[str, Any]:
    """Return all that the page tells, as plain values; of what is not known, why.

    Args:
        sources: Where it lies.
        photos: The photos tested on; those that were not readable do not matter.
    """
    card = read_metadata(sources.model)
    training = read_json(sources.trained / "training.json")
    foreign = bool(training) and training.get("validation") != card.get("validation")
    training = {} if foreign else training
    tested, metrics = _tested(sources)
    temperature = card.get("temperature", 1.0)
    unknown = _why_no_search(sources, card, training)
    searched = {} if unknown else read_json(sources.search / "search.json")
    return {
        "model": sources.model.name,
        "data": sources.data,
        "warning": sources.warning,
        "card": card,
        "metrics": metrics,
        "curves": _curves(sources, training, foreign),
        "tested": _scored(sources, tested, metrics, photos, temperature) if tested else None,
        "search": {"missing": unknown} if unknown else _search(sources, searched),
        "facts": _facts(sources, card, metrics, training, searched),
    }


def _tested(sources: Sources) -> tuple[Tested | None, dict]:
    tested = read_tested(sources.tested / "predictions.csv")
    return tested, read_json(sources.tested / "metrics.json") if tested else {}


def _scored(
    sources: Sources,
    tested: Tested,
    metrics: dict,
    photos: Sequence[Labelled],
    temperature: float,
) -> dict:
    files = {photo.name: photo.file for photo in photos}
    return {
        "matrix": matrix(tested),
        "pairs": pairs(tested),
        "classes": classes(metrics),
        "losses": top_losses(tested, files, load_classifier(sources.model).model),
        "cells": cells(tested, files),
        "calibration": calibration(tested, None if temperature == 1 else temperature),
        "coverage": coverage(tested),
    }


def _curves(sources: Sources, training: dict, foreign: bool) -> dict:
    rows = read_rows(sources.trained / "history.csv")
    if foreign:
        return {"missing": f"The history beside {sources.model.name} is of another training run."}
    if not training or not rows:
        return {"missing": f"No history of the training lies beside {sources.model.name}."}
    return {"stages": learning_curves(rows)}


def _why_no_search(sources: Sources, card: dict, training: dict) -> str:
    """Return why no search can be shown; empty if it is that which the saved file came from."""
    model = sources.model.name
    if not training or not read_rows(sources.search / "trials.csv"):
        return f"No search is known that {model} came from."
    summary, config = (
        read_json(file)
        for file in (sources.search / "search.json", sources.trained / "config.json")
    )
    photos = summary.get("fingerprint")  # Searches of older versions do not tell it.
    if photos and photos != card.get("data", {}).get("fingerprint"):
        return f"{model} was trained on other photos than a search used that lies beside it."
    winner = summary.get("winner")
    if not winner or any(config.get(knob) != value for knob, value in winner.items()):
        return f"{model} was trained with other values than a search gave that lies beside it."
    return ""


def _search(sources: Sources, summary: dict) -> dict:
    trials = read_rows(sources.search / "trials.csv")
    finalists = read_rows(sources.search / "finalists.csv")
    curves = read_rows(sources.search / "curves.csv")
    return search_section(trials, finalists, curves, summary)


def _facts(sources: Sources, card: dict, metrics: dict, training: dict, search: dict) -> dict:
    """Return configuration, data, versions, machines and times."""
    runs = {"search": search, "training": training, "scoring": metrics}
    return {
        "config": read_json(sources.trained / "config.json") if training else {},
        "data": card.get("data", {}),
        "licences": card.get("licences", {}),
        "versions": card.get("versions", {}),
        "created": card.get("created"),
        "sha256": metrics.get("model_sha256"),
        "unreadable": metrics.get("unreadable", []),
        "peak_memory_gb": training.get("peak_memory_gb"),
        "runs": [
            {"stage": stage, **found["run"]} for stage, found in runs.items() if "run" in found
        ],
    }


def render(template: str, content: dict[str, Any]) -> str:
    """Return a page; all names in `content` are shown as text, whatever they hold."""
    now = datetime.datetime.now(datetime.UTC).isoformat(" ", timespec="minutes")
    made = {"made": now.removesuffix("+00:00") + " UTC", "version": __version__}
    return _environment().get_template(template).render(content | made)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["duration"] = duration
    environment.filters["number"] = _number
    return environment


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _number(value: Any) -> str:
    """Return a value for people: floats with four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_page(text: str, file: Path) -> None:
    """Write a page, whole or not at all."""
    with whole_file(file) as unfinished:
        # Names of files may hold what UTF-8 cannot.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
