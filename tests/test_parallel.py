"""Tests of tasks in this process, in others and on Ray."""

import multiprocessing
import os
import re
import signal
import sys
import time
import types
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


def die(mark: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pending(workers, count):
    shared = workers.share([1, 2, 3])
    for number in range(count):
        workers.submit(number, add, shared, number)
    return [workers.next_done() for _ in range(count)]


def check_workers(workers, mark: Path) -> None:
    assert sorted(pending(workers, 5)) == [(number, 6 + number) for number in range(5)]
    workers.submit("killed", die_once, mark)
    assert workers.next_done() == ("killed", "done")
    workers.submit("refused", refuse)
    with pytest.raises(InputError, match="^give another photo$"):
        workers.next_done()
    workers.submit("lost", die, mark)
    with pytest.raises(InputError, match=r"^Workers died 4 times, .* fewer `--workers`\.$"):
        workers.next_done()


def test_tasks_run_in_order_in_this_process():
    with pool(1) as workers:
        assert pending(workers, 3) == [(0, 6), (1, 7), (2, 8)]


@pytest.mark.slow
def test_processes_survive_a_killed_one_and_pass_errors_on(tmp_path):
    with pool(2) as workers:
        check_workers(workers, tmp_path / "mark")
    assert not multiprocessing.active_children()


def test_processes_end_at_once_whatever_they_do_and_no_others():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    with pool(2) as workers:
        workers.submit("long", time.sleep, 600)
    assert multiprocessing.active_children() == [other]
    other.kill()
    other.join()


def test_without_ray_the_error_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "fashion_keras\[ray\]"$'):
        with pool(4):
            pass


@pytest.mark.parametrize("deterministic", ["", "1"])
def test_workers_on_other_machines_compute_as_this_process(deterministic, monkeypatch):
    begun = []
    stop = {"shutdown": lambda: None, "is_initialized": lambda: False}
    ray = types.SimpleNamespace(init=lambda **options: begun.append(options), **stop)
    monkeypatch.setattr("fashion_keras.parallel.import_ray", lambda: ray)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("FASHION_KERAS_DETERMINISTIC", deterministic)
    with connected(num_cpus=2):
        (options,) = begun
    expected = {"FASHION_KERAS_DETERMINISTIC": "1"} if deterministic else {}
    assert options["runtime_env"] == {"env_vars": {"KERAS_BACKEND": "tensorflow"} | expected}
    assert "num_cpus" not in options


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://[::1]:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_an_error(address, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        InputError, match=f"^No Ray cluster answers at RAY_ADDRESS={re.escape(address)}"
    ):
        with connected():
            pass
