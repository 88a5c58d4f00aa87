"""What the page tells of training and test: tables and charts made from what was written down."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fashion_keras.fine_tuning import STAGE
from fashion_keras.metrics import (
    BINS,
    calibration_error,
    confidence_bins,
    confusion,
    wilson_interval,
)
from fashion_keras.report.charts import Axis, Series, axis, chart
from fashion_keras.report.gallery import cell_id
from fashion_keras.report.outcome import Tested

_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_MOST_PAIRS = 10
_MOST_POINTS = 200
# From these shares of a true class on, a cell of the matrix is darker.
_RIGHT_LEVELS, _WRONG_LEVELS = (0.0, 0.5, 0.75, 0.9), (0.0, 0.05, 0.15, 0.3)


def learning_curves(history: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Return loss and accuracy over epochs for the heads, and for fine-tuning.

    Args:
        history: One row an epoch with its stage (see `ensemble.Ensemble`).
    """
    tuned = [row for row in history if row["stage"] == STAGE]
    heads = [row for row in history if row["stage"] != STAGE]
    parts = [("Heads", "epoch of each head", heads), ("Fine-tuning", "pass", tuned)]
    return [
        {
            "title": title,
            "seconds": sum(row["seconds"] for row in rows),
            "stages": len({row["stage"] for row in rows}),
            "charts": [_curve(title, unit, rows, metric) for metric in ("accuracy", "loss")],
        }
        for title, unit, rows in parts
        if rows
    ]


def _curve(title: str, unit: str, rows: Sequence[Mapping[str, Any]], metric: str) -> dict:
    series = []
    for _, group in itertools.groupby(rows, key=lambda row: row["stage"]):
        epochs = list(group)
        for style, name in enumerate(("training", "validation")):
            column = metric if name == "training" else f"val_{metric}"
            points = [(row["epoch"], row[column]) for row in epochs]
            series.append(Series(name, points, style, radii=2.0 if len(rows) < 20 else 0.0))
        kept = epochs[-1] if title != "Heads" else min(epochs, key=lambda row: row["val_loss"])
        point = (kept["epoch"], kept[f"val_{metric}"])
        series.append(Series("kept", [point], 2, line=False, radii=4.0))
    points = [point for one in series for point in one.points]
    down = axis(metric, [value for _, value in points], share=metric == "accuracy")
    across = axis(unit, [epoch for epoch, _ in points])
    return chart(f"{title}: {metric}", across, down, series, whole=True)


def matrix(tested: Tested) -> dict:
    """Return the confusion matrix: counts, shares of each true class, and how dark cells are."""
    table = confusion(tested.true, tested.predicted, len(tested.labels))
    totals = table.sum(axis=1)
    rows = []
    for true, counts in enumerate(table):
        shares = counts / max(totals[true], 1)
        row = [_cell(true, at, int(counts[at]), float(shares[at])) for at in range(len(counts))]
        rows.append({"label": tested.labels[true], "total": int(totals[true]), "cells": row})
    return {"labels": tested.labels, "rows": rows, "many": len(tested.labels) > 16}


def _cell(true: int, predicted: int, count: int, share: float) -> dict:
    levels = _RIGHT_LEVELS if true == predicted else _WRONG_LEVELS
    level = sum(share >= least for least in levels)
    kind = "right" if true == predicted else "wrong"
    style = f"{kind}{level}" if count else ""
    return {"count": count, "share": share, "style": style, "id": cell_id(true, predicted)}


def pairs(tested: Tested) -> list[dict]:
    """Return the pairs of true and predicted class that were confused most often."""
    table = confusion(tested.true, tested.predicted, len(tested.labels))
    found = [
        {
            "true": tested.labels[true],
            "predicted": tested.labels[predicted],
            "count": int(count),
            "share": float(count / table[true].sum()),
            "id": cell_id(true, predicted),
        }
        for (true, predicted), count in np.ndenumerate(table)
        if count and true != predicted
    ]
    return sorted(found, key=lambda pair: (-pair["count"], -pair["share"]))[:_MOST_PAIRS]


def classes(metrics: Mapping[str, Any]) -> list[dict]:
    """Return the scores of each class, with the 95 % interval of its recall."""
    rows = []
    for label, row in metrics["by_class"].items():
        hits, support = round(row["recall"] * row["support"]), row["support"]
        interval = wilson_interval(hits, support) if support else None
        rows.append({"label": label, **row, "interval": interval})
    return rows


def calibration(tested: Tested, temperature: float | None) -> dict:
    """Return the reliability diagram and the expected calibration error.

    Args:
        tested: What the saved file said.
        temperature: That by which its logits are divided; None if it is not known. Then nothing
            can be said of how it was before.
    """
    now = "as saved" if temperature is None else "after temperature scaling"
    stages = [(now, tested.probabilities, 0)]
    if temperature is not None:
        before = tested.probabilities**temperature
        before /= before.sum(axis=1, keepdims=True)
        stages.append(("before temperature scaling", before, 1))
    bins = {name: _reliability(tested.correct, rows.max(axis=1)) for name, rows, _ in stages}
    series = [
        Series(
            name,
            [(one["confidence"], one["accuracy"]) for one in bins[name]],
            style,
            radii=[_radius(one["photos"], len(tested.true)) for one in bins[name]],
            hollow=style > 0,
        )
        for name, _, style in stages
    ]
    x, y = Axis("mean probability given", 0, 1), Axis("share of photos named rightly", 0, 1)
    errors = [
        {"name": name, "error": calibration_error(tested.correct, rows.max(axis=1))}
        for name, rows, _ in stages
    ]
    drawn = chart("Reliability", x, y, series, ideal=True)
    return {"temperature": temperature, "errors": errors, "chart": drawn}


def _radius(photos: int, total: int) -> float:
    return round(3 + 9 * (photos / total) ** 0.5, 1)


def _reliability(correct: np.ndarray, confidence: np.ndarray) -> list[dict]:
    """Return photos, mean confidence and accuracy of each bin that holds photos."""
    numbers = confidence_bins(confidence)
    return [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "photos": int((numbers == number).sum()),
            "confidence": float(confidence[numbers == number].mean()),
            "accuracy": float(correct[numbers == number].mean()),
        }
        for number in np.unique(numbers).tolist()
    ]


def coverage(tested: Tested) -> dict:
    """Return how accurate the rest is when predictions below a threshold are left to people."""
    order = np.argsort(-tested.confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    accuracy = tested.correct[order].cumsum() / count
    # Where photos are as sure as each other no threshold divides them.
    sure = tested.confidence[order]
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    ends = ends[np.linspace(0, len(ends) - 1, min(len(ends), _MOST_POINTS)).astype(int)]
    points = [(float(count[at] / len(order)), float(accuracy[at])) for at in ends]
    x = Axis("share of photos that get an answer", 0, 1)
    y = axis("share of answers that are right", [share for _, share in points], share=True)
    drawn = chart("Accuracy against coverage", x, y, [Series("photos, surest first", points, 0)])
    return {"chart": drawn, "rows": [_at_threshold(tested, least) for least in _THRESHOLDS]}


def _at_threshold(tested: Tested, least: float) -> dict:
    kept = tested.confidence >= least
    answers, right = int(kept.sum()), int(tested.correct[kept].sum())
    return {
        "threshold": least,
        "answers": answers,
        "coverage": answers / len(kept),
        "wrong": answers - right,
        "accuracy": right / answers if answers else None,
    }
