"""Kills the commands at random moments until they get through, and compares with a quiet run.

    python -m tests.kills --kills 200 --seed 1

Each command runs on drawn photos (with a cheap backbone in Xception's place), is killed (SIGKILL,
now and then SIGTERM or SIGINT), the workers of a search as well, and given again, until it ends by
itself; then what it made must equal, to the last bit, what an undisturbed run made.
Between rounds of kills each command is run two times at once, and, for root on Linux, on a disk
that is full and on one that turns read-only. It goes round until there were as many kills as asked,
and every disturbance once. Prints what differs, and exits with 1.
"""

import contextlib
import importlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fashion_keras import cli
from tests.kills.commands import MODULES, Job, log_of, start
from tests.kills.disturbances import Disturbed, Quiet, full, killed, read_only, twice
from tests.kills.jobs import download_job, jobs, prepare_job

_MOST = 8  # Kills of one run.
Act = Callable[[Job, Path, Quiet, int, random.Random], Disturbed]


def undisturbed(job: Job, folder: Path) -> Quiet:
    """Return what a quiet run makes, and what it takes.

    Raises:
        RuntimeError: If it fails.
    """
    begin = time.monotonic()
    folder.mkdir()
    process = start(job, folder)
    process.join()
    if process.exitcode:
        raise RuntimeError(
            f"{job.name} ended with {process.exitcode}: {log_of(folder).read_text()}"
        )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Quiet(job.made(folder), time.monotonic() - begin, size)


def _others() -> dict[str, Act]:
    """Return what is done once besides kills, as far as this computer can do it."""
    if sys.platform == "linux" and os.geteuid() == 0:
        return {"second copy": twice, "full disk": full, "read-only disk": read_only}
    print("full and read-only disks are left out: only root on Linux can make small ones")
    return {"second copy": twice}


def disturb(
    chosen: list[Job], place: Path, wanted: int, dice: random.Random, others: dict[str, Act]
) -> int:
    """Disturb all jobs, round by round; return how many runs went wrong."""
    quiet = {job.name: undisturbed(job, place / job.name) for job in chosen}
    acts: dict[str, Act] = {"kills": killed} | others
    done = wrong = 0
    while acts:
        for (what, act), job in itertools.product(acts.items(), chosen):
            folder = place / f"{job.name}-disturbed"
            most = min(_MOST, max(1, wanted - done)) if act is killed else _MOST
            times, faults = act(job, folder, quiet[job.name], most, dice)
            done += times if act is killed else 0
            wrong += bool(faults)
            print(f"{job.name}, {what}: {times}, {done} kills in all; {faults or 'right'}")
            sys.stdout.flush()
            shutil.rmtree(folder)
            log_of(folder).unlink()
        acts = {"kills": killed} if done < wanted else {}
    print(f"{done} kills, {wrong} of the runs wrong")
    return wrong


def main() -> None:
    """Disturb, go on, compare, and print what differs."""
    options = cli.parser(__doc__ or "", "tests.kills")
    options.add_argument("--kills", type=int, default=200, help="kills in all (default: 200)")
    options.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    options.add_argument("--jobs", nargs="*", default=[], help="names of commands (default: all)")
    options.add_argument("--short", action="store_true", help="only kills, nothing else")
    given = options.parse_args()
    for module in MODULES:
        importlib.import_module(module)
    dice = random.Random(given.seed)  # noqa: S311 (no secret)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chosen = [job for job in jobs(place) if not given.jobs or job.name in given.jobs]
        if not given.jobs or "download" in given.jobs:
            chosen.append(stack.enter_context(download_job(place)))
        if not given.jobs or "prepare" in given.jobs:
            chosen.append(prepare_job(place))
        print(f"seed {given.seed}: {', '.join(job.name for job in chosen)}", flush=True)
        others = {} if given.short else _others()
        wrong = disturb(chosen, place, given.kills, dice, others)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    cli.run(main)
