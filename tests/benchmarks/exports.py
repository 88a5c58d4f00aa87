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
import time
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import cli
from fashion_keras.export.__main__ import export_classifier
from fashion_keras.export.formats import FORMATS
from fashion_keras.export.runtimes import read_photos

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


def export_all(model: Path, photos: list[np.ndarray], folder: Path) -> dict[str, dict[str, Any]]:
    """Export in every format; return each row's program, file and size in bytes."""
    rows = {"keras": {"program": "keras", "file": model, "bytes": model.stat().st_size}}
    for name, form in FORMATS.items():
        for half in (False, True)[: 1 + form.half]:
            row = f"{name} --half" if half else name
            target = folder / f"{'half' if half else 'whole'}{form.ending}"
            print(f"{row}:", flush=True)
            facts = export_classifier(model, name, target, photos[:4], half)
            size = sum(facts["bytes"].values())
            rows[row] = {"program": name, "file": target, "bytes": size}
    rows["openvino as it chooses"] = rows["openvino"] | {"program": "openvino as it chooses"}
    return rows


def run_once(program: str, file: Path, folder: Path, compare: bool) -> dict[str, Any]:
    """Run one program in a fresh process and return what it measured."""
    photos, answer = folder / "photos.npz", folder / "answer.json"
    code = FRAME.format(program=PROGRAMS[program], calls=CALLS)
    subprocess.run(
        [sys.executable, "-c", code, file, photos, answer, "compare" if compare else "time"],
        check=True,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(answer.read_text())


def summarise(row: dict[str, Any], rounds: list[dict], expected: np.ndarray) -> dict[str, Any]:
    """Return the figures of one row; times in seconds."""
    difference = np.abs(np.array(rounds[0]["probabilities"]) - expected).max()
    medians = [round(statistics.median(found["calls"]), 4) for found in rounds]
    return {
        "megabytes": round(row["bytes"] / 1e6, 1),
        "load": round(min(found["load"] for found in rounds), 2),
        "first_answer": round(min(found["first"] for found in rounds), 2),
        "one_photo": round(min(min(found["calls"]) for found in rounds), 4),
        "median_of_each_round": medians,
        "largest_difference": float(f"{difference:.2g}"),
    }


def table(rows: dict[str, dict], photos: int, shape: tuple[int, ...], run: dict) -> str:
    """Return the figures as a Markdown document."""
    lines = [
        "# Exports",
        "",
        "The released model in the formats of other runtimes, each used by a plain program in a",
        f"fresh process without this project; {photos} photos, the timed one of {shape[1]} x "
        f"{shape[0]} pixels.",
        f"The quickest of {ROUNDS} rounds in turns with {CALLS} calls each, on the processor "
        "alone. Load:",
        "imports and opening the file.",
        "The largest difference is that of any probability to Keras; without `--half` more than",
        "0.0001 is not written, with it 0.01.",
        "",
        "| format | MB | load | first answer | one photo | largest difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        difference = f"{row['largest_difference']:.1g}" if name != "keras" else ""
        lines.append(
            f"| {name} | {row['megabytes']} | {row['load']:.1f} s | {row['first_answer']:.1f} s | "
            f"{1000 * row['one_photo']:.0f} ms | {difference} |"
        )
    lines += [
        "",
        "OpenVINO computes in float32 only if asked to (INFERENCE_PRECISION_HINT, as in its first "
        "rows);",
        "as it chooses, on processors that have it, it is bfloat16. `--half` halves the file, not "
        "the time:",
        "the weights become float32 when they are loaded.",
    ]
    busy = f"load {run['load_average']} when it ended"
    end = f"Command: `{run['command']}`, {run['machine']}, {busy}."
    return "\n".join([*lines, "", end, ""])


def main() -> None:
    """Export, measure in turns and write the table."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.exports")
    options.add_argument("--model", type=Path, default=Path("fashion_keras/released/fashion.keras"))
    options.add_argument("--photos", type=Path, help="folder of photos (default: drawn ones)")
    options.add_argument("--results", type=Path, default=Path("results"))
    given = options.parse_args()
    photos = read_photos(given.photos)
    measured: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = export_all(given.model, photos, folder)
        np.savez(folder / "photos.npz", *photos)
        for number in range(ROUNDS):
            for row, parts in rows.items():
                found = run_once(parts["program"], parts["file"], folder, compare=number == 0)
                measured.setdefault(row, []).append(found)
                print(f"round {number + 1}: {row}", flush=True)
    expected = np.array(measured["keras"][0]["probabilities"])
    figures = {row: summarise(rows[row], measured[row], expected) for row in rows}
    run = cli.provenance(start)
    run["versions"] |= {package: importlib.metadata.version(package) for package in RUNTIMES}
    run["load_average"] = round(os.getloadavg()[0], 1)
    result = {"photos": len(photos), "rounds": ROUNDS, "rows": figures, "run": run}
    (given.results / "benchmarks").mkdir(parents=True, exist_ok=True)
    file = given.results / "benchmarks" / "exports.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = table(figures, len(photos), photos[0].shape, run)
    (given.results / "exports.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    cli.run(main)
