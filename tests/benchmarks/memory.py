"""Measures the peak memory of every command with few photos and with many.

    python -m tests.benchmarks.memory --photos 4000 100000

The photos of a data set with splits are a few hundred drawn ones, linked again and again under
other names; those of a data set without splits, where `prepare` compares what photos look like,
are drawn one by one. A hundred thousand photos take hours to go through Xception, so a cheap
backbone stands in its place (see `cheap_backbone`): what the commands keep for each photo is the
same, and Xception's own memory does not depend on their number. `--xception` measures that
constant: the released model, and the cheap one, score the same photos.

Memory is the largest resident set of a command, that of its children added, mapped files included:
looked at ten times a second, and not less than what the system reports in the end. Writes
`results/benchmarks/memory.json`.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fashion_keras import cli
from fashion_keras.data.sample import LABELS, draw_photo, draw_sample
from fashion_keras.saving import RELEASED
from tests.benchmarks.cheap_backbone import IMAGE_SIZE, save_classifier
from tests.benchmarks.common import parser, provenance, write
from tests.kills.commands import descendants

_ROOT = Path(__file__).parent.parent.parent
_SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
_DRAWN = {"train": 20, "validation": 6, "test": 6}  # Of each class; all others are links to them.
_CHEAP = [sys.executable, "-m", "tests.benchmarks.cheap_backbone"]
_PREPARE = (
    "import sys; from pathlib import Path; "
    "from fashion_keras.config import Config; "
    "from fashion_keras.data.prepare import prepare, summary; "
    "print(summary(prepare(Config(data=sys.argv[1]), Path(sys.argv[2]))))"
)


def link_photos(folder: Path, count: int) -> Path:
    """Make a data set with splits out of so many links to a few hundred drawn photos."""
    drawn = draw_sample(folder.with_name("drawn"), _DRAWN)
    for split, share in _SPLITS.items():
        for label in LABELS:
            (folder / split / label).mkdir(parents=True)
            files = itertools.cycle(sorted((drawn / split / label).iterdir()))
            for number in range(round(share * count / len(LABELS))):
                os.link(next(files), folder / split / label / f"{number:06d}.jpg")
    return folder


def draw_photos(folder: Path, count: int) -> Path:
    """Draw a data set of class folders without splits, no photo twice."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number in cli.progress(range(count), count, "drawing photos"):
        generator = np.random.default_rng([2, number])
        photo = draw_photo(LABELS[number % len(LABELS)], generator, 60, 80)
        photo.save(folder / LABELS[number % len(LABELS)] / f"{number:06d}.jpg")
    return folder


def jobs(work: Path, linked: Path, drawn: Path) -> dict[str, list[str]]:
    """Return all commands by name, those first whose files in the cache others use."""
    model, cache = str(work.parent / "cheap.keras"), ["--cache", f"{work}/cache"]
    folders = ["--results", f"{work}/results", *cache]
    size = ["--image-size", str(IMAGE_SIZE), "--feature-batch-size", "256"]
    features = ["--data", str(linked), "--weights", model, *size]
    photos = [*features, "--batch-size", "256"]
    trials = ["--max-epochs", "3", "--factor", "2"]
    heads = ["--epochs", "2", "--fine-tuning-epochs", "0"]
    tuned = ["--epochs", "2", "--fine-tuning-epochs", "2", "--fine-tune-from", "block13"]
    saved = ["--format", "saved_model", "--out", f"{work}/cheap_saved_model"]
    commands = {
        "features": ["fashion_keras.features", *features, *cache],
        "search": ["tuning.search", *photos, *folders, "--stage=head", *trials],
        "lr_find": ["tuning.lr_find", *photos, *folders],
        "final, heads": ["fashion_keras.final", *photos, *folders, *heads],
        "final, maps": ["fashion_keras.final", *photos, *folders, *tuned, "--fine-tuning-copies=1"],
        "evaluate": ["fashion_keras.evaluate", model, f"{linked}/train", *folders[:2]],
        "report": ["fashion_keras.report", model, f"{linked}/test", *folders],
        "predict": ["fashion_keras.predict", model, str(linked), "--out", f"{work}/rows.csv"],
        "check": ["fashion_keras.check", str(linked), *folders],
        "check --features": ["fashion_keras.check", str(drawn), "--features", *folders],
        "export": ["fashion_keras.export", model, "--photos", str(linked), *saved],
    }
    return {
        "prepare, with splits": [sys.executable, "-c", _PREPARE, str(linked), cache[1]],
        "prepare, without": [sys.executable, "-c", _PREPARE, str(drawn), cache[1]],
    } | {name: [*_CHEAP, *words] for name, words in commands.items()}


def measure(words: list[str], log: Path) -> dict[str, float]:
    """Run a command; return its peak memory in GB and its seconds."""
    start, peak = time.monotonic(), 0
    with log.open("a", encoding="utf-8") as output:
        print(f"\n{' '.join(words)}", file=output, flush=True)
        process = subprocess.Popen(
            words, cwd=_ROOT, stdout=output, stderr=output, start_new_session=True
        )
        while True:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _resident(process.pid))
            time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}; see {log}")
    peak = max(peak, used.ru_maxrss * 1024)
    return {"gb": round(peak / 1e9, 3), "seconds": round(time.monotonic() - start, 1)}


def _resident(process: int) -> int:
    """Return the bytes that a process and all its children hold now (Linux)."""
    pages = 0
    for one in (process, *descendants(process)):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_all(work: Path, count: int, names: list[str]) -> Iterator[tuple[str, dict]]:
    """Measure all commands, or those named, with so many photos."""
    folder = work / str(count)
    linked, drawn = folder / "linked", folder / "no-splits"
    if not drawn.exists():
        link_photos(linked, count)
        draw_photos(drawn, count)
    for name, words in jobs(folder, linked, drawn).items():
        if not names or name in names:
            found = measure(words, folder / "log")
            print(f"{count} photos, {name}: {found}", flush=True)
            yield name, found


def constant(work: Path, photos: Path) -> dict[str, float]:
    """Return the peak memory of scoring photos with the released model and with the cheap one."""
    evaluate = [sys.executable, "-m", "fashion_keras.evaluate"]
    rest = [str(photos), "--results", f"{work}/scored"]
    models = {"xception": RELEASED, "cheap": work / "cheap.keras"}
    return {
        name: measure([*evaluate, str(model), *rest], work / "log")["gb"]
        for name, model in models.items()
    }


def main() -> None:
    """Measure, compare few photos with many, and write it down, each command when it is done."""
    options = parser("memory", __doc__)
    options.add_argument("--photos", type=int, nargs="*", default=[4000, 100_000])
    options.add_argument("--jobs", nargs="*", default=[], help="names of commands (default: all)")
    options.add_argument("--xception", type=Path, help="folder of photos in class folders")
    options.add_argument("--work", type=Path, default=Path("memory"), help="a folder, 20 GB")
    options.add_argument("--keep", action="store_true", help="keep that folder")
    given = options.parse_args()
    file = given.results / "benchmarks" / "memory.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"commands": {}}
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    save_classifier(work / "cheap.keras")
    for count in given.photos:
        for name, values in measure_all(work, count, given.jobs):
            found["commands"].setdefault(name, {})[str(count)] = values
            _write(found, given.results)
    if given.xception:
        found["constant_gb"] = constant(work, given.xception)
    _write(found, given.results)
    print(f"largest growth {max(found['growth_gb'].values(), default=0):.3f} GB; {file}")
    if not given.keep:
        shutil.rmtree(work)


def _write(found: dict, results: Path) -> None:
    found["growth_gb"] = {name: _growth(counts) for name, counts in found["commands"].items()}
    run = provenance()
    others = [one for one in found.get("runs", []) if one["command"] != run["command"]]
    found["runs"] = [*others, run]
    write(results, "memory", found)


def _growth(by_count: dict[str, dict[str, float]]) -> float:
    held = [values["gb"] for _, values in sorted(by_count.items(), key=lambda one: int(one[0]))]
    return round(held[-1] - held[0], 3)


if __name__ == "__main__":
    cli.run(main)
