"""Times the computing of features against the bare backbone on pixels that lie in memory.

    python -m tests.benchmarks.features --data clothing --weights imagenet

Bare: the backbone is called in a loop on arrays in memory, by Keras and, where it is installed, by
OpenVINO. Ours: photos are read from disk, decoded, resized, augmented (copy 1), and the features
are written to disk. Same photos, same batch size, in turns. Writes
`results/benchmarks/features.json`; its `ratio` is that of copy 0, ours in photos per second to the
bare loop of the engine that ours runs on, `ratio_of_augmented_copy` that of copy 1 (medians over
the rounds).
"""

import functools
import math
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.batches import load_split
from fashion_keras.data.prepare import prepare
from fashion_keras.engine import engines
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_backbone, build_feature_model
from tests.benchmarks.common import bare_loops, link_share, parser, provenance, timed, write

ROUNDS, STEP = 5, 10
BASE = Config(image_size=150)


def measure(config: Config, cache: Path) -> tuple[int, str, list[dict[str, float]]]:
    """Return the number of photos, the bare loop of our engine, and the seconds of each round.

    A first round, which compiles, is left out.
    """
    backbone = build_backbone(config)
    whole = prepare(config, cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tenth = prepare(Config(data=link_share(whole, folder / "photos", STEP)), folder)
        store = FeatureStore(tenth, config, backbone, folder)
        store.engine = engines(math.inf, config.image_size)[0]  # As for many photos.
        split = load_split(tenth, "train", config.image_size, config.feature_batch_size)
        batches = [np.asarray(pixels) for pixels, _ in split]
        bare = bare_loops(build_feature_model(backbone), store.run())
        works = {
            **{name: functools.partial(loop, batches) for name, loop in bare.items()},
            "copy 0": lambda: store.features("train", 0),
            "copy 1": lambda: store.features("train", 1),
        }
        rounds = []
        for _ in range(ROUNDS + 1):
            shutil.rmtree(folder / "features", ignore_errors=True)
            rounds.append(timed(works))
    return len(tenth.split("train")), list(bare)[-1], rounds[1:]


def main() -> None:
    """Measure in turns and compare."""
    fields = ("data", "weights", "image_size", "feature_batch_size")
    given = parser("features", __doc__, fields, BASE).parse_args()
    config = cli.chosen(given, BASE)
    photos, bare, rounds = measure(config, given.cache)
    plain, augmented = (
        round(statistics.median(row[bare] / row[copy] for row in rounds), 3)
        for copy in ("copy 0", "copy 1")
    )
    result = {
        "to": bare,
        "ratio": plain,
        "ratio_of_augmented_copy": augmented,
        "photos": photos,
        "image_size": config.image_size,
        "batch_size": config.feature_batch_size,
        "photos_per_second": {
            name: round(photos / statistics.median(row[name] for row in rounds), 2)
            for name in rounds[0]
        },
        "seconds": [{name: round(value, 2) for name, value in row.items()} for row in rounds],
        "run": provenance(),
    }
    file = write(given.results, "features", result)
    print(f"ratio to {bare} {plain}, augmented copy {augmented}; {file}")


if __name__ == "__main__":
    cli.run(main)
