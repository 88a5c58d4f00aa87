"""Predictions as rows, and rows as a table, CSV or JSON."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import numpy as np

from fashion_keras.classifier import Prediction

FORMATS = ("table", "csv", "json", "jsonl")
UNCERTAIN = "uncertain"  # The category of a photo whose best one is less probable than asked.
_WIDEST_NAME = 100  # Columns; longer names push the rest of their line aside.


def row_of(prediction: Prediction, labels: list[str], top: int, threshold: float) -> dict:
    """Return what is told of one photo.

    Args:
        prediction: Of a photo given by its name.
        labels: Name of each class, in the order of the probabilities.
        top: How many of the most probable categories are told.
        threshold: Below this probability the category is `uncertain`.

    Returns:
        `file`, `category`, `probability` (of the best category), `top`, a list of categories with
        their probabilities, best first, and `reason`; of a photo that cannot be read only the
        reason is not empty.
    """
    best = np.argsort(-prediction.probabilities, kind="stable")[:top]
    certain = prediction.reason or prediction.probability >= threshold
    return {
        "file": prediction.photo,
        "category": prediction.category if certain else UNCERTAIN,
        "probability": None if prediction.reason else prediction.probability,
        "top": [
            {"category": labels[number], "probability": float(prediction.probabilities[number])}
            for number in best
        ],
        "reason": prediction.reason,
    }


def write_rows(rows: Iterable[dict], kind: str, top: int, target: TextIO, width: int = 0) -> None:
    """Write rows as they come.

    Args:
        rows: See `row_of`.
        kind: One of `FORMATS`: `table` for people, `csv` with a header, `json` (one list) or
            `jsonl` (one object a line).
        top: As given to `row_of`.
        target: Where to write.
        width: Columns for the file's name in a table.
    """
    if kind == "csv":
        _write_csv(rows, top, target)
        return
    for line in _lines(rows, kind, min(width, _WIDEST_NAME)):
        target.write(line)
        target.flush()


def _lines(rows: Iterable[dict], kind: str, width: int) -> Iterator[str]:
    if kind == "json":
        separator = "[\n"
        for row in rows:
            yield separator + json.dumps(row)
            separator = ",\n"
        yield "[]\n" if separator == "[\n" else "\n]\n"
    elif kind == "jsonl":
        yield from (json.dumps(row) + "\n" for row in rows)
    else:
        yield from (_line(row, width) + "\n" for row in rows)


def _line(row: dict, width: int) -> str:
    if row["reason"]:
        return f"{row['file']:<{width}}  cannot be read: {row['reason']}"
    told = [f"{one['category']} {one['probability']:.3f}" for one in row["top"]]
    # An uncertain photo's best guess is one of the others.
    others = told if row["category"] == UNCERTAIN else told[1:]
    line = f"{row['file']:<{width}}  {row['category']:<12} {row['probability']:.3f}"
    return f"{line}  ({', '.join(others)})" if others else line


def _write_csv(rows: Iterable[dict], top: int, target: TextIO) -> None:
    writer: Any = csv.writer(target)
    ranks = range(1, top + 1)
    ranked = [name for rank in ranks for name in (f"category_{rank}", f"probability_{rank}")]
    writer.writerow(["file", "category", "probability", *ranked, "reason"])
    for row in rows:
        values = [value for one in row["top"] for value in one.values()]
        values += [""] * (2 * top - len(values))
        writer.writerow([row["file"], row["category"], row["probability"], *values, row["reason"]])
        target.flush()
