"""Tests of files that take their places when they are whole, locks, and disks without room."""

import errno
import os
import platform
import subprocess
import sys
import threading
import time
import types

import pytest

from fashion_keras.artifacts import (
    all_together,
    check_free,
    check_room,
    disk_problem,
    fingerprint,
    in_words,
    made_once,
    one_at_a_time,
    only_one,
    sha256_of,
    whole_file,
)
from fashion_keras.config import InputError


def test_equal_facts_have_equal_fingerprints_whatever_their_order():
    assert fingerprint(size=299, seeds=[1, 2]) == fingerprint(seeds=[1, 2], size=299)
    assert len({fingerprint(size=299), fingerprint(size=150), fingerprint(side=299)}) == 3


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
@pytest.mark.parametrize("folder", [False, True])
def test_what_was_not_finished_changes_nothing(error, folder, tmp_path):
    file = tmp_path / "one.json"
    if not folder:
        file.write_text("before")

    def write() -> None:
        with whole_file(file) as unfinished:
            if folder:
                unfinished.mkdir()
                unfinished = unfinished / "inside"
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [place.read_text() for place in tmp_path.iterdir()] == ([] if folder else ["before"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not list other processes")
def test_what_killed_processes_left_of_a_file_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = tmp_path / "one"
    names = {name: f".{platform.node()}-{name}.tmp.one" for name in (ended.pid, os.getppid())}
    for name in (*names.values(), f".elsewhere-{ended.pid}.tmp.one", f"{names[ended.pid]}.other"):
        (tmp_path / name).touch()
    with whole_file(file) as unfinished:
        unfinished.write_text("whole")
    assert not (tmp_path / names[ended.pid]).exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_an_artifact_is_made_by_one_while_others_wait(tmp_path):
    folder, makers = tmp_path / "cache" / "sample", []

    def make(unfinished) -> None:
        makers.append(threading.current_thread())
        time.sleep(0.2)
        unfinished.mkdir()
        (unfinished / "photo").write_text("drawn")

    threads = [threading.Thread(target=made_once, args=(folder, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    assert (made_once(folder, make) / "photo").read_text() == "drawn"
    assert [place.name for place in folder.parent.iterdir()] == ["sample"]


def test_a_lock_is_refused_while_another_holds_it(tmp_path):
    lock = tmp_path / "new" / "lock"
    for _ in range(2):
        with only_one(lock, "results"):
            with pytest.raises(InputError, match=r"Another process is writing the same results"):
                with only_one(lock, "results"):
                    pass


HOLD = """
import sys
from pathlib import Path
from fashion_keras.artifacts import only_one
with only_one(Path(sys.argv[1]), "results"):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_the_process_that_held_it(tmp_path):
    lock = tmp_path / "lock"
    words = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(InputError, match="Another process"):
            with only_one(lock, "results"):
                pass
        process.kill()
    with only_one(lock, "results"):
        pass


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


def test_results_of_another_process_are_refused(tmp_path):
    with all_together(tmp_path, ["one"]) as work:
        (work / "one").write_text("mine")
        with pytest.raises(InputError, match=f"the same results in {tmp_path}. Wait"):
            check_free(tmp_path)
    check_free(tmp_path)
    assert (tmp_path / "one").read_text() == "mine"


def _write_all(folder, names, text):
    with all_together(folder, names) as work:
        for name in names:
            (work / name).write_text(text)


def test_while_files_take_their_places_the_last_one_is_missing(tmp_path, monkeypatch):
    names = ("model", "scores", "sign")
    _write_all(tmp_path / "run", names, "old")
    replace, seen = os.replace, []

    def note(source, target):
        seen.append((tmp_path / "run" / "sign").exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    _write_all(tmp_path / "run", names, "new")
    assert seen == [False, False, False]
    assert {(tmp_path / "run" / name).read_text() for name in names} == {"new"}


def test_files_that_a_run_did_not_write_are_removed_and_failures_change_nothing(tmp_path):
    _write_all(tmp_path, ("one", "two"), "old")
    with pytest.raises(FileNotFoundError):
        with all_together(tmp_path, ("one", "two")) as work:
            (work / "one").write_text((work / "missing").read_text())
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}
    with all_together(tmp_path, ("one", "two")) as work:
        (work / "two").write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("two", "new")]


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "one").write_bytes(b"abc")
    assert sha256_of(tmp_path / "one").startswith("ba7816bf8f01cfea")


def test_a_disk_without_room_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    file = tmp_path / "one.h5"
    file.write_bytes(bytes(2_000_000))  # Its room counts: it will be replaced.
    monkeypatch.setattr("shutil.disk_usage", lambda place: types.SimpleNamespace(free=500_000))
    check_room(file, 1_400_000)
    with pytest.raises(OSError, match=r"No space left") as raised:
        check_room(file, 3_000_000)
    message = str(disk_problem(raised.value))
    assert message.startswith("The disk is full: ")
    assert "3.0 MB needed, 2.5 MB free" in message


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/r/one"), "read-only"),
        (RuntimeError("errno = 28, error message = 'No space left on device'"), "full"),
        (RuntimeError("/x; No space left on device"), "full"),
    ],
)
def test_disks_are_blamed_in_whatever_words_a_library_uses(error, state):
    assert str(disk_problem(error)).startswith(f"The disk is {state}: {error}. ")
    other = ValueError("something else")
    other.__cause__ = error
    assert str(disk_problem(other)) == str(disk_problem(error))


def test_other_errors_blame_no_disk():
    assert disk_problem(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_sizes_for_people():
    assert (in_words(3_210_000), in_words(1.54e9)) == ("3.2 MB", "1.5 GB")
