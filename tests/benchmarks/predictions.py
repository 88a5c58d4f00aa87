"""Times predictions against the bare compiled model on tensors that lie in memory.

    python -m tests.benchmarks.predictions results/final/fashion.keras photos/

One photo: `classifier.predict` on a file, against reading the file plus the bare model on its
pixels. Many: `classifier.predict` on files, decoding on the way, against the bare model on batches
of pixels already resized. Same photos, in turns, warmed. Writes
`results/benchmarks/predictions.json`: `single` is our time over theirs (less is better),
`batch` our photos per second over theirs (more is better); medians.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras import Classifier, cli, load_classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.data.scan import find_files

SINGLES, BATCH, ROUNDS = 24, 32, 5


def seconds(work: Callable[[], Any]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def single(classifier: Classifier, file: Path) -> dict[str, float]:
    """Time one photo, ours and theirs."""
    pixels = read_photo(file).pixels[None]
    return {
        "decode": seconds(lambda: read_photo(file)),
        "bare": seconds(lambda: classifier.model.predict_on_batch(pixels)),
        "ours": seconds(lambda: list(classifier.predict(file))),
    }


def batches(classifier: Classifier, files: list[Path]) -> list[np.ndarray]:
    """Return the photos as the model's own size, in batches in memory."""
    photos = [classifier.resize(read_photo(file).pixels) for file in files]
    return [np.stack(photos[start : start + BATCH]) for start in range(0, len(photos), BATCH)]


def throughput(
    classifier: Classifier, files: list[Path], ready: list[np.ndarray]
) -> dict[str, float]:
    """Time many photos, ours and theirs."""
    model = classifier.model
    return {
        "bare": seconds(lambda: [model.predict_on_batch(batch) for batch in ready]),
        "ours": seconds(lambda: list(classifier.predict(files, BATCH))),
    }


def measure(classifier: Classifier, files: list[Path]) -> tuple[list[dict], list[dict]]:
    """Return the seconds of each single photo and of each round; the first ones warm up."""
    few = files[:: max(1, len(files) // SINGLES)][:SINGLES]
    for file in few[:4]:
        single(classifier, file)
    singles = [single(classifier, file) for file in few]
    many = files[: len(files) // BATCH * BATCH]
    ready = batches(classifier, many)
    throughput(classifier, many[:BATCH], ready[:1])
    return singles, [throughput(classifier, many, ready) for _ in range(ROUNDS)]


def main() -> None:
    """Measure in turns and compare."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.predictions")
    options.add_argument("model", type=Path, help="a .keras file of this project")
    options.add_argument("photos", type=Path, help=f"folder with {BATCH} photos or more")
    options.add_argument("--most", type=int, default=96, help="photos taken of them (default: 96)")
    cli.add_folder_options(options)
    given = options.parse_args()
    files = find_files(given.photos)
    if len(files) < BATCH:
        raise InputError(f"Expected {BATCH} photos or more in {given.photos}. Got: {len(files)}")
    files = files[:: max(1, len(files) // given.most)][: given.most]
    singles, rounds = measure(load_classifier(given.model), files)
    result = {
        "single": statistics.median(one["ours"] / (one["decode"] + one["bare"]) for one in singles),
        "batch": statistics.median(one["bare"] / one["ours"] for one in rounds),
        "milliseconds_of_one": {
            name: round(1000 * statistics.median(one[name] for one in singles), 1)
            for name in singles[0]
        },
        "photos": len(files) // BATCH * BATCH,
        "seconds_of_rounds": [{name: round(one[name], 2) for name in one} for one in rounds],
        "run": cli.provenance(start),
    }
    file = given.results / "benchmarks" / "predictions.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"single {result['single']:.3f}, batch {result['batch']:.3f}; {file}")


if __name__ == "__main__":
    cli.run(main)
