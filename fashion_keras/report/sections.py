"""Tables and charts of the test for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fashion_keras.data.layout import OTHER
from fashion_keras.figures import Chart, Series
from fashion_keras.metrics import (
    BINS,
    calibration_error,
    confidence_bins,
    confusion,
    wilson_interval,
)
from fashion_keras.report.gallery import cell_id
from fashion_keras.report.outcome import Predictions

_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_MOST_POINTS = 200
# From these shares of a true class on, a cell of the matrix is darker.
_LEVELS = {"correct": (0.0, 0.5, 0.75, 0.9), "wrong": (0.0, 0.05, 0.15, 0.3)}


def matrix(scored: Predictions) -> dict:
    """Return the confusion matrix: counts, shares of each true class, and shades."""
    table = confusion(scored.true, scored.predicted, len(scored.labels))
    rows = [
        {
            "label": scored.labels[true],
            "total": int(counts.sum()),
            "cells": [_cell(true, at, int(count), counts.sum()) for at, count in enumerate(counts)],
        }
        for true, counts in enumerate(table)
    ]
    return {"labels": scored.labels, "rows": rows, "many": len(scored.labels) > 16}


def _cell(true: int, predicted: int, count: int, total: int) -> dict:
    kind = "correct" if true == predicted else "wrong"
    share = count / max(int(total), 1)
    level = sum(share >= least for least in _LEVELS[kind])
    style = f"{kind}{level}" if count else ""
    return {"count": count, "share": share, "style": style, "id": cell_id(true, predicted)}


def classes(metrics: Mapping[str, Any]) -> list[dict]:
    """Return the scores of each class, with the 95 % interval of its recall."""
    rows = []
    for label, row in metrics["by_class"].items():
        hits, support = round(row["recall"] * row["support"]), row["support"]
        interval = wilson_interval(hits, support) if support else None
        rows.append({"label": label, **row, "interval": interval})
    return rows


def calibration(scored: Predictions, temperature: float) -> dict:
    """Return the reliability diagram and calibration error, before temperature scaling, too."""
    after = "as saved" if temperature == 1 else "after temperature scaling"
    stages = {after: scored.probabilities}
    if temperature != 1:
        before = scored.probabilities**temperature
        stages["before temperature scaling"] = before / before.sum(axis=1, keepdims=True)
    series, errors = [Series("", [0, 1], [0, 1], 2)], {}
    for look, (name, probabilities) in enumerate(stages.items()):
        series.append(_reliability(name, scored.correct, probabilities.max(axis=1), look))
        errors[name] = calibration_error(scored.correct, probabilities.max(axis=1))
    chart = Chart("Reliability", "mean predicted probability", "accuracy", series)
    return {"temperature": temperature, "errors": errors, "chart": chart}


def _reliability(name: str, correct: np.ndarray, confidence: np.ndarray, look: int) -> Series:
    """Return one dot for each bin with photos; the more photos, the larger."""
    numbers = confidence_bins(confidence)
    photos = np.bincount(numbers, minlength=BINS)
    used = photos > 0
    x, y = (
        (np.bincount(numbers, values, BINS)[used] / photos[used]).tolist()
        for values in (confidence, correct)
    )
    sizes = (10 + 150 * photos[used] / len(numbers)).tolist()
    return Series(name, x, y, look, "x" if look else "o", sizes)


def coverage(scored: Predictions) -> dict:
    """Return the accuracy of the rest when predictions below a threshold are left out."""
    order = np.argsort(-scored.confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    accuracy = scored.correct[order].cumsum() / count
    confidence = scored.confidence[order]
    # No threshold divides photos of equal confidence.
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    ends = ends[np.linspace(0, len(ends) - 1, min(len(ends), _MOST_POINTS)).astype(int)]
    points = (count[ends] / len(order)).tolist(), accuracy[ends].tolist()
    series = [Series("most confident photos first", *points)]
    chart = Chart("Accuracy by coverage", "share of photos predicted", "accuracy", series)
    return {"chart": chart, "rows": [_at_threshold(scored, least) for least in _THRESHOLDS]}


def _at_threshold(scored: Predictions, least: float) -> dict:
    kept = scored.confidence >= least
    predicted, correct = int(kept.sum()), int(scored.correct[kept].sum())
    return {
        "threshold": least,
        "predicted": predicted,
        "coverage": predicted / len(kept),
        "wrong": predicted - correct,
        "accuracy": correct / predicted if predicted else None,
    }


def novelty(rows: Sequence[Mapping[str, Any]], chosen: float) -> Chart:
    """Return the shares that each threshold on the distance lets pass and refuses.

    Args:
        rows: Those of `distances.csv`: `split`, `validation` or `other`, and `distance`.
        chosen: The threshold of the saved file, drawn as a vertical line.
    """
    near = np.sort([row["distance"] for row in rows if row["split"] != OTHER])
    far = np.sort([row["distance"] for row in rows if row["split"] == OTHER])
    every = np.unique([*near, *far])
    thresholds = every[np.linspace(0, len(every) - 1, min(len(every), _MOST_POINTS)).astype(int)]
    passed = np.searchsorted(near, thresholds, side="right") / len(near)
    series = [
        Series("validation photos that pass", thresholds.tolist(), passed.tolist()),
        Series("threshold", [chosen, chosen], [0, 1], 2),
    ]
    if len(far):
        refused = 1 - np.searchsorted(far, thresholds, side="right") / len(far)
        series.append(Series("other photos refused", thresholds.tolist(), refused.tolist(), 1))
    return Chart("None of these", "distance to the nearest category", "share of photos", series)
