"""Tests of files that take their places when they are whole."""

import os

import pytest

from fashion_keras.files import whole_file


def test_whole_file_takes_its_place_at_the_end(tmp_path):
    file = tmp_path / "new" / "one.weights.h5"
    for text in ("first", "second"):
        with whole_file(file) as unfinished:
            assert unfinished.parent == file.parent
            assert unfinished.name.endswith(".one.weights.h5")
            assert file.exists() == (text == "second")
            unfinished.write_text(text)
        assert file.read_text() == text
        assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_file_that_was_not_finished_changes_nothing(error, tmp_path):
    file = tmp_path / "one.json"
    file.write_text("before")

    def write() -> None:
        with whole_file(file) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda number: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    with whole_file(tmp_path / "one") as unfinished:
        unfinished.write_text("whole")
    assert calls == ["fsync", "replace"]
