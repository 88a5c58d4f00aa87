"""Tests of tasks in this process and on Ray."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.parallel import connected, pool


def add(numbers: list[int], one: int) -> int:
    return sum(numbers) + one


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def refuse() -> None:
    raise InputError("give another photo")


def results(workers, count):
    with pool(workers) as tasks:
        shared = tasks.share([1, 2, 3])
        for number in range(count):
            tasks.submit(number, add, shared, number)
        return [tasks.next_done() for _ in range(count)]


def test_tasks_run_in_order_in_this_process():
    assert results(1, 3) == [(0, 6), (1, 7), (2, 8)]


@pytest.mark.slow
def test_ray_gives_the_same_results_survives_a_killed_worker_and_passes_errors_on(tmp_path):
    pytest.importorskip("ray")
    assert sorted(results(2, 5)) == results(1, 5)
    with pool(2) as tasks:
        tasks.submit("killed", die_once, tmp_path / "mark")
        assert tasks.next_done() == ("killed", "done")
        tasks.submit("refused", refuse)
        with pytest.raises(InputError, match="^give another photo$"):
            tasks.next_done()


def test_without_ray_the_error_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "fashion_keras\[ray\]"$'):
        with pool(4):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://[::1]:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_an_error(address, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        InputError, match=f"^No Ray cluster answers at RAY_ADDRESS={re.escape(address)}"
    ):
        with connected():
            pass
