"""Starts commands as processes that have TensorFlow imported already, and ends them."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras import cli
from tests.benchmarks import cheap_backbone

PROCESSES = multiprocessing.get_context("fork")


class Job(NamedTuple):
    """One command that is disturbed.

    Attributes:
        name: Its name for `--jobs`.
        run: Runs it for a folder, in a process of its own.
        made: Returns what it made there, without what is never the same twice.
    """

    name: str
    run: Callable[[Path], object]
    made: Callable[[Path], Any]


def run_module(module: str, *words: str) -> None:
    """Run a command of the project as `python -m` does, with a cheap backbone for Xception."""
    cheap_backbone.put_in_place()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__")


def start(job: Job, folder: Path) -> Any:
    """Start a command in a session of its own; what it prints is appended to `log_of(folder)`."""
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=_begin, args=(job, folder, begun))
    process.start()
    begun.wait()
    return process


def _begin(job: Job, folder: Path, begun: Any) -> None:
    os.setsid()
    log = os.open(log_of(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)

    def run() -> None:
        begun.set()  # Signals are taken as a command takes them from here on.
        job.run(folder)

    cli.run(run)


def log_of(folder: Path) -> Path:
    """Return the file to which the runs in a folder print; it is not on the folder's disk."""
    return folder.with_name(f"{folder.name}.log")


def descendants(process: int) -> Iterator[int]:
    """Yield the processes that a process has started, and those that they started (Linux)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just ended by itself.
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


def workers(process: int) -> list[int]:
    """Return the processes of a command that do tasks (Linux)."""
    found = []
    for one in descendants(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            title = Path(f"/proc/{one}/cmdline").read_bytes()
            of_ray = title.startswith(b"ray::") and b"Agent" not in title  # Ray ends with agents.
            if of_ray or b"spawn_main" in title:
                found.append(one)
    return found


def end(process: Any, number: int) -> int:
    """Send a signal to a process and end all that it started; return its exit code."""
    started = list(descendants(process.pid))  # Ray's are in sessions of their own.
    _send(-process.pid, number)
    process.join()
    for one in (*started, -process.pid):  # What it left must not disturb the next.
        _send(one, signal.SIGKILL)
    return process.exitcode


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        os.kill(process, number)
