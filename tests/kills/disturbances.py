"""What can happen to a command: kills, a full or read-only disk, a second copy."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.kills.commands import Job, end, log_of, start, workers

_SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
_CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}


class Quiet(NamedTuple):
    """What an undisturbed run made, in how many seconds, and how many bytes lay there then."""

    made: Any
    seconds: float
    size: int


# How often a run was killed or ended by its disk, and what was wrong then.
Disturbed = tuple[int, list[str]]
Act = Callable[[Job, Path, Quiet, int, random.Random], Disturbed]


def undisturbed(job: Job, folder: Path) -> Quiet:
    """Return what a quiet run makes, and what it takes.

    Raises:
        RuntimeError: If it fails.
    """
    begin = time.monotonic()
    folder.mkdir()
    if code := _run(job, folder):
        raise RuntimeError(f"{job.name} ended with {code}: {_last(folder)}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Quiet(job.made(folder), time.monotonic() - begin, size)


def killed(job: Job, folder: Path, quiet: Quiet, limit: int, dice: random.Random) -> Disturbed:
    """Run a command, kill it and give it again, up to `limit` times.

    Where it has workers, one of them is killed before.
    """
    folder.mkdir()
    faults, lost = [], 0
    for kill in range(limit):
        process, number = start(job, folder), dice.choice(_SIGNALS)
        moment = dice.uniform(0.02, 0.6) * quiet.seconds
        process.join(moment / 2)
        lost += _kill_worker(process.pid, dice)
        process.join(moment / 2)
        if not process.is_alive():
            end(process, signal.SIGKILL)
            return kill + lost, [*faults, *_faults(job, folder, quiet, process.exitcode)]
        code = end(process, number)
        if code not in _CODES[number] | {0}:
            faults.append(f"after {number.name} it ended with {code}: {_last(folder)}")
    return limit + lost, [*faults, *_faults(job, folder, quiet)]


def _kill_worker(process: int, dice: random.Random) -> int:
    """Kill one of the workers of a command; return how many it were."""
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        if found := workers(process):
            os.kill(dice.choice(found), signal.SIGKILL)
            return 1
    return 0


def full(job: Job, folder: Path, quiet: Quiet, limit: int, dice: random.Random) -> Disturbed:
    """Run a command on a disk that is too small, and give it more space bit by bit."""
    with _small_disk(folder, dice.uniform(0.05, 0.5) * quiet.size):
        for kill in range(limit):
            code = _run(job, folder)
            if code == 0:
                return kill, _faults(job, folder, quiet, code)
            if code != 2 or "Traceback" in _last(folder):
                return kill, [f"on a full disk it ended with {code}: {_last(folder)}"]
            factor = dice.uniform(1.2, 2) if kill < limit - 1 else 100
            _mount(folder, f"remount,size={int(factor * shutil.disk_usage(folder).total)}")
        return limit, _faults(job, folder, quiet)


def read_only(job: Job, folder: Path, quiet: Quiet, limit: int, dice: random.Random) -> Disturbed:
    """Kill a command, give it again where nothing can be written any more, then where it can."""
    with _small_disk(folder, 10 * quiet.size + 2**28):
        process = start(job, folder)
        process.join(dice.uniform(0.1, 1) * quiet.seconds)
        end(process, signal.SIGKILL)
        _mount(folder, "remount,ro")
        code = _run(job, folder)
        _mount(folder, "remount,rw")
        # What was finished needs not be written again.
        if code not in (0, 2) or "Traceback" in _last(folder):
            return 2, [f"read-only, it ended with {code}: {_last(folder)}"]
        return 2, _faults(job, folder, quiet)


def twice(job: Job, folder: Path, quiet: Quiet, limit: int, dice: random.Random) -> Disturbed:
    """Run a command two times at once, kill one of them, and give it again."""
    folder.mkdir()
    victim, other = dice.sample([start(job, folder), start(job, folder)], 2)
    victim.join(dice.uniform(0.1, 1.5) * quiet.seconds)
    end(victim, signal.SIGKILL)
    other.join()
    refused = other.exitcode == 2 and "Another process" in _last(folder)
    if other.exitcode != 0 and not refused:
        return 1, [f"beside another one it ended with {other.exitcode}: {_last(folder)}"]
    return 1, _faults(job, folder, quiet)


def _run(job: Job, folder: Path) -> int:
    process = start(job, folder)
    process.join()
    return process.exitcode


def _faults(job: Job, folder: Path, quiet: Quiet, code: int | None = None) -> list[str]:
    """Return what is wrong after a run that ended with `code`, or after one more run."""
    if code is None:
        code = _run(job, folder)
    if code:
        return [f"it ended with {code}: {_last(folder)}"]
    if (made := job.made(folder)) != quiet.made:
        return [f"other results: {str(made)[:500]} for {str(quiet.made)[:500]}"]
    return []


def _last(folder: Path) -> str:
    return log_of(folder).read_text(encoding="utf-8", errors="replace")[-2000:]


@contextlib.contextmanager
def _small_disk(folder: Path, size: float) -> Iterator[None]:
    """Let `folder` lie on a disk in memory of this size in bytes."""
    folder.mkdir()
    _mount(folder, f"size={int(size)}", "-t", "tmpfs", "tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def _mount(folder: Path, options: str, *words: str) -> None:
    subprocess.run(["mount", "-o", options, *words, str(folder)], check=True)  # noqa: S607
