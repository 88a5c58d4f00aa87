"""Times the computing of features against the bare backbone on pixels that lie in memory.

    python -m tests.benchmarks.features --data clothing --weights imagenet

Bare: the backbone is called in a loop on tensors in memory. Ours: photos are read from disk,
decoded, resized, augmented (copy 1), and the features are written to disk. Same photos, same batch
size, in turns. Writes `results/benchmarks/features.json`; its `ratio` is that of copy 0, ours to
bare in photos per second, `ratio_of_augmented_copy` that of copy 1 (medians over the rounds).
"""

import shutil
import statistics
import tempfile
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.batches import load_split
from fashion_keras.data.prepare import prepare
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_backbone, build_feature_model
from tests.benchmarks.common import link_share, parser, provenance, timed, write

ROUNDS, STEP = 5, 10
BASE = Config(image_size=150)


def measure(config: Config, cache: Path) -> tuple[int, list[dict[str, float]]]:
    """Return the number of photos and the seconds of each round; the first round compiles."""
    backbone = build_backbone(config)
    whole = prepare(config.data, cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tenth = prepare(link_share(whole, folder / "photos", STEP), folder)
        store = FeatureStore(tenth, config, backbone, folder)
        split = load_split(tenth, "train", config.image_size, config.feature_batch_size)
        batches = [pixels for pixels, _ in split]
        model = build_feature_model(backbone)
        works = {
            "bare": lambda: [model.predict_on_batch(pixels) for pixels in batches],
            "copy 0": lambda: store.features("train", 0),
            "copy 1": lambda: store.features("train", 1),
        }
        rounds = []
        for _ in range(ROUNDS + 1):
            shutil.rmtree(folder / "features", ignore_errors=True)
            rounds.append(timed(works))
    return len(tenth.split("train")), rounds[1:]


def main() -> None:
    """Measure in turns and compare."""
    fields = ("data", "weights", "image_size", "feature_batch_size")
    given = parser("features", __doc__, fields, BASE).parse_args()
    config = cli.chosen(given, BASE)
    photos, rounds = measure(config, given.cache)
    plain, augmented = (
        round(statistics.median(row["bare"] / row[copy] for row in rounds), 3)
        for copy in ("copy 0", "copy 1")
    )
    result = {
        "ratio": plain,
        "ratio_of_augmented_copy": augmented,
        "photos": photos,
        "image_size": config.image_size,
        "batch_size": config.feature_batch_size,
        "seconds": [{name: round(value, 2) for name, value in row.items()} for row in rounds],
        "run": provenance(),
    }
    file = write(given.results, "features", result)
    print(f"ratio {plain}, augmented copy {augmented}; {file}")


if __name__ == "__main__":
    cli.run(main)
