"""Times the exports of a saved file, each in a fresh process of its own runtime, against Keras.

    python -m tests.benchmarks.exports --photos photos/test

Each row of the table is a plain program of a few lines, as a user would write it: nothing of this
project is imported. Load: imports and opening the file. First answer: the same, and the
probabilities of one photo. One photo: a later call. The processes run in turns; each figure is the
quickest, the one least disturbed by other work. The largest difference to Keras is over all photos.
Writes `results/benchmarks/exports.json`, with the median of each round, and the table
`results/exports.md`.
"""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import cli
from fashion_keras.export.__main__ import export_classifier
from fashion_keras.export.formats import FORMATS
from fashion_keras.export.runtimes import read_photos
from fashion_keras.saving import RELEASED
from tests.benchmarks.common import parser, provenance, write

ROUNDS, CALLS = 5, 15
RUNTIMES = ("keras", "tensorflow", "onnxruntime", "ai-edge-litert", "openvino")

OPENVINO = """
import openvino
compiled = openvino.Core().compile_model(file, "CPU", {options})
run = lambda pixels: compiled({{"pixels": pixels}})["probabilities"]
"""
PROGRAMS = {
    "keras": """
import keras
run = keras.saving.load_model(file).predict_on_batch
""",
    "saved_model": """
import tensorflow as tf
loaded = tf.saved_model.load(file)
run = lambda pixels: loaded.serve(tf.constant(pixels))["probabilities"].numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
run = lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]
""",
    "litert": """
import os
from ai_edge_litert.interpreter import Interpreter
signature = Interpreter(file, num_threads=os.cpu_count()).get_signature_runner()
run = lambda pixels: signature(pixels=pixels)["probabilities"]
""",
    "openvino": OPENVINO.format(options={"INFERENCE_PRECISION_HINT": "f32"}),
    "openvino as it chooses": OPENVINO.format(options={}),
}
FRAME = """
import sys, time
start = time.perf_counter()
file = sys.argv[1]
{program}
load = time.perf_counter() - start
import json
import numpy as np
photos = [photo[None].astype("float32") for photo in np.load(sys.argv[2]).values()]
begin = time.perf_counter()
run(photos[0])
first = load + time.perf_counter() - begin
times = []
for _ in range({calls}):
    begin = time.perf_counter()
    run(photos[0])
    times.append(time.perf_counter() - begin)
compared = photos if sys.argv[4] == "compare" else []
probabilities = [np.asarray(run(photo))[0].tolist() for photo in compared]
answer = dict(load=load, first=first, calls=times, probabilities=probabilities)
open(sys.argv[3], "w").write(json.dumps(answer))
"""
TABLE = f"""\
# Exports

The released model in the formats of other runtimes, each used by a plain program in a
fresh process without this project; {{photos}} photos, the timed one of {{width}} x {{height}}
pixels.
The quickest of {ROUNDS} rounds in turns with {CALLS} calls each, on the processor alone. Load:
imports and opening the file.
The largest difference is that of any probability to Keras; without `--half` more than
0.0001 is not written, with it 0.01.

| format | MB | load | first answer | one photo | largest difference |
| --- | --- | --- | --- | --- | --- |
{{rows}}
OpenVINO computes in float32 only if asked to (INFERENCE_PRECISION_HINT, as in its first rows);
as it chooses, on processors that have it, it is bfloat16. `--half` halves the file, not the time:
the weights become float32 when they are loaded.

The project runs an `.onnx` file itself, without Keras: `load_classifier("fashion.onnx")`,
`python -m fashion_keras.predict fashion.onnx photos/`, and [the service](service.md#without-keras).

Command: `{{run[command]}}`, {{run[machine]}}, load {{run[load_average]}} when it ended.
"""


def export_all(model: Path, photos: list[np.ndarray], folder: Path) -> dict[str, dict[str, Any]]:
    """Export in every format; return each row's program, file and size in bytes."""
    rows = {"keras": {"program": "keras", "file": model, "bytes": model.stat().st_size}}
    for name, form in FORMATS.items():
        for half in (False, True)[: 1 + form.half]:
            row = f"{name} --half" if half else name
            target = folder / f"{'half' if half else 'whole'}{form.ending}"
            print(f"{row}:", flush=True)
            sizes = export_classifier(model, name, target, photos[:4], half)["bytes"]
            rows[row] = {"program": name, "file": target, "bytes": sum(sizes.values())}
    rows["openvino as it chooses"] = rows["openvino"] | {"program": "openvino as it chooses"}
    return rows


def measure(model: Path, photos: list[np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return the figures of each row: fresh processes in turns; the first round compares."""
    measured: dict[str, list[dict]] = {}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as name:
        rows = export_all(model, photos, Path(name))
        files = pixels, answer = Path(name, "photos.npz"), Path(name, "answer.json")
        np.savez(pixels, *photos)
        for number in range(ROUNDS):
            for row, parts in rows.items():
                code = FRAME.format(program=PROGRAMS[parts["program"]], calls=CALLS)
                words = [sys.executable, "-c", code, parts["file"], *files]
                words.append("compare" if number == 0 else "time")
                subprocess.run(words, check=True, capture_output=True, env=environment)
                measured.setdefault(row, []).append(json.loads(answer.read_text()))
                print(f"round {number + 1}: {row}", flush=True)
    expected = np.array(measured["keras"][0]["probabilities"])
    return {row: summarise(rows[row]["bytes"], measured[row], expected) for row in rows}


def summarise(size: int, rounds: list[dict], expected: np.ndarray) -> dict[str, Any]:
    """Return the figures of one row; times in seconds."""
    difference = np.abs(np.array(rounds[0]["probabilities"]) - expected).max()
    return {
        "megabytes": round(size / 1e6, 1),
        "load": round(min(found["load"] for found in rounds), 2),
        "first_answer": round(min(found["first"] for found in rounds), 2),
        "one_photo": round(min(min(found["calls"]) for found in rounds), 4),
        "median_of_each_round": [round(statistics.median(one["calls"]), 4) for one in rounds],
        "largest_difference": float(f"{difference:.2g}"),
    }


def table(rows: dict[str, dict], photos: list[np.ndarray], run: dict) -> str:
    """Return the figures as a Markdown document."""
    text = ""
    for name, row in rows.items():
        difference = f"{row['largest_difference']:.1g}" if name != "keras" else ""
        text += (
            f"| {name} | {row['megabytes']} | {row['load']:.1f} s | {row['first_answer']:.1f} s | "
            f"{1000 * row['one_photo']:.0f} ms | {difference} |\n"
        )
    height, width, _ = photos[0].shape
    return TABLE.format(photos=len(photos), width=width, height=height, rows=text, run=run)


def main() -> None:
    """Export, measure in turns and write the table."""
    options = parser("exports", __doc__)
    options.add_argument("--model", type=Path, default=RELEASED)
    options.add_argument("--photos", type=Path, help="folder of photos (default: drawn ones)")
    given = options.parse_args()
    photos = read_photos(given.photos)
    figures = measure(given.model, photos)
    run: dict[str, Any] = provenance() | {"load_average": round(os.getloadavg()[0], 1)}
    run["versions"] |= {package: importlib.metadata.version(package) for package in RUNTIMES}
    result = {"photos": len(photos), "rounds": ROUNDS, "rows": figures, "run": run}
    write(given.results, "exports", result)
    text = table(figures, photos, run)
    (given.results / "exports.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    cli.run(main)
