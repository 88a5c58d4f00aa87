"""Tests of the replacing of exports: whatever fails, or is killed, one of both is there, whole."""

import contextlib
import os
from pathlib import Path

import pytest

from fashion_keras.export.replacing import put_back, replace_all

NAMES = ["our.bin", "our.xml", "our.xml.json"]


class KilledError(BaseException):
    """Stands for the end of a process: nothing is done after it."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Write an earlier export and a new one; return the folder in which the new one was made."""
    work = tmp_path / ".our.xml.abcd1234"
    (work / "new").mkdir(parents=True)
    for folder, text in ((tmp_path, "earlier"), (work / "new", "new")):
        for name in NAMES:
            (folder / name).write_text(text)
    return work


def found(folder: Path) -> list[str]:
    """Return what the export's files hold that are there; the JSON is no part of what is loaded."""
    return [(folder / name).read_text() for name in NAMES[:2] if (folder / name).exists()]


def fail_at(number: int, error: BaseException, folder: Path, monkeypatch) -> None:
    """Let a move fail, and all that come after it, if it was a kill."""
    whole, moves = os.replace, []

    def replace(source: Path, target: Path) -> None:
        moves.append(target)
        killed = isinstance(error, KilledError) and len(moves) > number
        if len(moves) == number + 1 or killed:
            raise error
        whole(source, target)
        assert len(set(found(folder))) < 2 or not (folder / "our.xml").exists()

    monkeypatch.setattr("os.replace", replace)


@pytest.mark.parametrize("number", range(6))
def test_a_signal_just_after_a_move_loses_nothing(number, work, tmp_path, monkeypatch):
    whole, moves = os.replace, []

    def replace(source: Path, target: Path) -> None:
        whole(source, target)
        moves.append(target)
        if len(moves) == number + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        replace_all(work, tmp_path)
    assert [(tmp_path / name).read_text() for name in NAMES] == ["earlier"] * 3


@pytest.mark.parametrize("number", range(7))
def test_files_that_belong_together_never_mix(number, work, tmp_path, monkeypatch):
    fail_at(number, OSError("Permission denied"), tmp_path, monkeypatch)
    fails = pytest.raises(OSError, match="Permission denied")
    with fails if number < 6 else contextlib.nullcontext():
        replace_all(work, tmp_path)
    assert found(tmp_path) == ["earlier" if number < 6 else "new"] * 2


@pytest.mark.parametrize("number", range(7))
def test_an_earlier_export_comes_back_after_a_kill(number, work, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        fail_at(number, KilledError(), tmp_path, patch)
        with pytest.raises(KilledError) if number < 6 else contextlib.nullcontext():
            replace_all(work, tmp_path)
    put_back(tmp_path / "our.xml")
    assert found(tmp_path) == ["earlier" if number < 6 else "new"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    assert ("our.xml is put back" in capsys.readouterr().out) == (2 <= number < 6)


def test_an_earlier_folder_comes_back_in_the_place_of_half_a_new_one(tmp_path):
    target, work = tmp_path / "our_saved_model", tmp_path / ".our_saved_model.abcd1234"
    for folder, text in ((work / "earlier" / target.name, "earlier"), (target, "new")):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_text(text)
    (work / "new").mkdir()
    (work / "new" / "our_saved_model.json").write_text("new")
    put_back(target)
    assert (target / "saved_model.pb").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_what_others_keep_beside_an_export_stays(tmp_path):
    for name in (".our.xml.old", ".our.xml.xml.abcd1234", ".our.xml.original"):
        (tmp_path / name).mkdir()
    for name in (".our.xml.old", ".our.xml.xml.abcd1234"):
        (tmp_path / name / "new").mkdir()
    (tmp_path / ".our.xml.lock").touch()
    put_back(tmp_path / "our.xml")
    assert len(list(tmp_path.iterdir())) == 4
