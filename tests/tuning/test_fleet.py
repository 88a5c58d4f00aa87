"""Processes that run trials: started again when they die, and ended with the command."""

import collections
import subprocess
import sys
import time

import pytest

from fashion_keras.config import InputError
from tuning import fleet

DYING = [sys.executable, "-c", "print('the card is broken'); raise SystemExit(7)"]


class Chief:
    """Notes what is given back."""

    def __init__(self):
        self.ended = collections.Counter()
        self.given_back = []

    def give_back(self, worker, reason):
        """Note it."""
        self.given_back.append((worker, reason))


@pytest.fixture
def member(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "_PAUSES", (0, 0, 0, 0))
    return fleet._Member("3", DYING, {}, tmp_path / "worker-3.log")


def look_until_it_gives_up(member, chief):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        member.look(chief)
        time.sleep(0.01)


def test_a_worker_that_dies_again_and_again_ends_the_search_with_what_it_said(member):
    chief = Chief()
    with pytest.raises(InputError, match=r"died 5 times .* with 7: the card is broken \(all of"):
        look_until_it_gives_up(member, chief)
    assert [name for name, _ in chief.given_back] == ["3.1", "3.2", "3.3", "3.4"]
    assert chief.given_back[0][1] == "ended with 7; another starts in 0 s"


def test_a_worker_that_says_twice_what_has_to_be_mended_is_not_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "_PAUSES", (0, 0, 0, 0))
    refusing = [sys.executable, "-c", "import sys; print('error: no room'); sys.exit(2)"]
    member = fleet._Member("3", refusing, {}, tmp_path / "worker-3.log")
    chief = Chief()
    with pytest.raises(InputError, match=r"^Workers end: no room \(all of"):
        look_until_it_gives_up(member, chief)
    assert [name for name, _ in chief.given_back] == ["3.1"]


def test_deaths_count_from_the_last_finished_trial(member):
    chief = Chief()
    chief.ended["3.4"] = 1
    with pytest.raises(InputError, match="died 5 times"):
        look_until_it_gives_up(member, chief)
    assert [name for name, _ in chief.given_back][-1] == "3.7"


def test_the_machine_is_shared_out(monkeypatch):
    monkeypatch.setattr(fleet.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(fleet.keras.distribution, "list_devices", lambda kind: [])
    assert fleet.shares(3) == [{"TF_NUM_INTRAOP_THREADS": "2"}] * 3
    assert fleet.shares(9)[0] == {"TF_NUM_INTRAOP_THREADS": "1"}
    monkeypatch.setattr(fleet.keras.distribution, "list_devices", lambda kind: ["gpu:0", "gpu:1"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in fleet.shares(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in fleet.shares(2)] == ["5", "7"]


def test_processes_that_do_not_end_are_ended_by_force(monkeypatch):
    monkeypatch.setattr(fleet, "_GRACE", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    words = [sys.executable, "-c", f"{deaf}; signal.pause()"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"1\n"
        fleet._end([process])
        assert process.returncode == -9
