"""Tests of the predict command: what it takes, what comes out, and what a kill leaves."""

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fashion_keras import classifier as classifier_module
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import RELEASED
from fashion_keras.data.photo import read_photo
from fashion_keras.inspection import name_of
from fashion_keras.predict import __main__ as command
from tests.builders import LABELS, alone, encoded, never_near, picture
from tests.predict.conftest import rows_in, same_rows

JSONL = ("--format", "jsonl")


def test_each_photo_is_a_row_in_the_order_given(predict, photos, model_file):
    Path(photos[2]).write_bytes(encoded(picture().convert("CMYK"), "TIFF"))
    ended = predict(*photos[::-1], *JSONL)
    assert (ended.code, ended.err) == (0, "")
    assert [row["file"] for row in ended.rows] == photos[::-1]
    model = load_classifier(model_file)
    for row in ended.rows:
        expected = alone(model, read_photo(Path(row["file"])).pixels)
        best = np.argsort(-expected)[:3]
        assert [one["category"] for one in row["top"]] == [LABELS[number] for number in best]
        found = [one["probability"] for one in row["top"]]
        np.testing.assert_allclose(found, expected[best], atol=1e-5)
        assert (row["category"], row["probability"]) == (row["top"][0]["category"], found[0])


def test_the_engine_is_the_best_for_that_many_photos(predict, photos, engine_asked):
    assert predict(*photos).code == 0
    assert [asked[:2] for asked in engine_asked] == [(7, 71)]


def test_progress_is_shown_on_a_terminal_where_rows_are_not(predict, photos, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = predict(*photos, *JSONL)
    assert len(ended.rows) == 7
    assert "photos: " in ended.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predict(*photos).err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_name_that_is_not_utf_8_comes_back_as_it_is(kind, predict, monkeypatch):
    name = b"\xff\xe4.jpg"
    Path("3.png").rename(os.fsdecode(name))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\n"), encoding="utf-8"))
    assert predict("-", "--format", kind, "--out", "rows").code == 0
    expected = json.dumps(os.fsdecode(name)).encode() if kind == "json" else name
    assert expected in Path("rows").read_bytes()


@pytest.mark.slow
def test_without_a_model_the_released_one_is_used(run, photos):
    [row] = run("0.png", *JSONL, "--top", 10).rows
    assert row["model"] == name_of(RELEASED)
    labels = sorted(one["category"] for one in row["top"])
    assert labels[:2] == ["dress", "hat"]
    assert len(labels) == 10


WRONG_USE = {
    "no input": ([], "the following arguments are required: INPUT"),
    "model alone": (["my.keras"], "error: Expected photos or folders beside the model. Received: "),
    "imagenet alone": (["imagenet"], "Received: imagenet alone"),
    "top 0": (["0.png", "--top", "0"], "--top: expected an integer from 1 to 100000. Received: 0"),
    "threshold": (["0.png", "--threshold", "nan"], "expected a number from 0 to 1. Received: nan"),
    "empty list": (["-"], "error: Expected names of photos on standard input, one per line."),
    "no folder": (["0.png", "--out", "gone/rows"], "error: No folder gone for rows: create it"),
    "unfinished": (["0.png", "--out", "left"], "error: An earlier run left .left.unfinished."),
    "photo": (["0.png", "1.png", "--out", "1.png"], "error: `--out` would replace 1.png, which is"),
    "missing": (["gone.keras", "0.png", "--out", "rows"], "error: No model file gone.keras"),
}


@pytest.mark.parametrize("use", WRONG_USE)
def test_wrong_use_ends_with_2_and_changes_nothing(use, run, photos, monkeypatch):
    Path(".left.unfinished").touch()
    monkeypatch.setattr(classifier_module, "load_classifier", None)  # It is not called.
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    arguments, error = WRONG_USE[use]
    ended = run(*arguments)
    assert (ended.code, ended.out, ended.err.count("error: ")) == (2, "", 1)
    assert error in ended.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize("kind", ["table", "csv", "json", "jsonl"])
def test_file_holds_what_would_be_printed(kind, predict, photos):
    Path(photos[1]).write_bytes(b"")
    Path("rows").write_text("before")
    ended = predict(*photos, "--format", kind, "--out", "rows")
    assert ended.code == 3
    assert "photos to rows: " in ended.out
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")
    printed, written = predict(*photos, "--format", kind).out, Path("rows").read_text()
    if kind == "table":
        first, printed = printed.split("\n", 1)
        assert first.startswith("model: our.keras@")
    number = re.compile(r"\d\.\d+(e-\d+)?")  # The last digits may differ.
    assert number.sub("", printed).splitlines() == number.sub("", written).splitlines()
    assert list(Path().glob(".*")) == []


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)]
)
def test_interrupted_run_is_continued_without_doing_a_photo_twice(
    error, code, predict, photos, monkeypatch
):
    Path(photos[0]).write_bytes(b"")
    arguments = [*photos, *JSONL, "--out", "rows", "--sort-into", "sorted"]
    undisturbed = predict(*photos, *JSONL).rows
    Path("rows").write_text("before")
    row_of, results = command.row_of, iter([False] * 4 + [True])

    def fail(*arguments):
        if next(results):
            raise error
        return row_of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(command, "row_of", fail)
        assert predict(*arguments).code == code
    assert Path("rows").read_text() == "before"
    assert predict(*arguments).code == 2  # Refused: the rows that are there would be lost.
    for name in photos[:4]:
        Path(name).unlink()
    ended = predict(*arguments, "--resume")
    assert (ended.code, ended.err) == (3, "")
    assert "continuing: 4 photos were done before\n" in ended.out
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")
    assert same_rows(rows_in("rows"), undisturbed)
    assert sorted(file.name for file in Path("sorted").glob("*/*")) == photos[1:]


@pytest.mark.parametrize("link", [[], ["--link"]])
def test_photos_are_sorted_into_folders_of_their_categories(link, predict, photos):
    Path(photos[2]).write_bytes(b"no photo")
    arguments = [*photos, "--sort-into", "sorted", *link, *JSONL]
    ended = predict(*arguments)
    expected = {
        f"{row['category']}/{row['file']}": Path(row["file"]).read_bytes()
        for row in ended.rows
        if not row["reason"]
    }
    assert ended.code == 3
    assert len({name.split("/")[0] for name in expected}) > 1
    predict(*arguments)  # Once more changes nothing.
    files = [path for path in Path("sorted").rglob("*") if not path.is_dir()]
    assert {file.is_symlink() for file in files} == {bool(link)}
    found = {file.relative_to("sorted").as_posix(): file.read_bytes() for file in files}
    assert found == expected


def test_photos_of_none_of_the_categories_get_a_folder_of_their_own(
    predict, load_once, model_file, monkeypatch
):
    strange = never_near(load_once(model_file))
    monkeypatch.setattr(classifier_module, "load_classifier", lambda file: strange)
    (row,) = predict("0.png", "--sort-into", "sorted", "--threshold", "0.99", *JSONL).rows
    assert row["category"] == "none of these"
    assert Path("sorted/none of these/0.png").read_bytes() == Path("0.png").read_bytes()


def test_bad_labels_are_refused_only_for_sorting(predict, load_once, model_file, monkeypatch):
    metadata = load_once(model_file).metadata | {"labels": [*LABELS[:3], "../x"]}
    bad = Classifier(load_once(model_file).model, metadata)
    monkeypatch.setattr(classifier_module, "load_classifier", lambda file: bad)
    ended = predict("0.png", "--sort-into", "sorted", "--out", "rows")
    assert ended.code == 2
    assert "'../x'" in ended.err
    assert not Path("sorted").exists()
    assert predict("0.png").code == 0
