"""Tests of files that take their places when they are whole, locks, and disks without room."""

import errno
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from fashion_keras.artifacts import (
    all_together,
    check_free,
    disk_problem,
    fingerprint,
    in_words,
    made_once,
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
    here = f"{platform.node()}.tmp.one"
    left = f".{ended.pid}-0a@{here}"
    others = [f".{os.getppid()}-0a@{here}", f".{ended.pid}-0a@elsewhere.tmp.one", f"{left}.other"]
    for name in (left, *others):
        (tmp_path / name).touch()
    with whole_file(file) as unfinished:
        unfinished.write_text("whole")
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted([*others, "one"])


def test_an_artifact_is_made_by_one_while_others_wait_and_say_so(tmp_path, capsys):
    folder, makers = tmp_path / "cache" / "sample", []

    def make(unfinished) -> None:
        makers.append(threading.current_thread())
        time.sleep(0.5)
        unfinished.mkdir()
        (unfinished / "photo").write_text("drawn")

    threads = [threading.Thread(target=made_once, args=(folder, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    line = f"another process is making {folder}; waiting for it\n"
    assert capsys.readouterr().out.startswith(line)
    assert (made_once(folder, make) / "photo").read_text() == "drawn"
    assert [place.name for place in folder.parent.iterdir()] == ["sample"]


HOLD = """
import sys
from pathlib import Path
from fashion_keras.artifacts import only_one
with only_one(Path(sys.argv[1]), "results"):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_refused_until_the_process_that_held_it_ends(tmp_path):
    lock = tmp_path / "new" / "lock"
    words = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(InputError, match="^Another process is writing the same results"):
            with only_one(lock, "results"):
                pass
        process.kill()
    with only_one(lock, "results"):
        pass


def test_results_of_another_process_are_refused(tmp_path):
    with all_together(tmp_path, ["one"]) as work:
        (work / "one").write_text("mine")
        with pytest.raises(InputError, match=f"the same results in {tmp_path}. Wait"):
            check_free(tmp_path)
    check_free(tmp_path)
    assert (tmp_path / "one").read_text() == "mine"


def write_all(folder, names, text):
    with all_together(folder, names) as work:
        for name in names:
            (work / name).write_text(text)


def test_while_files_take_their_places_the_last_one_is_missing(tmp_path, monkeypatch):
    names = ("model", "scores", "sign")
    write_all(tmp_path / "run", names, "old")
    replace, seen = os.replace, []

    def note(source, target):
        seen.append((tmp_path / "run" / "sign").exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    write_all(tmp_path / "run", names, "new")
    assert seen == [False, False, False]
    assert {(tmp_path / "run" / name).read_text() for name in names} == {"new"}


def test_files_that_a_run_did_not_write_are_removed_and_failures_change_nothing(tmp_path):
    write_all(tmp_path, ("one", "two"), "old")
    with pytest.raises(FileNotFoundError):
        with all_together(tmp_path, ("one", "two")) as work:
            (work / "one").write_text((work / "missing").read_text())
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}
    with all_together(tmp_path, ("one", "two")) as work:
        (work / "two").write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("two", "new")]


def test_a_folder_that_is_read_only_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path.resolve())
    with pytest.raises(InputError, match=rf"write to {tmp_path}\. .* with `--results`"):
        check_free(tmp_path / "new" / "results")


def test_an_error_leaves_no_new_folder(tmp_path):
    place = tmp_path / "new" / "results"
    with pytest.raises(OSError, match="full"), all_together(place, ["one"]):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []
    check_free(place)
    assert list(tmp_path.iterdir()) == []
    write_all(place, ["one"], "old")
    with pytest.raises(OSError, match="full"), all_together(place, ["one"]):
        raise OSError("full")
    assert (place / "one").read_text() == "old"


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "one").write_bytes(b"abc")
    assert sha256_of(tmp_path / "one").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/r/one"), "read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/r/one"), "not accessible"),
        (RuntimeError("errno = 28, error message = 'No space left on device'"), "full"),
        (RuntimeError("/x; No space left on device"), "full"),
        (OSError("400000 requested and 262112 written"), "full"),  # By `numpy.save`.
        (RuntimeError("basic_ios::clear: iostream error"), "full"),  # By OpenVINO.
    ],
)
def test_disks_are_blamed_in_whatever_words_a_library_uses(error, state):
    assert str(disk_problem(error)).startswith(f"The disk is {state}: {error}. ")
    assert "the variable TMPDIR" in str(disk_problem(error))
    other = ValueError(f"/w.keras cannot be used: {error}")
    other.__cause__ = error
    assert disk_problem(other) == disk_problem(error)
    assert disk_problem(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_a_port_that_is_not_permitted_is_no_fault_of_the_disk():
    error = InputError("Cannot listen on 0.0.0.0, port 80: Permission denied")
    error.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    assert disk_problem(error) is None


def test_sizes_for_people():
    assert (in_words(3_210_000), in_words(1.54e9)) == ("3.2 MB", "1.5 GB")
