"""Kills the commands at random moments until they get through, and compares with a quiet run.

    python -m tests.kills --kills 200 --seed 1

Each command runs on drawn photos (with a cheap backbone in Xception's place), is killed (SIGKILL,
now and then SIGTERM or SIGINT), the workers of a search as well, and given again, until it ends by
itself; then what it made must equal, to the last bit, what an undisturbed run made.
Between rounds of kills each command is run two times at once, and, for root on Linux, on a disk
that is full and on one that turns read-only. It goes round until there were as many kills as asked,
and every disturbance once. Prints what differs, and exits with 1.
"""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from fashion_keras import cli
from tests.kills.commands import Job, log_of
from tests.kills.disturbances import Act, full, killed, read_only, twice, undisturbed
from tests.kills.jobs import jobs

_LIMIT = 8  # Kills of one run.


def disturb(
    chosen: list[Job], place: Path, wanted: int, dice: random.Random, others: dict[str, Act]
) -> int:
    """Disturb all jobs, round by round; return how many runs went wrong."""
    quiet = {job.name: undisturbed(job, place / job.name) for job in chosen}
    rounds: dict[str, Act] = {"kills": killed} | others
    done = wrong = 0
    while rounds:
        for name, act in rounds.items():
            for job in chosen:
                folder = place / f"{job.name}-disturbed"
                limit = min(_LIMIT, max(1, wanted - done)) if act is killed else _LIMIT
                times, faults = act(job, folder, quiet[job.name], limit, dice)
                done += times if act is killed else 0
                wrong += bool(faults)
                print(f"{job.name}, {name}: {times}, {done} kills in all; {faults or 'right'}")
                sys.stdout.flush()
                shutil.rmtree(folder)
                log_of(folder).unlink()
        rounds = {"kills": killed} if done < wanted else {}
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
    others: dict[str, Act] = {} if given.short else {"second copy": twice}
    if sys.platform == "linux" and os.geteuid() == 0 and not given.short:
        others |= {"full disk": full, "read-only disk": read_only}
    elif not given.short:
        print("full and read-only disks are left out: only root on Linux can make small ones")
    dice = random.Random(given.seed)  # noqa: S311 (no secret)
    with tempfile.TemporaryDirectory() as name:
        chosen = [job for job in jobs(Path(name)) if not given.jobs or job.name in given.jobs]
        print(f"seed {given.seed}: {', '.join(job.name for job in chosen)}", flush=True)
        wrong = disturb(chosen, Path(name), given.kills, dice, others)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    cli.run(main)
