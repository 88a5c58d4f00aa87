"""A short round of `python -m tests.kills`, and that it would see what it is there to see."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills
from tests.kills import Job, disturbed, tear

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_predictions_and_searches_end_as_undisturbed_ones() -> None:
    words = ["-m", "tests.kills", "--kills", "4", "--seed", "3", "--jobs", "predict", "search"]
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 of the runs wrong" in ended.stdout


def test_a_wrong_end_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(words: list[str], log: Path) -> subprocess.Popen:
        log.write_text("it went wrong")
        return subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(5)"])

    monkeypatch.setattr(kills, "start", start)
    job = Job("any", lambda folder: [], lambda folder: None)
    count, faults = disturbed(job, tmp_path / "a", 60, 1, random.Random(1))  # noqa: S311
    assert (count, faults) == (0, ["it ended with 5: it went wrong"])


def test_files_are_torn_that_a_power_cut_may_tear(tmp_path: Path) -> None:
    safe, unsafe = tmp_path / "whole.npy", tmp_path / "a.npy.part"
    for file in (safe, unsafe):
        file.write_bytes(bytes(range(1, 101)))
    tear(tmp_path, random.Random(1))  # noqa: S311
    assert safe.read_bytes() == bytes(range(1, 101))
    assert unsafe.read_bytes() != safe.read_bytes()
