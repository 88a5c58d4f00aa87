"""Tests of rows, and of the table, CSV and JSON they become."""

import csv
import io
import json
import os
from collections.abc import Iterator

import numpy as np
import pytest

from fashion_keras.classifier import Prediction
from fashion_keras.predict.rows import FORMATS, row_of, write_rows

LABELS = ["cap", "hat", "sock", "tie"]
ANSWER = np.array([0.05, 0.75, 0.1875, 0.0125], "float32")


def hat(name: str = "a/hat.jpg") -> Prediction:
    return Prediction(name, "hat", 0.75, ANSWER, "")


def unreadable(name: str = "a/bad.jpg") -> Prediction:
    return Prediction(name, "", 0.0, np.empty(0), "empty file")


def row(prediction: Prediction, top: int = 3, threshold: float = 0.0) -> dict:
    return row_of(prediction, LABELS, top, threshold)


def written(rows: list[dict], kind: str, top: int = 3, width: int = 0) -> str:
    target = io.StringIO(newline="")
    write_rows(rows, kind, top, target, width)
    return target.getvalue()


def test_row_tells_the_best_categories_in_their_order() -> None:
    assert row(hat()) == {
        "file": "a/hat.jpg",
        "category": "hat",
        "probability": 0.75,
        "top": [
            {"category": "hat", "probability": 0.75},
            {"category": "sock", "probability": 0.1875},
            {"category": "cap", "probability": pytest.approx(0.05)},
        ],
        "reason": "",
    }


@pytest.mark.parametrize("top", [1, 2, 4])
def test_row_tells_as_many_categories_as_asked_for(top: int) -> None:
    best = ["hat", "sock", "cap", "tie"][:top]
    assert [one["category"] for one in row(hat(), top)["top"]] == best


def test_row_of_an_unreadable_photo_has_only_its_reason() -> None:
    for threshold in (0, 0.5):
        assert row(unreadable(), threshold=threshold) == {
            "file": "a/bad.jpg",
            "category": "",
            "probability": None,
            "top": [],
            "reason": "empty file",
        }


@pytest.mark.parametrize(
    ("threshold", "category"),
    [(0, "hat"), (0.75, "hat"), (0.7500001, "uncertain"), (1, "uncertain")],
)
def test_below_the_threshold_a_photo_is_uncertain(threshold: float, category: str) -> None:
    found = row(hat(), threshold=threshold)
    assert found["category"] == category
    assert found["probability"] == 0.75
    assert found["top"] == row(hat())["top"]


def test_equal_probabilities_keep_the_order_of_the_labels() -> None:
    labels = [f"label {number}" for number in range(100)]
    same = Prediction("a", labels[0], 0.01, np.full(100, 0.01), "")
    assert [one["category"] for one in row_of(same, labels, 100, 0)["top"]] == labels


def parsed(text: str, kind: str, top: int) -> list[dict]:
    """Read rows back from what was written."""
    if kind == "json":
        return json.loads(text)
    if kind == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [_row_of_csv(found, top) for found in csv.DictReader(io.StringIO(text, newline=""))]


def _row_of_csv(found: dict, top: int) -> dict:
    ranks = [rank for rank in range(1, top + 1) if found[f"category_{rank}"]]
    return {
        "file": found["file"],
        "category": found["category"],
        "probability": float(found["probability"]) if found["probability"] else None,
        "top": [
            {
                "category": found[f"category_{rank}"],
                "probability": float(found[f"probability_{rank}"]),
            }
            for rank in ranks
        ],
        "reason": found["reason"],
    }


NAMES = [
    "a.jpg",
    'a "quoted", name.jpg',
    "a\nb.jpg",
    "Kleid größe 7 - 日本.jpg",
    os.fsdecode(b"\xff"),
]


@pytest.mark.parametrize("top", [1, 2, 4])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_every_format_gives_back_the_same_rows(kind: str, top: int) -> None:
    rows = [row(hat(name), top) for name in NAMES]
    rows[2:2] = [row(unreadable(), top), row(hat("b"), top, threshold=0.9)]
    assert parsed(written(rows, kind, top), kind, top) == rows


def test_csv_has_a_header_and_equally_long_lines() -> None:
    text = written([row(hat(), 2), row(unreadable(), 2)], "csv", top=2)
    assert text.split("\r\n") == [
        "file,category,probability,category_1,probability_1,category_2,probability_2,reason",
        "a/hat.jpg,hat,0.75,hat,0.75,sock,0.1875,",
        "a/bad.jpg,,,,,,,empty file",
        "",
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("table", ""),
        ("json", "[]\n"),
        ("jsonl", ""),
        ("csv", "file,category,probability,category_1,probability_1,reason\r\n"),
    ],
)
def test_no_rows(kind: str, expected: str) -> None:
    assert written([], kind, top=1) == expected
    assert set(FORMATS) == {"table", "csv", "json", "jsonl"}


def test_json_has_a_row_a_line() -> None:
    rows = [row(hat()), row(unreadable())]
    lines = written(rows, "json").splitlines()
    assert lines == ["[", json.dumps(rows[0]) + ",", json.dumps(rows[1]), "]"]
    assert written(rows, "jsonl") == "".join(json.dumps(one) + "\n" for one in rows)


def test_table_is_aligned() -> None:
    rows = [row(hat("short.jpg")), row(hat("a/longer.jpg")), row(unreadable("bad.jpg"))]
    assert written(rows, "table", width=12).splitlines() == [
        "short.jpg     hat          0.750  (sock 0.188, cap 0.050)",
        "a/longer.jpg  hat          0.750  (sock 0.188, cap 0.050)",
        "bad.jpg       cannot be read: empty file",
    ]


def test_table_of_the_best_category_alone() -> None:
    assert written([row(hat(), 1)], "table", width=9) == "a/hat.jpg  hat          0.750\n"


def test_table_tells_the_best_guess_of_an_uncertain_photo() -> None:
    line = written([row(hat(), 2, threshold=0.9)], "table", width=9)
    assert line == "a/hat.jpg  uncertain    0.750  (hat 0.750, sock 0.188)\n"


def test_long_names_do_not_push_the_others_far_aside() -> None:
    rows = [row(hat("x" * 150), 1), row(hat("y"), 1)]
    long, short = written(rows, "table", width=150).splitlines()
    assert long == "x" * 150 + "  hat          0.750"
    assert short == "y" + " " * 99 + "  hat          0.750"


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_are_written_as_they_come(kind: str) -> None:
    flushed: list[str] = []

    class Target(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue())

    def rows() -> Iterator[dict]:
        yield row(hat("first"))
        assert "first" in flushed[-1]
        yield row(hat("second"))
        assert "second" in flushed[-1]

    write_rows(rows(), kind, 3, Target())
    assert flushed
