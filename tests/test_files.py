"""Tests of files that take their places when they are whole."""

import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from fashion_keras.config import InputError
from fashion_keras.files import (
    all_together,
    check_free,
    made_once,
    one_at_a_time,
    only_one,
    whole_file,
)

no_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


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
    assert calls == ["fsync", "replace", "fsync"]  # The last one is the folder's.


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells nothing of other processes")
def test_what_killed_processes_left_of_a_file_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = tmp_path / "one"
    names = {name: f".{platform.node()}-{name}.tmp.one" for name in (ended.pid, os.getppid())}
    for name in (*names.values(), f".elsewhere-{ended.pid}.tmp.one", f"{names[ended.pid]}.other"):
        (tmp_path / name).touch()
    with whole_file(file) as unfinished:
        unfinished.write_text("whole")
    assert file.read_text() == "whole"
    assert not (tmp_path / names[ended.pid]).exists()
    assert len(list(tmp_path.iterdir())) == 4


@no_locks
def test_a_lock_is_refused_while_another_holds_it(tmp_path):
    lock = tmp_path / "new" / "lock"
    with only_one(lock, "search"):
        with pytest.raises(InputError, match=r"Another process is at the same search.*lock"):
            with only_one(lock, "search"):
                pass
    with only_one(lock, "search"):
        assert lock.read_bytes() == b""


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@no_locks
def test_a_lock_ends_with_the_process_that_held_it(tmp_path):
    lock = tmp_path / "lock"
    words = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(InputError, match="Another process"):
            with only_one(lock, "search"):
                pass
        process.kill()
    with only_one(lock, "search"):
        assert lock.exists()


@no_locks
def test_the_second_one_waits_and_says_so(tmp_path, capsys):
    order = []

    def second() -> None:
        with one_at_a_time(tmp_path / "lock", "the photos"):
            order.append("second")

    with one_at_a_time(tmp_path / "lock", "the photos"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "another process is making the photos; waiting for it\n"


@no_locks
def test_results_that_another_process_is_at_are_refused(tmp_path):
    with all_together(tmp_path, ["one"]) as work:
        (work / "one").write_text("mine")
        with pytest.raises(InputError, match=f"the same results in {tmp_path}. Wait"):
            check_free(tmp_path)
        with pytest.raises(InputError, match="Another process"):
            with all_together(tmp_path, ["one"]):
                pass
    check_free(tmp_path)
    assert (tmp_path / "one").read_text() == "mine"


@no_locks
def test_a_folder_is_made_by_one_while_the_others_wait(tmp_path):
    folder, makers = tmp_path / "sample", []

    def make() -> None:
        makers.append(threading.current_thread())
        time.sleep(0.2)
        folder.mkdir()

    threads = [threading.Thread(target=made_once, args=(folder, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    assert folder.is_dir()


def test_while_files_take_their_places_the_sign_that_all_are_there_is_missing(
    tmp_path, monkeypatch
):
    names = ("model", "scores", "sign")
    _write_all(tmp_path / "run", names, "old")
    replace = os.replace
    seen = []

    def note(source, target):
        seen.append((tmp_path / "run" / "sign").exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    _write_all(tmp_path / "run", names, "new")
    assert seen == [False, False, False]
    assert {(tmp_path / "run" / name).read_text() for name in names} == {"new"}


def _write_all(folder, names, text):
    with all_together(folder, names) as work:
        for name in names:
            (work / name).write_text(text)
