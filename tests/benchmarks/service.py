"""Times the web service against the bare model, with wrk as the client.

    python -m tests.benchmarks.service results/final/fashion.keras photos/

One photo at a time: the median time of a request, against decoding plus the bare model on its
pixels. Many at a time: photos per second of 64 connections, against the bare model on batches of
pixels already decoded and resized. The bare model runs by Keras and, where it is installed, by
OpenVINO, which then runs the service, too. Same photos, in turns, all in one run. Writes
`results/benchmarks/service.json`: `lone` is our time over that of the bare model by the same engine
(less is better), `throughput` our photos per second over its (more is better); medians of the
rounds. Needs Debian's wrk.
"""

import math
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from fashion_keras import Classifier, cli, load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from tests.benchmarks.common import (
    Loop,
    bare_loops,
    decoded_batches,
    model_parser,
    provenance,
    some_photos,
    write,
)
from tests.serve.running import Running, command

PHOTOS, ROUNDS, CONNECTIONS = 64, 4, 64
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


def load_with_wrk(service: Running, script: Path, connections: int) -> tuple[float, float]:
    """Return photos per second, and the median milliseconds of a request."""
    words = f"wrk -t1 -c{connections} -d{SECONDS[connections]}s --timeout 30s".split()
    words += ["-s", str(script), f"http://127.0.0.1:{service.port}"]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\S+) (\S+) (\d+)", output)
    if not found or int(found[4]):
        raise InputError(f"wrk met errors: {output}")
    return int(found[1]) / float(found[2]), float(found[3])


def bare_milliseconds(classifier: Classifier, loop: Loop, files: list[Path]) -> float:
    """Return the median time of decoding a photo and putting its pixels through the model."""
    times = []
    for content in map(Path.read_bytes, files):
        start = time.perf_counter()
        loop([classifier.resize(read_photo(content).pixels)[None]])
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def bare_rate(loop: Loop, batches: list[np.ndarray]) -> float:
    """Return photos per second of the bare model on pixels in memory."""
    start = time.perf_counter()
    loop(batches)
    return sum(map(len, batches)) / (time.perf_counter() - start)


def measure(model: Path, files: list[Path]) -> tuple[str, list[dict[str, float]]]:
    """Return the name of our engine's bare loop, and what each round measured, in turns."""
    classifier = load_classifier(model).for_photos(math.inf)
    batches, bare = (
        decoded_batches(classifier, files),
        bare_loops(classifier.model, classifier.engine),
    )
    for loop in bare.values():
        bare_milliseconds(classifier, loop, files)  # Warms the model, as the next line does.
        bare_rate(loop, batches)
    rounds = []
    with tempfile.TemporaryDirectory() as folder, command(model) as (service, _):
        names, script = Path(folder, "names.txt"), Path(folder, "photos.lua")
        names.write_text("".join(f"{file.resolve()}\n" for file in files))
        script.write_text(_SCRIPT % names)
        for _ in cli.progress(range(ROUNDS), ROUNDS, "rounds"):
            row = {"lone ours": load_with_wrk(service, script, 1)[1]}
            row["rate ours"] = load_with_wrk(service, script, CONNECTIONS)[0]
            for name, loop in bare.items():
                row[f"lone {name}"] = bare_milliseconds(classifier, loop, files)
                row[f"rate {name}"] = bare_rate(loop, batches * 2)
            rounds.append({name: round(value, 2) for name, value in row.items()})
            print(rounds[-1], flush=True)
    return list(bare)[-1], rounds


def main() -> None:
    """Measure in turns and compare."""
    given = model_parser("service", __doc__).parse_args()
    if not shutil.which("wrk"):
        raise InputError("This needs wrk: apt install wrk")
    to, rounds = measure(given.model, some_photos(given.photos, PHOTOS, PHOTOS))
    result = {
        "to": to,
        "lone": statistics.median(one["lone ours"] / one[f"lone {to}"] for one in rounds),
        "throughput": statistics.median(one["rate ours"] / one[f"rate {to}"] for one in rounds),
        "connections": CONNECTIONS,
        "rounds": rounds,
        "run": provenance(),
    }
    file = write(given.results, "service", result)
    print(f"to {to}: lone {result['lone']:.3f}, throughput {result['throughput']:.3f}; {file}")


if __name__ == "__main__":
    cli.run(main)
