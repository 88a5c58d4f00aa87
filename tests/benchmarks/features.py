"""Times the computing of features against the bare backbone on pixels that lie in memory.

    python -m tests.benchmarks.features --data clothing --weights imagenet

Bare: the backbone is called in a loop on tensors in memory. Ours: photos are read from disk,
decoded, resized, augmented (copy 1), and the features are written to disk. Same photos, same batch
size, in turns. Writes `results/benchmarks/features.json`; its `ratio` is that of copy 0, ours to
bare in photos per second, `ratio_of_augmented_copy` that of copy 1 (medians over the rounds).
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.batches import load_split
from fashion_keras.data.prepare import prepare
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_backbone, build_feature_model
from tests.benchmarks.slice import link_share

ROUNDS, STEP = 5, 10


def seconds(work: Callable[[], Any]) -> float:
    """Return how long `work` takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def one_round(model: Any, batches: list, store: FeatureStore, cache: Path) -> dict[str, float]:
    """Time the bare backbone and both kinds of copy once, on the same photos."""
    shutil.rmtree(cache / "features", ignore_errors=True)
    return {
        "bare": seconds(lambda: [model.predict_on_batch(pixels) for pixels in batches]),
        "copy 0": seconds(lambda: store.features("train", 0)),
        "copy 1": seconds(lambda: store.features("train", 1)),
    }


def measure(config: Config, cache: Path) -> tuple[int, list[dict[str, float]]]:
    """Return the number of photos and the seconds of each round; the first round compiles."""
    backbone = build_backbone(config.weights)
    whole = prepare(config.data, cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tenth = prepare(str(link_share(whole, folder / "a", ("train", "validation"), STEP)), folder)
        store = FeatureStore(tenth, config, backbone, folder)
        split = load_split(tenth, "train", config.image_size, config.batch_size)
        batches = [pixels for pixels, _ in split]
        model = build_feature_model(backbone)
        rounds = [one_round(model, batches, store, folder) for _ in range(ROUNDS + 1)]
    return len(tenth.split("train")), rounds[1:]


def main() -> None:
    """Measure in turns and compare."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.features")
    base = Config(image_size=150)
    cli.add_config_options(options, ("data", "weights", "image_size", "batch_size"), base)
    cli.add_folder_options(options)
    given = options.parse_args()
    config = cli.chosen(given, base)
    photos, rounds = measure(config, given.cache)
    ratios = [
        round(statistics.median(row["bare"] / row[copy] for row in rounds), 3)
        for copy in ("copy 0", "copy 1")
    ]
    result = {
        "ratio": ratios[0],
        "ratio_of_augmented_copy": ratios[1],
        "photos": photos,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "seconds": [{name: round(value, 2) for name, value in row.items()} for row in rounds],
        "run": cli.provenance(start),
    }
    file = given.results / "benchmarks" / "features.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"ratio {ratios[0]}, augmented copy {ratios[1]}; {file}")


if __name__ == "__main__":
    cli.run(main)
