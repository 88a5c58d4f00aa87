"""Tests of the recognition of full and read-only disks."""

import errno
import os
import sys
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.disk import check_room, in_words, told_of_disk

FULL = Path("/dev/full")  # Of Linux: whoever writes there is told that the disk is full.
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@needs_full
def test_a_full_disk_is_told_with_the_file():
    with pytest.raises(OSError, match="No space") as raised:
        os.write(os.open(FULL, os.O_WRONLY), b"text")
    assert "is full: free some room" in str(told_of_disk(raised.value))
    named = OSError(errno.ENOSPC, "No space left on device", "/cache/one.npy")
    assert str(told_of_disk(named)).startswith("The disk of /cache/one.npy is full: ")


def test_room_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=3_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    check_room(tmp_path / "one.h5", 2_000_000)
    with pytest.raises(OSError, match="No space left") as raised:
        check_room(tmp_path / "one.h5", 2_100_000)
    told = f"The disk of {tmp_path} is full (3.1 MB are needed, 3.0 MB are free): free some room"
    assert str(told_of_disk(raised.value)).startswith(told)
    assert in_words(1_250_000_000) == "1.2 GB"


@needs_full
def test_what_h5py_says_of_a_full_disk_is_understood(tmp_path):
    (tmp_path / "one.h5").symlink_to(FULL)
    with pytest.raises((OSError, RuntimeError)) as raised:
        with h5py.File(tmp_path / "one.h5", "w") as file:
            file["rows"] = np.ones(1000)
    assert told_of_disk(raised.value)


@pytest.mark.parametrize(
    ("text", "place", "state"),
    [
        ("No write (filename = '/c/a.h5', errno = 28, ...)", "/c/a.h5", "full"),
        ("/c/variables.tmp: No space left on device [Op:SaveV2]", "/c/variables.tmp", "full"),
        ("[Errno 30] Read-only file system: '/r/search'", "/r/search", "read-only"),
    ],
)
def test_the_words_of_libraries_are_understood(text, place, state):
    assert str(told_of_disk(RuntimeError(text))).startswith(f"The disk of {place} is {state}: ")


def test_a_disk_that_caused_another_error_is_told():
    error = ValueError("it cannot be saved")
    error.__context__ = OSError(errno.EROFS, "Read-only file system", "/r/one")
    assert str(told_of_disk(error)).startswith("The disk of /r/one is read-only: make it writable")


@pytest.mark.parametrize(
    "error", [ValueError("28"), OSError(errno.ENOENT, "No such file", "a"), KeyboardInterrupt()]
)
def test_other_errors_are_not_blamed_on_a_disk(error):
    assert told_of_disk(error) is None


def test_a_command_ends_with_one_line_and_code_2(capsys):
    def main() -> None:
        raise RuntimeError("/c/variables.tmp: No space left on device [Op:SaveV2]")

    with pytest.raises(SystemExit) as ended:
        cli.run(main, "the same command begins anew")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: The disk of /c/variables.tmp is full: free some room, or ")
    assert told.endswith("; the same command begins anew\n")
    assert told.count("\n") == 1


def test_a_folder_that_was_given_is_named_if_it_has_no_room(tmp_path, monkeypatch):
    usage = types.SimpleNamespace
    full = tmp_path / "small"
    full.mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(free=9e9 * (place != full)))
    monkeypatch.setattr(sys, "argv", ["x", "--data", "sample", f"--cache={full}"])
    told = told_of_disk(RuntimeError("No space left on device"))
    assert str(told).startswith(f"The disk of {full} is full: ")


def test_other_faults_of_a_command_keep_their_traceback():
    def main() -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cli.run(main)


def test_what_h5py_adds_when_it_cannot_close_a_file_is_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    cli.run(lambda: None)
    hook: Any = sys.unraisablehook
    for where in ("h5py._objects.ObjectID.__dealloc__", "ours.__del__"):
        hook(types.SimpleNamespace(object=where, err_msg=None, exc_value=None))
    assert [told.object for told in said] == ["ours.__del__"]


def test_errors_of_a_full_disk_that_nobody_catches_are_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "excepthook", lambda *told: said.append(told[1]))
    cli.run(lambda: None)
    errors = [OSError(errno.ENOSPC, "No space left on device"), ValueError("ours")]
    for error in errors:
        sys.excepthook(type(error), error, None)
    assert said == errors[1:]
