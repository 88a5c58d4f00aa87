"""A short round of `python -m tests.kills`, and that it would see what it is there to see."""

import random
import re
import subprocess
import sys
import time
import types

import pytest

from tests.builders import python
from tests.kills import disturbances
from tests.kills.commands import Job, log_of
from tests.kills.disturbances import Quiet, full, killed, twice


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_commands_end_as_undisturbed_ones() -> None:
    words = ["--kills", "2", "--seed", "3", "--jobs", "predict", "prepare", "--short"]
    ended = python("-m", "tests.kills", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"^(\d+) kills, 0 of the runs wrong$", ended.stdout, re.MULTILINE)
    assert found
    assert int(found[1]) >= 2


@pytest.mark.parametrize(
    ("act", "code", "printed", "made", "faults"),
    [
        (killed, 0, "done", "right", []),
        (killed, 0, "done", "wrong", ["other results: wrong for right"]),
        (killed, 5, "it failed", "right", ["it ended with 5: it failed"]),
        (twice, 0, "done", "right", []),
        (twice, 0, "done", "wrong", ["other results: wrong for right"]),
        (twice, 5, "it failed", "right", ["beside another one it ended with 5: it failed"]),
        (full, 1, "error", "right", ["on a full disk it ended with 1: error"]),
        (full, 2, "Traceback", "right", ["on a full disk it ended with 2: Traceback"]),
    ],
)
def test_a_run_that_ends_wrong_is_a_fault(act, code, printed, made, faults, tmp_path, monkeypatch):
    def start(job, folder):
        log_of(folder).write_text(printed)
        ended = {"join": lambda seconds=None: None, "is_alive": lambda: False}
        return types.SimpleNamespace(exitcode=code, pid=0, **ended)

    monkeypatch.setattr(disturbances, "start", start)
    monkeypatch.setattr(disturbances, "end", lambda process, number: process.exitcode)
    monkeypatch.setattr(disturbances.subprocess, "run", lambda *_, **__: None)
    job, quiet = Job("any", lambda folder: None, lambda folder: made), Quiet("right", 0.1, 2**20)
    found = act(job, tmp_path / "a", quiet, 3, random.Random(1))  # noqa: S311
    assert found[1] == faults


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the children of a process")
def test_workers_are_found_and_killed() -> None:
    words = ["bash", "-c", "bash -c 'exec -a ray::task sleep 60'; exit 3"]
    with subprocess.Popen(words) as process:
        dice, until = random.Random(1), time.monotonic() + 20  # noqa: S311
        while not disturbances._kill_worker(process.pid, dice):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert process.wait(20) == 3  # Its worker has ended.
    assert disturbances._kill_worker(process.pid, dice) == 0
