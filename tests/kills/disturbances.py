"""What can happen to a command: kills, a full or read-only disk, a second copy."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.kills.commands import Job, children, end, log_of, start

_SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
_CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}


class Quiet(NamedTuple):
    """What an undisturbed run made, in how many seconds, and how many bytes lay there then."""

    made: Any
    seconds: float
    size: int


class Disturbed(NamedTuple):
    """How often a run was killed or ended by its disk, and what was wrong then."""

    kills: int
    faults: list[str]


def killed(job: Job, folder: Path, quiet: Quiet, most: int, dice: random.Random) -> Disturbed:
    """Run a command, kill it and give it again, up to `most` times.

    Where it has workers, one of them is killed before.
    """
    folder.mkdir()
    faults, lost = [], 0
    for kill in range(most):
        process, number = start(job, folder), dice.choice(_SIGNALS)
        moment = dice.uniform(0.02, 0.6) * quiet.seconds
        process.join(moment / 2)
        lost += _kill_worker(process.pid, dice)
        process.join(moment / 2)
        if not process.is_alive():
            end(process, signal.SIGKILL)
            found = [*faults, *_ended(job, folder, process.exitcode, quiet)]
            return Disturbed(kill + lost, found)
        code = end(process, number)
        if code not in _CODES[number] | {0}:
            faults.append(f"after {number.name} it ended with {code}: {_last(folder)}")
    return Disturbed(most + lost, [*faults, *_finish(job, folder, quiet)])


def _kill_worker(process: int, dice: random.Random) -> int:
    """Kill one of the processes that a command has started; return how many it were."""
    workers = children(process)
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        if workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
            return 1
    return 0


def full(job: Job, folder: Path, quiet: Quiet, most: int, dice: random.Random) -> Disturbed:
    """Run a command on a disk that is too small, and give it more room bit by bit."""
    with _small_disk(folder, dice.uniform(0.05, 0.5) * quiet.size) as grow:
        for kill in range(most):
            process = start(job, folder)
            process.join()
            if process.exitcode == 0:
                return Disturbed(kill, _ended(job, folder, 0, quiet))
            if process.exitcode != 2 or "Traceback" in _last(folder):
                fault = f"on a full disk it ended with {process.exitcode}: {_last(folder)}"
                return Disturbed(kill, [fault])
            grow(dice.uniform(1.2, 2))
        grow(100)
        return Disturbed(most, _finish(job, folder, quiet))


def read_only(job: Job, folder: Path, quiet: Quiet, most: int, dice: random.Random) -> Disturbed:
    """Kill a command, give it again where nothing can be written any more, then where it can."""
    with _small_disk(folder, 10 * quiet.size + 2**28):
        process = start(job, folder)
        process.join(dice.uniform(0.1, 1) * quiet.seconds)
        end(process, signal.SIGKILL)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)  # noqa: S607
        process = start(job, folder)
        process.join()
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)  # noqa: S607
        # What was finished needs not be written again.
        if process.exitcode not in (0, 2) or "Traceback" in _last(folder):
            return Disturbed(2, [f"read-only, it ended with {process.exitcode}: {_last(folder)}"])
        return Disturbed(2, _finish(job, folder, quiet))


def twice(job: Job, folder: Path, quiet: Quiet, most: int, dice: random.Random) -> Disturbed:
    """Run a command two times at once, kill one of them, and give it again."""
    folder.mkdir()
    pair = [start(job, folder) for _ in range(2)]
    victim = dice.choice(pair)
    victim.join(dice.uniform(0.1, 1.5) * quiet.seconds)
    end(victim, signal.SIGKILL)
    other = next(process for process in pair if process is not victim)
    other.join()
    refused = other.exitcode == 2 and "Another process" in _last(folder)
    if other.exitcode != 0 and not refused:
        return Disturbed(1, [f"beside another one it ended with {other.exitcode}: {_last(folder)}"])
    return Disturbed(1, _finish(job, folder, quiet))


def _finish(job: Job, folder: Path, quiet: Quiet) -> list[str]:
    """Run the command to its end; return what is wrong then."""
    process = start(job, folder)
    process.join()
    return _ended(job, folder, process.exitcode, quiet)


def _ended(job: Job, folder: Path, code: int, quiet: Quiet) -> list[str]:
    if code:
        return [f"it ended with {code}: {_last(folder)}"]
    if job.made(folder) != quiet.made:
        return [f"other results: {str(job.made(folder))[:500]} for {str(quiet.made)[:500]}"]
    return []


def _last(folder: Path) -> str:
    return log_of(folder).read_text(encoding="utf-8", errors="replace")[-2000:]


@contextlib.contextmanager
def _small_disk(folder: Path, size: float) -> Iterator[Any]:
    """Yield a function that makes a disk in memory larger by a factor; `folder` lies on it."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={int(size)}", "tmpfs", str(folder)]
    subprocess.run(words, check=True)

    def grow(factor: float) -> None:
        more = f"remount,size={int(factor * shutil.disk_usage(folder).total)}"
        subprocess.run(["mount", "-o", more, str(folder)], check=True)  # noqa: S607

    try:
        yield grow
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607
