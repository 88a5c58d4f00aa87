"""Times the web service against the bare compiled model, with wrk as the client.

    python -m tests.benchmarks.service results/final/fashion.keras photos/

One photo at a time: the median time of a request, against decoding plus the bare model on its
pixels. Many at a time: photos per second of 64 connections, against the bare model on batches of
pixels already decoded and resized. Same photos, in turns, all in one run. Writes
`results/benchmarks/service.json`: `lone` is our time over theirs (less is better), `throughput`
our photos per second over theirs (more is better); medians of the rounds. Needs Debian's wrk.
"""

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fashion_keras import Classifier, cli, load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.data.scan import find_files

PHOTOS, BATCH, ROUNDS, CONNECTIONS = 64, 32, 4, 64
SECONDS = {1: 8, CONNECTIONS: 25}  # A short run would lose much of its last, unfinished batch.
_SCRIPT = """
local bodies = {}
for name in io.lines("%s") do
  local file = io.open(name, "rb"); bodies[#bodies + 1] = file:read("*all"); file:close()
end
local at = 0
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "application/octet-stream"}, bodies[at])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format("RESULT %%d %%f %%f %%d", summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, errors.status + errors.connect + errors.read + errors.timeout))
end
"""


@contextlib.contextmanager
def running(model: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run the service; yield its address and its process when it is ready."""
    words = [sys.executable, "-m", "fashion_keras.serve", str(model), "--port", "0", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+:\d+", line)
            if not found:
                raise InputError(f"The service does not start: {line}")
            yield _when_ready(found[0], process), process
        finally:
            process.terminate()
            process.wait()


def _when_ready(address: str, process: subprocess.Popen) -> str:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/ready"):  # noqa: S310 (our own)
                return address
        except urllib.error.URLError:
            time.sleep(0.2)
    raise InputError("The service ended before it was ready.")


def load_with_wrk(address: str, script: Path, connections: int) -> dict[str, float]:
    """Return photos per second, and the median milliseconds of a request."""
    words = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{SECONDS[connections]}s",
        "--timeout",
        "30s",
        "-s",
        script,
    ]
    told = subprocess.run([*words, address], capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\S+) (\S+) (\d+)", told)
    if not found or int(found[4]):
        raise InputError(f"wrk met errors: {told}")
    return {"rate": int(found[1]) / float(found[2]), "milliseconds": float(found[3])}


def bare_milliseconds(classifier: Classifier, files: list[Path]) -> float:
    """Return the median time of decoding a photo and putting its pixels through the model."""
    times = []
    for file in files:
        content = file.read_bytes()
        start = time.perf_counter()
        classifier.model.predict_on_batch(read_photo(content).pixels[None])
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def bare_rate(classifier: Classifier, batches: list[np.ndarray]) -> float:
    """Return photos per second of the bare model on pixels in memory."""
    start = time.perf_counter()
    for batch in batches:
        classifier.model.predict_on_batch(batch)
    return sum(map(len, batches)) / (time.perf_counter() - start)


def measure(model: Path, files: list[Path]) -> list[dict[str, float]]:
    """Return what each round measured, ours and theirs in turns."""
    classifier = load_classifier(model)
    photos = [classifier.resize(read_photo(file).pixels) for file in files]
    batches = [np.stack(photos[at : at + BATCH]) for at in range(0, len(photos), BATCH)]
    bare_milliseconds(classifier, files)  # Warms the model, as the next line does.
    bare_rate(classifier, batches)
    rounds = []
    with tempfile.TemporaryDirectory() as folder, running(model) as (address, _):
        names, script = Path(folder, "names.txt"), Path(folder, "photos.lua")
        names.write_text("".join(f"{file.resolve()}\n" for file in files))
        script.write_text(_SCRIPT % names)
        for _ in cli.progress(range(ROUNDS), ROUNDS, "rounds"):
            alone, many = {}, {}
            alone["bare"] = bare_milliseconds(classifier, files)
            alone["ours"] = load_with_wrk(address, script, 1)["milliseconds"]
            many["bare"] = bare_rate(classifier, batches * 2)
            many["ours"] = load_with_wrk(address, script, CONNECTIONS)["rate"]
            rounds.append({f"lone_{who}": round(alone[who], 1) for who in alone}
                          | {f"rate_{who}": round(many[who], 2) for who in many})  # fmt: skip
            print(rounds[-1], flush=True)
    return rounds


def main() -> None:
    """Measure in turns and compare."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.service")
    options.add_argument("model", type=Path, help="a .keras file of this project")
    options.add_argument("photos", type=Path, help="folder of photos")
    options.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    given = options.parse_args()
    if not shutil.which("wrk"):
        raise InputError("This needs wrk: apt install wrk")
    files = find_files(given.photos)
    if len(files) < PHOTOS:
        raise InputError(f"Expected {PHOTOS} photos or more in {given.photos}.")
    rounds = measure(given.model, files[:: len(files) // PHOTOS][:PHOTOS])
    text = {
        "lone": statistics.median(one["lone_ours"] / one["lone_bare"] for one in rounds),
        "throughput": statistics.median(one["rate_ours"] / one["rate_bare"] for one in rounds),
        "connections": CONNECTIONS,
        "rounds": rounds,
        "run": cli.provenance(start),
    }
    file = given.results / "benchmarks" / "service.json"
    file.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    print(f"lone {text['lone']:.3f}, throughput {text['throughput']:.3f}; {file}")


if __name__ == "__main__":
    cli.run(main)
