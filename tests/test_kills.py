"""A short round of `python -m tests.kills`, and that it would see what it is there to see."""

import random
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from tests.kills import disturbances
from tests.kills.commands import Job, log_of
from tests.kills.disturbances import Quiet, full, killed, twice

ROOT = Path(__file__).parent.parent
QUIET = Quiet("right", 0.1, 2**20)


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_commands_end_as_undisturbed_ones() -> None:
    words = ["--kills", "6", "--seed", "3", "--jobs", "predict", "search", "--short"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.kills", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"^(\d+) kills, 0 of the runs wrong$", ended.stdout, re.MULTILINE)
    assert found
    assert int(found[1]) >= 6


def job_that(made: str) -> Job:
    return Job("any", lambda folder: None, lambda folder: made)


def let_end(code: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each run end at once with a code, having printed a text."""

    def start(job: Job, folder: Path) -> types.SimpleNamespace:
        log_of(folder).write_text(text)
        ended = {"join": lambda seconds=None: None, "is_alive": lambda: False}
        return types.SimpleNamespace(exitcode=code, pid=0, **ended)

    monkeypatch.setattr(disturbances, "start", start)
    monkeypatch.setattr(disturbances, "end", lambda process, number: process.exitcode)


@pytest.mark.parametrize("act", [killed, twice])
def test_a_run_that_ends_wrong_is_a_fault(
    act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)  # noqa: S311
    let_end(0, "all went well", monkeypatch)
    assert act(job_that("right"), tmp_path / "a", QUIET, 3, dice)[1] == []
    assert act(job_that("wrong"), tmp_path / "b", QUIET, 3, dice)[1] == [
        "other results: wrong for right"
    ]
    let_end(5, "it went wrong", monkeypatch)
    (fault,) = act(job_that("right"), tmp_path / "c", QUIET, 3, dice)[1]
    assert fault.endswith("ended with 5: it went wrong")


@pytest.mark.parametrize(("code", "text"), [(1, "error"), (2, "Traceback\nerror: no space")])
def test_a_full_disk_is_one_line(
    code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disturbances.subprocess, "run", lambda *_, **__: None)
    let_end(code, text, monkeypatch)
    found = full(job_that("right"), tmp_path / "a", QUIET, 3, random.Random(1))  # noqa: S311
    assert found == (0, [f"on a full disk it ended with {code}: {text}"])


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
