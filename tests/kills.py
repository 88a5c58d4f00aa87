"""Kills the commands at random moments until they get through, and compares with a quiet run.

    python -m tests.kills --kills 200 --seed 1

Each command runs on drawn photos, is killed (SIGKILL, now and then SIGTERM or SIGINT) and given
again, until it ends by itself; then what it made must equal what an undisturbed run made. After
every third kill a file that is not yet safe on disk is cut off or filled with zeros, as a power
cut does. Goes round until there were as many kills as asked. Prints what differs, and exits with 1.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras import command
from fashion_keras.sample import draw_sample

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "results" / "final" / "fashion.keras"
# What is written without being brought to the disk at once: a power cut may tear it.
_UNSAFE = ("*.part", "*.batches", "oracle.json", "tuner0.json", "trial.json", "trials.csv")
_SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
_CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}
_TIMES = {"seconds", "sha256", "model_sha256", "run"}  # Never the same twice.


class Job(NamedTuple):
    """One command: its words for a folder, and what it made there."""

    name: str
    words: Callable[[Path], list[str]]
    made: Callable[[Path], Any]


def _told(file: Path) -> Any:
    """Return what a file tells, without times."""
    if file.suffix == ".json":
        return _timeless(json.loads(file.read_text(encoding="utf-8")))
    with file.open(newline="", encoding="utf-8") as rows:
        return [_timeless(row) for row in csv.DictReader(rows)]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def jobs(photos: Path) -> list[Job]:
    """Return the commands, each on the drawn photos."""
    common = ["--data", str(photos), "--image-size", "71", "--batch-size", "16"]

    def places(folder: Path) -> list[str]:
        return ["--results", str(folder / "results"), "--cache", str(folder / "cache")]

    search = ["tuning.search", *common, "--weights", str(MODEL), "--max-epochs", "3"]
    final = ["fashion_keras.final", *common, "--weights", str(MODEL), "--learning-rate", "0.001"]
    final += ["--heads", "2", "--epochs", "3", "--fine-tuning-epochs", "2", "--cut", "block13"]
    predict = ["fashion_keras.predict", str(MODEL), str(photos / "test"), "--format", "csv"]
    return [
        Job(
            "search",
            lambda folder: [*search, "--factor", "2", *places(folder)],
            lambda folder: [
                _told(folder / "results" / "search" / name)
                for name in ("best_config.json", "trials.csv", "finalists.csv")
            ],
        ),
        Job(
            "final",
            lambda folder: [*final, *places(folder)],
            lambda folder: [
                _told(folder / "results" / "final" / name)
                for name in ("metrics.json", "predictions.csv", "history.csv")
            ],
        ),
        Job(
            "predict",
            lambda folder: [*predict, "--resume", "--out", str(folder / "rows.csv")],
            lambda folder: _told(folder / "rows.csv"),
        ),
    ]


def start(words: list[str], log: Path) -> subprocess.Popen:
    """Start a command in a session of its own."""
    with log.open("a") as written:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )


def undisturbed(job: Job, folder: Path) -> tuple[Any, float]:
    """Return what a quiet run makes, and how long it takes."""
    begin = time.monotonic()
    folder.mkdir()
    code = start(job.words(folder), folder / "log").wait()
    if code:
        raise RuntimeError(f"{job.name} ended with {code}: {(folder / 'log').read_text()}")
    return job.made(folder), time.monotonic() - begin


def disturbed(
    job: Job, folder: Path, seconds: float, most: int, dice: random.Random
) -> tuple[int, list[str]]:
    """Run a command, killing it `most` times at the most; return the kills, and what was wrong."""
    folder.mkdir()
    kills, faults = 0, []
    while True:
        process = start(job.words(folder), folder / "log")
        patience = dice.uniform(0.05, 1) * seconds if kills < most else None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            number = dice.choice(_SIGNALS)
            os.killpg(process.pid, number)
            code = process.wait()
            kills += 1
            if code not in _CODES[number] | {0}:
                faults.append(f"after {number.name} it ended with {code}")
            if kills % 3 == 0:
                tear(folder, dice)
        if code == 0:
            return kills, faults
        if patience is None or code not in (-9, 130, 143):
            return kills, [*faults, f"it ended with {code}: {(folder / 'log').read_text()[-2000:]}"]


def tear(folder: Path, dice: random.Random) -> None:
    """Cut off one of the files that a power cut may tear, or fill its end with zeros."""
    files = sorted(file for name in _UNSAFE for file in folder.rglob(name))
    if files:
        file = dice.choice(files)
        content = file.read_bytes()
        length = dice.randrange(len(content) + 1)
        lost = b"" if dice.random() < 0.5 else bytes(len(content) - length)
        file.write_bytes(content[:length] + lost)


def main() -> None:
    """Kill, go on, compare, and tell."""
    options = command.parser(__doc__ or "", "tests.kills")
    options.add_argument("--kills", type=int, default=200, help="kills in all (default: 200)")
    options.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    options.add_argument("--jobs", nargs="*", default=[], help="names of commands (default: all)")
    given = options.parse_args()
    dice, done, wrong = random.Random(given.seed), 0, 0  # noqa: S311 (no secret)
    with tempfile.TemporaryDirectory() as place:
        photos = draw_sample(Path(place, "photos"), {"train": 6, "validation": 2, "test": 4})
        chosen = [job for job in jobs(photos) if not given.jobs or job.name in given.jobs]
        quiet = {job.name: undisturbed(job, Path(place, job.name)) for job in chosen}
        while done < given.kills:
            for job in chosen:
                folder = Path(place, f"{job.name}-killed")
                expected, seconds = quiet[job.name]
                most = min(8, max(1, given.kills - done))
                kills, faults = disturbed(job, folder, seconds, most, dice)
                if not faults and job.made(folder) != expected:
                    faults = [f"other results: {job.made(folder)} instead of {expected}"]
                done += kills
                wrong += bool(faults)
                print(f"{job.name}: {kills} kills, {done} in all; {faults or 'right'}", flush=True)
                shutil.rmtree(folder)
    print(f"seed {given.seed}: {done} kills, {wrong} of the runs wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    command.run(main)
