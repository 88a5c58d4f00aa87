"""Times predictions against the bare model on pixels that lie in memory.

    python -m tests.benchmarks.predictions results/final/fashion.keras photos/

One photo: `classifier.predict` on a file, against reading and resizing it plus the bare model on
its pixels. Many: `classifier.predict` on files, decoding on the way, against the bare model on
batches of pixels already resized. The bare model runs by Keras and, where it is installed, by
OpenVINO, which then runs ours, too. Same photos, in turns, warmed. Writes
`results/benchmarks/predictions.json`: `single` is our time over that of the bare model by the same
engine (less is better), `batch` our photos per second over its (more is better); medians.
"""

import functools
import math
import statistics
from pathlib import Path

import numpy as np

from fashion_keras import Classifier, cli, load_classifier
from fashion_keras.data.photo import read_photo
from tests.benchmarks.common import (
    BATCH,
    Loop,
    bare_loops,
    decoded_batches,
    model_parser,
    provenance,
    some_photos,
    timed,
    write,
)

SINGLES, ROUNDS = 24, 5


def single(classifier: Classifier, bare: dict[str, Loop], file: Path) -> dict[str, float]:
    """Time one photo, ours and theirs."""
    pixels = classifier.resize(read_photo(file).pixels)[None]
    return timed(
        {
            "decode": lambda: classifier.resize(read_photo(file).pixels),
            **{name: functools.partial(loop, [pixels]) for name, loop in bare.items()},
            "ours": lambda: list(classifier.predict(file)),
        }
    )


def throughput(
    classifier: Classifier, bare: dict[str, Loop], files: list[Path], batches: list[np.ndarray]
) -> dict[str, float]:
    """Time many photos, ours and theirs."""
    return timed(
        {
            **{name: functools.partial(loop, batches) for name, loop in bare.items()},
            "ours": lambda: list(classifier.predict(files, BATCH)),
        }
    )


def measure(
    classifier: Classifier, bare: dict[str, Loop], files: list[Path]
) -> tuple[list[dict], list[dict]]:
    """Return the seconds of each single photo and of each round; the first ones warm up."""
    few = files[:: max(1, len(files) // SINGLES)][:SINGLES]
    singles = [single(classifier, bare, file) for file in [*few[:4], *few]][4:]
    many = files[: len(files) // BATCH * BATCH]
    batches = decoded_batches(classifier, many)
    throughput(classifier, bare, many[:BATCH], batches[:1])
    return singles, [throughput(classifier, bare, many, batches) for _ in range(ROUNDS)]


def main() -> None:
    """Measure in turns and compare."""
    options = model_parser("predictions", __doc__)
    options.add_argument("--limit", type=int, default=96, help="photos taken (default: 96)")
    given = options.parse_args()
    files = some_photos(given.photos, BATCH, given.limit)
    classifier = load_classifier(given.model).for_photos(math.inf)
    bare = bare_loops(classifier.model, classifier.engine)
    singles, rounds = measure(classifier, bare, files)
    *_, to = bare
    result = {
        "to": to,
        "single": statistics.median(one["ours"] / (one["decode"] + one[to]) for one in singles),
        "batch": statistics.median(one[to] / one["ours"] for one in rounds),
        "milliseconds_of_one": {
            name: round(1000 * statistics.median(one[name] for one in singles), 1)
            for name in singles[0]
        },
        "photos": len(files) // BATCH * BATCH,
        "seconds_of_rounds": [{name: round(one[name], 2) for name in one} for one in rounds],
        "run": provenance(),
    }
    file = write(given.results, "predictions", result)
    print(f"to {to}: single {result['single']:.3f}, batch {result['batch']:.3f}; {file}")


if __name__ == "__main__":
    cli.run(main)
