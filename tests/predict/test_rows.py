"""Tests of rows, and of the table, CSV and JSON that they become."""

import csv
import io
import json
import os

import numpy as np
import pytest

from fashion_keras.classifier import Prediction
from fashion_keras.predict.rows import FORMATS, flat, row_of, write_rows

LABELS = ["cap", "hat", "sock", "tie"]
PROBABILITIES = np.array([0.05, 0.75, 0.1875, 0.0125], "float32")


def hat(name="a/hat.jpg", top=3, threshold=0.0):
    return row_of(Prediction(name, "hat", 0.75, PROBABILITIES, ""), LABELS, top, threshold)


def unreadable(name="a/bad.jpg", top=3, threshold=0.0):
    return row_of(Prediction(name, "", 0.0, np.empty(0), "empty file"), LABELS, top, threshold)


def strange(name="a/odd.jpg", top=3, threshold=0.0):
    prediction = Prediction(name, "none of these", 0.75, PROBABILITIES, "")
    return row_of(prediction, LABELS, top, threshold)


def written(rows, kind, top=3, width=0):
    target = io.StringIO(newline="")
    counts = write_rows(rows, kind, top, target, width)
    assert counts == (len(rows), sum(bool(row["reason"]) for row in rows))
    return target.getvalue()


def test_row_lists_the_best_categories_in_their_order():
    assert hat() == {
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
    assert [len(hat(top=top)["top"]) for top in (1, 2, 4)] == [1, 2, 4]


def test_row_of_an_unreadable_photo_has_only_its_reason():
    expected = {"file": "a/bad.jpg", "category": "", "probability": None, "top": []}
    assert unreadable(threshold=0.5) == expected | {"reason": "empty file"}


@pytest.mark.parametrize(
    ("threshold", "category"),
    [(0, "hat"), (0.75, "hat"), (0.7500001, "uncertain"), (1, "uncertain")],
)
def test_below_the_threshold_a_photo_is_uncertain(threshold, category):
    assert hat(threshold=threshold) == hat() | {"category": category}
    assert strange(threshold=threshold) == hat("a/odd.jpg") | {"category": "none of these"}


NAMES = ["a.jpg", 'a "quoted", name.jpg', "a\nb.jpg", "größe - 日本.jpg", os.fsdecode(b"\xff")]


@pytest.mark.parametrize("top", [1, 2, 4])
def test_every_format_gives_back_the_same_rows(top):
    rows = [hat(name, top) for name in NAMES]
    rows[2:2] = [unreadable(top=top), strange("c", top), hat("b", top, threshold=0.9)]
    lines = [json.dumps(row) for row in rows]
    assert written(rows, "jsonl", top) == "".join(f"{line}\n" for line in lines)
    text = written(rows, "json", top)
    assert json.loads(text) == rows
    assert text.splitlines() == ["[", *(f"{line}," for line in lines[:-1]), lines[-1], "]"]
    flats = [flat(row, top) for row in rows]
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in flats]
    assert list(csv.DictReader(io.StringIO(written(rows, "csv", top), newline=""))) == texts


def test_csv_has_a_header_and_equally_long_lines():
    text = written([hat(top=2), unreadable(top=2)], "csv", top=2)
    assert text.split("\r\n") == [
        "file,category,probability,category_1,probability_1,category_2,probability_2,reason,model",
        "a/hat.jpg,hat,0.75,hat,0.75,sock,0.1875,,",
        "a/bad.jpg,,,,,,,empty file,",
        "",
    ]


def test_the_service_has_the_same_columns():
    """Those of Ray are compared in test_ray_data.py."""
    pytest.importorskip("pydantic", reason="needs the extra `serve`")
    from fashion_keras.serve.schemas import Guess, PhotoAnswer

    assert list(hat()) == list(PhotoAnswer.model_fields)
    assert list(hat()["top"][0]) == list(Guess.model_fields)


def test_no_rows():
    header = "file,category,probability,category_1,probability_1,reason,model\r\n"
    assert [written([], kind, top=1) for kind in FORMATS] == ["", header, "[]\n", ""]


def test_table_is_aligned():
    rows = [hat("short.jpg"), hat("a/longer.jpg", 1), hat("b", 2, 0.9), unreadable("bad.jpg")]
    rows.append(strange("odd.jpg", 2))
    assert written(rows, "table", width=12).splitlines() == [
        "short.jpg     hat          0.750  (sock 0.188, cap 0.050)",
        "a/longer.jpg  hat          0.750",
        "b             uncertain    0.750  (hat 0.750, sock 0.188)",
        "bad.jpg       cannot be read: empty file",
        "odd.jpg       none of these  (hat 0.750, sock 0.188)",
    ]
    assert written([hat("y", 1)], "table", width=150).startswith("y" + " " * 99 + "  hat")


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_are_written_as_they_come(kind):
    flushed = []

    class Target(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    def rows():
        yield hat("first")
        assert "first" in flushed[-1]
        yield hat("second")

    write_rows(rows(), kind, 3, Target())
    assert "second" in flushed[-1]
