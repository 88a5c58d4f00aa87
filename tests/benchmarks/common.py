"""What the benchmarks share: options, timing, photos, and results as JSON."""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import Classifier, cli
from fashion_keras.artifacts import whole_file
from fashion_keras.config import Config, InputError
from fashion_keras.data.files import find_files
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import Prepared
from fashion_keras.engine import OpenVINO, import_openvino

BATCH = 32  # Photos that the bare model predicts at once.
_START = time.monotonic()


def parser(
    name: str, text: str | None, fields: Iterable[str] = (), base: Config | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a benchmark: `--results`, and, with fields of `Config`, `--cache`."""
    options = cli.parser(text or "", f"tests.benchmarks.{name}")
    if fields:
        cli.add_config_options(options, fields, base or Config())
        cli.add_folder_options(options)
    else:
        options.add_argument("--results", type=Path, default=Path("results"))
    return options


def model_parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark that takes a model and a folder of photos."""
    options = parser(name, text)
    options.add_argument("model", type=Path, help="a .keras file of this project")
    options.add_argument("photos", type=Path, help="folder of photos")
    return options


def provenance() -> dict[str, Any]:
    """Return where the numbers of this process come from."""
    return cli.provenance(_START)


def write(results: Path, name: str, found: dict[str, Any]) -> Path:
    """Write what was measured to `benchmarks/<name>.json`."""
    file = results / "benchmarks" / f"{name}.json"
    with whole_file(file) as unfinished:
        unfinished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return file


def timed(
    works: dict[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return how many seconds each work takes, one after the other."""
    seconds = {}
    for name, work in works.items():
        start = clock()
        work()
        seconds[name] = clock() - start
    return seconds


def some_photos(folder: Path, minimum: int, limit: int) -> list[Path]:
    """Return at most `limit` photos of a folder, evenly spread.

    Raises:
        InputError: If it holds fewer than `minimum`.
    """
    files = find_files(folder)
    if len(files) < minimum:
        raise InputError(f"Expected {minimum} photos or more in {folder}. Received: {len(files)}")
    return files[:: max(1, len(files) // limit)][:limit]


Loop = Callable[[Sequence[np.ndarray]], list[Any]]


def bare_loops(model: Any, run: Any) -> dict[str, Loop]:
    """Return plain loops over batches: of Keras and, if `run` is of OpenVINO, of that.

    `run` is what computes here, so the last loop is that of the same engine.
    """

    def loop(call: Callable[[np.ndarray], Any]) -> Loop:
        return lambda batches: [call(pixels) for pixels in batches]

    loops = {"bare keras": loop(model.predict_on_batch)}
    if isinstance(run, OpenVINO):
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = import_openvino().Core().compile_model(str(run.file), "CPU", options)
        loops["bare openvino"] = loop(compiled)
    return loops


def decoded_batches(classifier: Classifier, files: list[Path]) -> list[np.ndarray]:
    """Return photos in the model's own size, in batches in memory."""
    photos = [classifier.resize(read_photo(file).pixels) for file in files]
    return [np.stack(photos[start : start + BATCH]) for start in range(0, len(photos), BATCH)]


def link_share(prepared: Prepared, folder: Path, step: int) -> str:
    """Link every `step`-th photo of each class, but for the test, into a new data set."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for photo in [*prepared.split("train"), *prepared.split("validation")]:
        if seen[photo.split, photo.label] % step == 0:
            place = folder / photo.prepared
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to((prepared.folder / photo.prepared).resolve())
        seen[photo.split, photo.label] += 1
    return str(folder)
