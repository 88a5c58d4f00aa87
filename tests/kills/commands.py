"""Starts commands as processes that have TensorFlow imported already, and ends them."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras import cli
from tests.benchmarks import cheap_backbone

# Imported once, before anything is started: that takes longer than most runs.
MODULES = (
    "fashion_keras.export",
    "fashion_keras.final",
    "fashion_keras.predict",
    "fashion_keras.features",
    "tuning.search",
)
_PROCESSES = multiprocessing.get_context("fork")


class Job(NamedTuple):
    """One command that is disturbed.

    Attributes:
        name: Its name for `--jobs`.
        run: Runs it for a folder, in a process of its own.
        made: Returns what it made there, without what is never the same twice.
    """

    name: str
    run: Callable[[Path], None]
    made: Callable[[Path], Any]


def run_module(module: str, words: Sequence[str]) -> None:
    """Run a command of the project as `python -m` does, with a cheap backbone for Xception."""
    cheap_backbone.put_in_place()
    sys.argv = [module, *words]
    cli.run(cheap_backbone.command(module).main)


def in_a_process(task: Callable[[], Any]) -> None:
    """Do something that uses TensorFlow: processes made from one that has used it stand still."""
    process = _PROCESSES.Process(target=task)
    process.start()
    process.join()


def start(job: Job, folder: Path) -> Any:
    """Start a command in a session of its own; what it prints is appended to `log_of(folder)`."""
    begun = _PROCESSES.Event()
    process = _PROCESSES.Process(target=_begin, args=(job, folder, begun))
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


def children(process: int) -> list[int]:
    """Return the processes that a process has started; none where Linux does not tell them."""
    try:
        tasks = list(Path(f"/proc/{process}/task").glob("*/children"))
        return [int(child) for task in tasks for child in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # It has just ended by itself.
        return []


def log_of(folder: Path) -> Path:
    """Return the file to which the runs in a folder print; it is not on the folder's disk."""
    return folder.with_name(f"{folder.name}.log")


def end(process: Any, number: int) -> int:
    """Send a signal to a process and all that it started; return its exit code."""
    started = children(process.pid)  # Workers are in sessions of their own.
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        os.killpg(process.pid, number)
    process.join()
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # What it left behind must not disturb the next.
        os.killpg(process.pid, signal.SIGKILL)
    return process.exitcode
