"""Times predictions against the bare compiled model on tensors that lie in memory.

    python -m tests.benchmarks.predictions results/final/fashion.keras photos/

One photo: `classifier.predict` on a file, against reading the file plus the bare model on its
pixels. Many: `classifier.predict` on files, decoding on the way, against the bare model on batches
of pixels already resized. Same photos, in turns, warmed. Writes
`results/benchmarks/predictions.json`: `single` is our time over theirs (less is better),
`batch` our photos per second over theirs (more is better); medians.
"""

import statistics
from pathlib import Path

import numpy as np

from fashion_keras import Classifier, cli, load_classifier
from fashion_keras.data.photo import read_photo
from tests.benchmarks.common import (
    BATCH,
    decoded_batches,
    model_parser,
    provenance,
    some_photos,
    timed,
    write,
)

SINGLES, ROUNDS = 24, 5


def single(classifier: Classifier, file: Path) -> dict[str, float]:
    """Time one photo, ours and theirs."""
    pixels = read_photo(file).pixels[None]
    return timed(
        {
            "decode": lambda: read_photo(file),
            "bare": lambda: classifier.model.predict_on_batch(pixels),
            "ours": lambda: list(classifier.predict(file)),
        }
    )


def throughput(
    classifier: Classifier, files: list[Path], batches: list[np.ndarray]
) -> dict[str, float]:
    """Time many photos, ours and theirs."""
    model = classifier.model
    return timed(
        {
            "bare": lambda: [model.predict_on_batch(batch) for batch in batches],
            "ours": lambda: list(classifier.predict(files, BATCH)),
        }
    )


def measure(classifier: Classifier, files: list[Path]) -> tuple[list[dict], list[dict]]:
    """Return the seconds of each single photo and of each round; the first ones warm up."""
    few = files[:: max(1, len(files) // SINGLES)][:SINGLES]
    singles = [single(classifier, file) for file in [*few[:4], *few]][4:]
    many = files[: len(files) // BATCH * BATCH]
    batches = decoded_batches(classifier, many)
    throughput(classifier, many[:BATCH], batches[:1])
    return singles, [throughput(classifier, many, batches) for _ in range(ROUNDS)]


def main() -> None:
    """Measure in turns and compare."""
    options = model_parser("predictions", __doc__)
    options.add_argument("--limit", type=int, default=96, help="photos taken (default: 96)")
    given = options.parse_args()
    files = some_photos(given.photos, BATCH, given.limit)
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
        "run": provenance(),
    }
    file = write(given.results, "predictions", result)
    print(f"single {result['single']:.3f}, batch {result['batch']:.3f}; {file}")


if __name__ == "__main__":
    cli.run(main)
