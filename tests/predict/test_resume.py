"""Tests of the rows of an unfinished run: kept through a kill, continued, never mixed up."""

import json
import os
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.resume import check_target, kept_rows
from tests.predict.conftest import rows_in

SETTINGS = {"model": "123", "top": 2, "threshold": 0.5}


def row(name, reason=""):
    best = [] if reason else [{"category": "hat", "probability": 0.5}]
    category, probability = ("", None) if reason else ("hat", 0.5)
    values = {"file": name, "category": category, "probability": probability}
    return values | {"top": best, "reason": reason}


@pytest.fixture
def file(tmp_path) -> Path:
    """Name the file that an earlier run wrote."""
    (tmp_path / "out.jsonl").write_text("before")
    return tmp_path / "out.jsonl"


def unfinished(file):
    return file.with_name(".out.jsonl.unfinished")


def leave(file, *rows):
    """Leave what a killed run leaves."""
    with kept_rows(file, SETTINGS) as kept:
        for one in rows:
            kept.add(one)


def test_file_appears_when_all_rows_are_there(file):
    rows = [row("b"), row("a", "empty file"), row("c")]
    with kept_rows(file, SETTINGS) as kept:
        for number, one in enumerate(rows):
            kept.add(one)
            assert len(unfinished(file).read_text().splitlines()) == number + 2  # Flushed.
        assert file.read_text() == "before"
        assert kept.finish(file, "jsonl", 2) == (3, 1)
    assert rows_in(file) == rows
    assert list(file.parent.iterdir()) == [file]


def test_run_without_rows_leaves_nothing_or_an_empty_list(file):
    leave(file)
    assert list(file.parent.glob(".*.unfinished")) == []
    with kept_rows(file, SETTINGS) as kept:
        kept.finish(file, "json", 2)
    assert json.loads(file.read_text()) == []


@pytest.mark.parametrize("torn", ["", '{"file": "c", "categ', '{"file": "c"}'])
def test_run_continues_after_the_last_whole_row(torn, file):
    name = os.fsdecode(b"\xff\n.jpg")
    leave(file, row("a"), row(name, "empty file"))
    with unfinished(file).open("a") as lines:
        lines.write(torn)
    with kept_rows(file, dict(SETTINGS)) as kept:
        assert kept.done == {"a", name}
        kept.add(row("c"))
        assert kept.finish(file, "jsonl", 2) == (3, 1)
    assert rows_in(file) == [row("a"), row(name, "empty file"), row("c")]
    assert list(file.parent.iterdir()) == [file]


def test_rows_whose_first_line_is_not_whole_start_again(file):
    unfinished(file).write_text('{"model": "1')
    leave(file, row("a"))
    assert rows_in(unfinished(file)) == [SETTINGS, row("a")]


@pytest.mark.parametrize(
    ("name", "value"), [("model", "124"), ("top", 3), ("threshold", 0.6), ("sort_into", "there")]
)
def test_other_options_are_refused_and_nothing_is_changed(name, value, file):
    leave(file, row("a"))
    before = unfinished(file).read_text()
    message = f"with other options: {name} was {SETTINGS.get(name)}, is {value}\\."
    with pytest.raises(InputError, match=message), kept_rows(file, SETTINGS | {name: value}):
        pass
    assert (file.read_text(), unfinished(file).read_text()) == ("before", before)


@pytest.mark.parametrize("name", ["/dev/null", "", ".", "folder", "gone/out.csv"])
def test_target_must_be_a_file_in_a_folder(name, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^Expected the name of a file .*|^No folder gone for "):
        check_target(Path(name), resume=False)


def test_rows_that_another_process_writes_are_refused(file):
    with (
        kept_rows(file, SETTINGS),
        pytest.raises(InputError, match="Another process is writing the same rows"),
        kept_rows(file, SETTINGS),
    ):
        pass
