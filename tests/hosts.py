"""One search on four computers, one of which is cut off and comes back, and one dies.

    python -m tests.hosts

The computers are network namespaces of Linux, joined by a bridge in a fifth: a chief and three
workers, with a folder in common. One worker's cable is pulled out in the middle of a trial for
longer than the chief waits, then put back; another is killed in the middle of a trial. What the
search finds must equal what a search in one process found. Needs root and `ip`; without them it
says so, and ends with 0. Prints what it does; ends with 1 if anything differs.
"""

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fashion_keras import cli
from fashion_keras.data.sample import draw_sample

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "fashion_keras" / "released" / "fashion.keras"
CHIEF, PORT = "10.77.0.1", 7000
NAMES = ("chief", "steady", "fine_tune_from", "killed")
# The command, with less patience and fewer finalists.
START = """
from fashion_keras import cli
from tuning import compare, line
line.BEAT, line.SILENCE, line.ANSWER = 1.0, 10.0, 4.0
compare.SEEDS, compare.FINALISTS = 2, 2
compare.CURVES = {name: values[:1] for name, values in compare.CURVES.items()}
from tuning import search
cli.run(search.main)
"""


def ip(*words: str) -> None:
    """Run `ip`.

    Raises:
        OSError: If it fails; with what it says.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True)  # noqa: S607
    if done.returncode:
        raise OSError(f"`ip {' '.join(words)}` says: {done.stderr.strip()}")


@contextlib.contextmanager
def hosts() -> Iterator[Callable[[str], str]]:
    """Make the namespaces; yield what tells a computer's one, and take them away at the end."""
    made = [f"fashion{os.getpid()}-{name}" for name in ("hub", *NAMES)]
    hub = made[0]
    try:
        for space in made:
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, (name, space) in enumerate(zip(NAMES, made[1:], strict=True), 1):
            peer = ("peer", "name", "eth0", "netns", space)
            ip("-n", hub, "link", "add", name, "type", "veth", *peer)
            ip("-n", hub, "link", "set", name, "master", "bridge", "up")
            ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
        yield lambda name: f"fashion{os.getpid()}-{name}"
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)  # noqa: S607


def reason_not_to() -> str:
    """Return why namespaces cannot be made here; empty if they can."""
    if not shutil.which("ip"):
        return "there is no `ip` (Debian: apt install iproute2)"
    try:
        with hosts():
            return ""
    except OSError as error:
        return str(error)


def start(space: str, words: list[str], log: Path) -> subprocess.Popen:
    """Start the search's command in a namespace; the process is the command itself."""
    inside = ["ip", "netns", "exec", space] if space else []
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as written:
        return subprocess.Popen(
            [*inside, sys.executable, "-c", START, *words],
            cwd=ROOT,
            env=environment,
            stdout=written,
            stderr=written,
        )


def wait_for(log: Path, seen: Callable[[str], bool], what: str, seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not seen(log.read_text()):
        if time.monotonic() > until:
            raise RuntimeError(f"{log.name} never said that {what}: {log.read_text()}")
        time.sleep(0.05)
    print(f"{log.stem}: {what}", flush=True)


def in_a_trial(text: str) -> bool:
    """Tell whether a worker that has finished one trial is in the middle of another."""
    return "completed" in text and text.rstrip().endswith("begins")


def found(results: Path) -> tuple[list[tuple], str]:
    """Return what a search found, without times and the order of trials."""
    folder = results / "search"
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [name for name in rows[0] if name not in ("trial", "seconds")]
    return sorted(tuple(row[name] for name in kept) for row in rows), (
        folder / "best_config.json"
    ).read_text()


def disturbed(place: Path, common: list[str]) -> dict[str, int]:
    """Search on four computers, and disturb them; return the exit codes."""
    logs = {name: place / f"{name}.log" for name in NAMES}
    words = [*common, "--cache", str(place / "shared"), "--results", str(place / "many")]
    with hosts() as space, contextlib.ExitStack() as stack:
        processes = {}
        for name in NAMES:
            role = "--chief" if name == "chief" else "--worker"
            processes[name] = start(space(name), [*words, role, f"{CHIEF}:{PORT}"], logs[name])
            stack.callback(processes[name].kill)
        wait_for(
            logs["fine_tune_from"],
            in_a_trial,
            "is in the middle of a trial; its cable is pulled out",
        )
        ip("-n", space("hub"), "link", "set", "fine_tune_from", "down")
        wait_for(logs["killed"], in_a_trial, "is in the middle of a trial; it is killed")
        processes["killed"].kill()
        for name in ("fine_tune_from", "killed"):
            told = f"-{processes[name].pid}-"
            wait_for(
                logs["chief"],
                lambda text, told=told: any(
                    told in line and "will be run again" in line for line in text.splitlines()
                ),
                f"{name} has not been heard of; its trial will be run again",
            )
        ip("-n", space("hub"), "link", "set", "fine_tune_from", "up")
        wait_for(
            logs["fine_tune_from"],
            lambda text: "its result is dropped" in text,
            "came back too late",
        )
        wait_for(
            logs["fine_tune_from"],
            lambda text: "begins" in text.partition("its result is dropped")[2],
            "goes on with another trial",
        )
        return {name: processes[name].wait(600) for name in NAMES}


def main() -> None:
    """Search in peace and in trouble, compare, and tell."""
    cli.parser(__doc__ or "", "tests.hosts").parse_args()
    if reason := reason_not_to():
        print(f"skipped: no network namespaces can be made here: {reason}")
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photos = draw_sample(place / "photos", {"train": 16, "validation": 6})
        common = ["--data", str(photos), "--image-size", "71", "--weights", str(MODEL)]
        common += ["--max-epochs", "4", "--factor", "2"]
        alone = [*common, "--cache", str(place / "own"), "--results", str(place / "one")]
        if start("", alone, place / "alone.log").wait():
            raise RuntimeError((place / "alone.log").read_text())
        print(f"alone: {len(found(place / 'one')[0])} trials in one process", flush=True)
        codes = disturbed(place, common)
        same = found(place / "many") == found(place / "one")
        print(f"exit codes: {codes}; {'the same' if same else 'OTHER'} trials and winner")
        wanted = {"chief": 0, "steady": 0, "fine_tune_from": 0, "killed": -9}
        if not same or codes != wanted:
            for log in sorted(place.glob("*.log")):
                print(f"== {log.name}\n{log.read_text()}")
            sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
