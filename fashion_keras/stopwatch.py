"""Tells where the time of a command went: `--profile FILE`.

Only the thread that runs the command is looked at, and each moment of it is counted once: it is
spent on the innermost thing that was named. So the parts of a stage add up to its wall time, and
stages to that of the command. What goes on in other threads at the same time counts as much as
it is waited for (photos are decoded while the backbone works: `decode` is what the backbone
waited). If such threads name what they do, it is told apart, as `beside`.
"""

import argparse
import collections
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.files import whole_file

Item = TypeVar("Item")
OTHER = "other"  # Time for which nobody gave a name.


class _Watch:
    """Seconds by stage and by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str], float] = collections.defaultdict(float)
        self.beside: dict[str, float] = collections.defaultdict(float)
        self.thread = threading.get_ident()
        self.now = (OTHER, OTHER)  # Stage, and what is being done in it.
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def turn_to(self, what: tuple[str, str]) -> tuple[str, str]:
        """Count the time since the last turn; return what it was spent on."""
        moment = time.monotonic()
        before, self.now = self.now, what
        self.spent[before] += moment - self._since
        self._since = moment
        return before

    def count_beside(self, what: str, seconds: float) -> None:
        """Count what another thread did."""
        with self._lock:
            self.beside[what] += seconds


_watches: list[_Watch] = []  # The one that is running, if there is one.


@contextlib.contextmanager
def spent(what: str) -> Iterator[None]:
    """Count the time inside as spent on `what`, but for what is named inside; also a decorator."""
    if not _watches:
        yield
        return
    with _counted(_watches[-1], what, None):
        yield


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time inside in a stage of this name; also a decorator."""
    if not _watches:
        yield
        return
    with _counted(_watches[-1], OTHER, name):
        yield


@contextlib.contextmanager
def _counted(watch: _Watch, what: str, name: str | None) -> Iterator[None]:
    if threading.get_ident() != watch.thread:
        start = time.monotonic()
        yield
        watch.count_beside(what, time.monotonic() - start)
        return
    before = watch.turn_to((name or watch.now[0], what))
    try:
        yield
    finally:
        watch.turn_to(before)


def waited(what: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items; the time until each of them comes is spent on `what`."""
    with spent(what):
        source = iter(items)
    while True:
        with spent(what):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item


def add_option(options: argparse.ArgumentParser) -> None:
    """Add `--profile`."""
    options.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="write where the time went, stage by stage, to this JSON file, and show it at the "
        "end: decode, augment, forward (the backbone), head and backbone (training them), I/O "
        "(files of vectors, maps and states), other. These add up to the time that passed: work "
        "of other threads counts as much as it is waited for (default: nothing is measured)",
    )


@contextlib.contextmanager
def profiled(file: Path | None) -> Iterator[None]:
    """Measure what is done inside, also if it is interrupted; write it to a file, and show it.

    Args:
        file: Where to write it; None for nothing.

    Raises:
        InputError: If there cannot be such a file.
    """
    if not file:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise InputError(f"`--profile` takes a file that can be written. Received: {file}")
    start, watch = time.monotonic(), _Watch()
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)
        watch.turn_to((OTHER, OTHER))
        _write(watch, start, file)


def _write(watch: _Watch, start: float, file: Path) -> None:
    stages: dict[str, dict[str, float]] = {}
    for (name, what), seconds in watch.spent.items():
        stages.setdefault(name, {})[what] = round(seconds, 3)
    beside = {what: round(seconds, 3) for what, seconds in watch.beside.items()}
    run = cli.provenance(start)
    with whole_file(file) as unfinished:
        text = json.dumps({"stages": stages, "beside": beside, "run": run}, indent=2)
        unfinished.write_text(text + "\n", encoding="utf-8")
    # Not on standard output, which may be a table of predictions.
    print(*_table(stages, beside), f"profile: {file}", sep="\n", file=sys.stderr)


def _table(stages: dict[str, dict[str, float]], beside: dict[str, float]) -> list[str]:
    """Return a line for each stage and for each thing that time was spent on."""
    total = sum(sum(parts.values()) for parts in stages.values())
    lines = [_line("stage", "", "seconds", "share")]
    for name, parts in stages.items():
        lines.append(_row(name, "", sum(parts.values()), total))
        longest_first = sorted(parts.items(), key=lambda part: -part[1])
        lines += [_row("", what, seconds, total) for what, seconds in longest_first]
    lines.append(_row("all", "", total, total))
    lines += [f"beside, in other threads: {what} {taken:.1f} s" for what, taken in beside.items()]
    return lines


def _row(name: str, what: str, seconds: float, total: float) -> str:
    return _line(name, what, f"{seconds:.1f}", f"{seconds / max(total, 1e-9):.1%}")


def _line(name: str, what: str, seconds: str, share: str) -> str:
    return f"{name:<12} {what:<10} {seconds:>9} {share:>7}"
