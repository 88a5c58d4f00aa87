"""Tests of the rows of an unfinished run: kept through a kill, gone on with, never mixed up."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.journal import Journal, check_target

SETTINGS = {"model": "123", "top": 2, "threshold": 0.5}


def row(name: str, reason: str = "") -> dict:
    best = [] if reason else [{"category": "hat", "probability": 0.5}]
    category, probability = ("", None) if reason else ("hat", 0.5)
    return {
        "file": name,
        "category": category,
        "probability": probability,
        "top": best,
        "reason": reason,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Name the file that an earlier run wrote."""
    (tmp_path / "out.jsonl").write_text("before")
    return tmp_path / "out.jsonl"


def kept(file: Path) -> Path:
    return file.with_name(".out.jsonl.unfinished")


def leave(file: Path, *rows: dict) -> None:
    """Leave what a killed run leaves."""
    with Journal(file, SETTINGS, resume=True) as journal:
        for one in rows:
            journal.add(one)


def names_in(file: Path) -> list[str]:
    return [json.loads(line)["file"] for line in file.read_text().splitlines()]


def test_file_appears_when_all_rows_are_there(file: Path) -> None:
    rows = [row("b"), row("a", "empty file"), row("c")]
    with Journal(file, SETTINGS, resume=False) as journal:
        for number, one in enumerate(rows):
            journal.add(one)
            assert len(kept(file).read_text().splitlines()) == number + 2  # Flushed each time.
        assert journal.done == {"b": True, "a": False, "c": True}
        assert file.read_text() == "before"
        journal.finish("jsonl", 2)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["json", "csv", "table"])
def test_file_has_the_format_asked_for(kind: str, file: Path) -> None:
    name = os.fsdecode(b"\xff-longer")
    with Journal(file, SETTINGS, resume=False) as journal:
        journal.add(row("a"))
        journal.add(row(name))
        journal.finish(kind, 1)
    content = file.read_bytes()
    if kind == "json":
        assert json.loads(content) == [row("a"), row(name)]
    if kind == "csv":
        assert content.splitlines()[1:] == [b"a,hat,0.5,hat,0.5,", b"\xff-longer,hat,0.5,hat,0.5,"]
    if kind == "table":
        assert content.splitlines() == [b"a" + b" " * 9 + b"hat          0.500"] + [
            b"\xff-longer  hat          0.500"
        ]


def test_run_without_rows_gives_an_empty_list(file: Path) -> None:
    with Journal(file, SETTINGS, resume=False) as journal:
        journal.finish("json", 2)
    assert json.loads(file.read_text()) == []


def test_broken_off_run_keeps_its_rows_and_the_earlier_file(file: Path) -> None:
    def break_off() -> None:
        with Journal(file, SETTINGS, resume=False) as journal:
            journal.add(row("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert file.read_text() == "before"
    assert sorted(path.name for path in file.parent.iterdir()) == [
        ".out.jsonl.unfinished",
        "out.jsonl",
    ]


def test_resumed_run_goes_on_after_the_last_row(file: Path) -> None:
    leave(file, row("a"), row("b", "empty file"))
    with Journal(file, dict(SETTINGS), resume=True) as journal:
        assert journal.done == {"a": True, "b": False}
        journal.add(row("c"))
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a", "b", "c"]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("torn", ['{"file": "c", "categ', '{"file": "c"}', "\0\0\0"])
def test_line_that_was_not_written_whole_is_cut_off(torn: str, file: Path) -> None:
    leave(file, row("a"), row("b"))
    with kept(file).open("a") as journal:
        journal.write(torn)
    with Journal(file, SETTINGS, resume=True) as journal:
        assert list(journal.done) == ["a", "b"]
        journal.add(row("c"))
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a", "b", "c"]


@pytest.mark.parametrize("content", ["", '{"model": "1'])
def test_journal_whose_first_line_is_not_whole_begins_anew(content: str, file: Path) -> None:
    kept(file).write_text(content)
    with Journal(file, SETTINGS, resume=True) as journal:
        assert journal.done == {}
        journal.add(row("a"))
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a"]


def test_resume_without_an_earlier_run_begins_anew(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.jsonl", SETTINGS, resume=True) as journal:
        assert journal.done == {}
        journal.add(row("a"))
    with Journal(tmp_path / "out.jsonl", SETTINGS, resume=True) as journal:
        assert journal.done == {"a": True}


def test_names_that_are_not_utf_8_are_known_again(file: Path) -> None:
    name = os.fsdecode(b"\xff\n.jpg")
    leave(file, row(name), row("日本"))
    with Journal(file, SETTINGS, resume=True) as journal:
        assert list(journal.done) == [name, "日本"]


@pytest.mark.parametrize(
    ("name", "value"), [("model", "124"), ("top", 3), ("threshold", 0.6), ("sort_into", "there")]
)
def test_other_settings_are_refused_and_nothing_is_changed(
    name: str, value: Any, file: Path
) -> None:
    leave(file, row("a"))
    before = kept(file).read_text()
    told = f"had other settings: {name} was {SETTINGS.get(name)}, is {value}\\."
    with pytest.raises(InputError, match=told):
        Journal(file, SETTINGS | {name: value}, resume=True)
    assert (file.read_text(), kept(file).read_text()) == ("before", before)


def test_journal_of_an_earlier_run_is_not_overwritten_unasked(file: Path) -> None:
    leave(file, row("a"))
    before = kept(file).read_text()
    for refused in (lambda: check_target(file, False), lambda: Journal(file, SETTINGS, False)):
        with pytest.raises(InputError, match=r"left .*\.out\.jsonl\.unfinished\. .*`--resume`, or"):
            refused()
    assert kept(file).read_text() == before
    check_target(file, True)


@pytest.mark.parametrize("line", ["no json", "[1]", '{"reason": ""}', "7"])
def test_damaged_journal_says_so(line: str, file: Path) -> None:
    leave(file)
    with kept(file).open("a") as journal:
        journal.write(line + "\n")
    with pytest.raises(InputError, match=r"unfinished is damaged: delete it"):
        Journal(file, SETTINGS, resume=True)


def test_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No folder .*gone for out\.csv: make it first"):
        Journal(tmp_path / "gone" / "out.csv", SETTINGS, resume=False)


@pytest.mark.parametrize("name", ["", ".", "folder"])
def test_folder_is_no_file_for_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^Expected the name of a file .* Received: the folder"):
        Journal(Path(name), SETTINGS, resume=False)


def test_full_disk_at_the_end_keeps_everything_that_was_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with Journal(file, SETTINGS, resume=False) as journal:
            journal.add(row("a"))
            with pytest.raises(OSError, match="No space left"):
                journal.finish("jsonl", 2)
    assert file.read_text() == "before"
    assert len(list(file.parent.iterdir())) == 2
    with Journal(file, SETTINGS, resume=True) as journal:
        assert journal.done == {"a": True}
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_full_disk_on_the_way_loses_no_whole_row(file: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = []

    def write() -> None:
        with Journal(file, SETTINGS, resume=False) as journal:
            for number in range(10):
                journal.add(row(str(number)))
                written.append(str(number))

    resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))  # No file may be longer.
    try:
        with pytest.raises(OSError, match="File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 0 < len(written) < 10
    assert not kept(file).read_text().endswith("\n")  # A part of the row that did not fit.
    assert file.read_text() == "before"
    with Journal(file, SETTINGS, resume=True) as journal:
        assert list(journal.done) == written


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
@pytest.mark.parametrize("resume", [False, True])
def test_rows_that_another_process_is_making_are_refused(resume: bool, file: Path) -> None:
    with Journal(file, SETTINGS, resume=False) as journal:
        with pytest.raises(InputError, match="Another process is at the same rows"):
            check_target(file, resume)
        journal.add(row("a"))
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a"]
    assert list(file.parent.iterdir()) == [file]


def test_zeros_that_a_power_cut_left_are_cut_off(file: Path) -> None:
    leave(file, row("a"), row("b"))
    whole = kept(file).read_bytes()
    start = whole.index(b'{"file": "b"')
    kept(file).write_bytes(whole[:start] + bytes(20) + whole[start + 20 :])
    with Journal(file, SETTINGS, resume=True) as journal:
        assert list(journal.done) == ["a"]
        journal.add(row("b"))
        journal.finish("jsonl", 2)
    assert names_in(file) == ["a", "b"]
