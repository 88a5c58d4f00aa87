"""Predictions as rows, for the command, Ray and the service (its `schemas` list the columns)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import numpy as np

if TYPE_CHECKING:  # It imports Keras, which takes seconds.
    from fashion_keras.classifier import Prediction

FORMATS = ("table", "csv", "json", "jsonl")
UNCERTAIN = "uncertain"  # The category of a photo whose best one is less probable than asked.
_WIDEST_NAME = 100  # Columns; longer names push the rest of their line aside.


def row_of(prediction: Prediction, labels: list[str], top: int, threshold: float) -> dict:
    """Return the row of one photo.

    Args:
        prediction: Of a photo given by its name.
        labels: Name of each class, in the order of the probabilities.
        top: How many of the most probable categories it lists.
        threshold: Below this probability the category is `uncertain`, unless it is none of these.

    Returns:
        `file`, `category`, `probability` (of the best category), `top`, a list of categories with
        their probabilities, best first, and `reason`; of a photo that cannot be read only the
        reason is not empty.
    """
    probabilities, reason = prediction.probabilities, prediction.reason
    unsure = prediction.category in labels and prediction.probability < threshold
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {
        "file": prediction.photo,
        "category": UNCERTAIN if unsure else prediction.category,
        "probability": None if reason else prediction.probability,
        "top": [{"category": labels[n], "probability": float(probabilities[n])} for n in best],
        "reason": reason,
    }


def flat_columns(top: int) -> dict[str, type]:
    """Return names and types of the columns of CSV and Parquet; `top` becomes `category_1`, ..."""
    columns: dict[str, type] = {"file": str, "category": str, "probability": float}
    for rank in range(1, top + 1):
        columns |= {f"category_{rank}": str, f"probability_{rank}": float}
    return columns | {"reason": str, "model": str}


def flat(row: dict, top: int) -> dict:
    """Return a row with the columns of `flat_columns`; missing texts are "", numbers None."""
    ranks = enumerate(row["top"], 1)
    values = row | {f"{name}_{rank}": value for rank, one in ranks for name, value in one.items()}
    columns = flat_columns(top).items()
    return {name: values.get(name, "" if kind is str else None) for name, kind in columns}


def write_rows(
    rows: Iterable[dict], kind: str, top: int, target: TextIO, width: int = 0
) -> tuple[int, int]:
    """Write rows as they come.

    Args:
        rows: See `row_of`.
        kind: One of `FORMATS`: `table` for people, `csv` with a header, `json` (one list) or
            `jsonl` (one object per line).
        top: As given to `row_of`.
        target: Where to write.
        width: Columns for the file's name in a table.

    Returns:
        How many rows there were, and how many of them of photos that cannot be read.
    """
    written = unreadable = 0
    table = csv.DictWriter(target, flat_columns(top))
    if kind == "csv":
        table.writeheader()
    for row in rows:
        if kind == "csv":
            table.writerow(flat(row, top))
        elif kind == "table":
            target.write(_table_line(row, min(width, _WIDEST_NAME)) + "\n")
        elif kind == "jsonl":
            target.write(json.dumps(row) + "\n")
        else:
            target.write((",\n" if written else "[\n") + json.dumps(row))
        target.flush()
        written += 1
        unreadable += bool(row["reason"])
    if kind == "json":
        target.write("\n]\n" if written else "[]\n")
    return written, unreadable


def _table_line(row: dict, width: int) -> str:
    if row["reason"]:
        return f"{row['file']:<{width}}  cannot be read: {row['reason']}"
    best = [f"{one['category']} {one['probability']:.3f}" for one in row["top"]]
    # The best guess of a photo that is not answered with it is one of the others.
    guessed = row["category"] == row["top"][0]["category"]
    others = best[1:] if guessed else best
    probability = f" {row['probability']:.3f}" if guessed or row["category"] == UNCERTAIN else ""
    line = f"{row['file']:<{width}}  {row['category']:<12}{probability}"
    return f"{line}  ({', '.join(others)})" if others else line
