"""What the page tells of a search: its space, its best trials, and what each knob did."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fashion_keras.report.charts import STYLES, Axis, Series, axis, chart

KNOBS = {"learning_rate": "learning rate", "inner_size": "inner size", "droprate": "droprate"}
_LOG = ("learning_rate", "inner_size")
_MOST_TRIALS = 10


def search_section(
    trials: Sequence[Mapping[str, Any]],
    finalists: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    summary: Mapping[str, Any] | None = None,
) -> dict:
    """Return a search as tables and charts.

    Args:
        trials: Rows of `trials.csv`, at least one.
        finalists: Rows of `finalists.csv`; none before the search is at its end.
        curves: Rows of `curves.csv`; likewise.
        summary: What `search.json` holds; before the end its `space` alone.
    """
    done = [row for row in trials if row["status"] == "COMPLETED"]
    best = sorted(done, key=lambda row: -row["val_accuracy"])
    return {
        "summary": summary or {},
        "finished": len(trials),
        "failed": len(trials) - len(done),
        "seconds": sum(row["seconds"] for row in trials),
        "best": best[:_MOST_TRIALS],
        "space": (summary or {}).get("space") or _drawn_space(trials),
        "space_known": bool((summary or {}).get("space")),
        "charts": [_scatter(done, knob) for knob in KNOBS] if done else [],
        "progress": _progress(trials) if done else None,
        "finalists": [_finalist(row) for row in finalists],
        "curves": [found for knob in KNOBS if (found := _knob_curves(curves, knob))],
    }


def _drawn_space(trials: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Return the range of what was drawn, for searches that did not write their space down."""
    found = []
    for knob in (*KNOBS, "augmented_copies"):
        values = [row[knob] for row in trials]
        ends = {"least": min(values), "most": max(values)}
        found.append({"name": knob, **ends, "steps": "log" if knob in _LOG else "linear"})
    return found


def _epochs_radius(row: Mapping[str, Any], most: float) -> float:
    return round(2.5 + 3.5 * math.sqrt(row["last_epoch"] / most), 1)


def _scatter(done: Sequence[Mapping[str, Any]], knob: str) -> dict:
    most = max(row["last_epoch"] for row in done)
    x = axis(KNOBS[knob], [row[knob] for row in done], log=knob in _LOG)
    y = _accuracy_axis([row["val_accuracy"] for row in done])
    series = []
    for style, name in enumerate(("with augmented copies", "without")):
        rows = [row for row in done if bool(row["augmented_copies"]) == (style == 0)]
        points = [(row[knob], row["val_accuracy"]) for row in rows]
        radii = [_epochs_radius(row, most) for row in rows]
        if rows:
            series.append(Series(name, points, style, line=False, radii=radii, hollow=style == 1))
    return chart(f"Trials by {KNOBS[knob]}", x, y, series)


def _accuracy_axis(values: Sequence[float]) -> Axis:
    return axis("validation accuracy", values, share=True)


def _progress(trials: Sequence[Mapping[str, Any]]) -> dict:
    points, best = [], 0.0
    for number, row in enumerate(trials, start=1):
        if row["status"] == "COMPLETED":
            best = max(best, row["val_accuracy"])
            points.append((number, best))
    y = _accuracy_axis([value for _, value in points])
    x = axis("trials", [1, len(trials)])
    return chart("Best so far", x, y, [Series("best so far", points, 0)], whole=True)


def _finalist(row: Mapping[str, Any]) -> dict:
    seeds = [value for name, value in row.items() if name.startswith("seed_")]
    return {**row, "seeds": seeds}


def _knob_curves(curves: Sequence[Mapping[str, Any]], knob: str) -> dict | None:
    rows = [row for row in curves if row["knob"] == knob]
    if not rows:
        return None
    values = list(dict.fromkeys(row["value"] for row in rows))
    series = [
        Series(
            f"{value:g}",
            [(row["epoch"], row["val_accuracy"]) for row in rows if row["value"] == value],
            style % STYLES,
        )
        for style, value in enumerate(values)
    ]
    x = axis("epoch", [row["epoch"] for row in rows])
    y = _accuracy_axis([row["val_accuracy"] for row in rows])
    return chart(f"Accuracy for each {KNOBS[knob]}", x, y, series, whole=True)
