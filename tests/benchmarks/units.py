"""Measures what one photo costs where no other benchmark does: preparing it, and making its maps.

    python -m tests.benchmarks.units --data clothing --weights imagenet

Prepares the photos as they are and without their splits, where copies are looked for, and makes
the maps that fine-tuning needs of the validation photos. Writes `results/benchmarks/units.json`:
photos a second by the clock, and what they would be had the command all cores for itself
(`undisturbed`: photos by the seconds that the processor worked, times the cores); bytes on disk.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.features import FeatureStore
from fashion_keras.model import build_backbone, feature_maps_shape

_CUT = "block11"
_INODE = 256  # Bytes that the file system keeps for each file or link.


def rate(work: Callable[[], Any], photos: int) -> dict[str, float]:
    """Return how many photos a second `work` gets through."""
    start, processor = time.monotonic(), time.process_time()
    work()
    seconds, busy = time.monotonic() - start, time.process_time() - processor
    cores = os.cpu_count() or 1
    found = {"photos_a_second": photos / seconds, "undisturbed": cores * photos / busy}
    return {name: round(value, 2) for name, value in found.items()}


def without_splits(prepared: Prepared, folder: Path) -> Path:
    """Link all photos into class folders that lie beside each other."""
    for number, photo in enumerate(prepared.photos):
        place = folder / photo.label / f"{number:06d}{Path(photo.prepared).suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to((prepared.folder / photo.prepared).resolve())
    return folder


def on_disk(prepared: Prepared) -> int:
    """Return the bytes that the links and the list of a prepared data set take."""
    entries = [path.lstat() for path in prepared.folder.rglob("*") if not path.is_dir()]
    return sum(512 * entry.st_blocks + _INODE for entry in entries)


def measure(config: Config, cache: Path) -> dict[str, Any]:
    """Measure each unit once."""
    prepared = prepare(config.data, cache)
    count, held_out = len(prepared.photos), len(prepared.split("validation"))
    sizes = [(prepared.folder / photo.prepared).stat().st_size for photo in prepared.photos]
    backbone = build_backbone(config.weights)
    shape = feature_maps_shape(backbone, _CUT, config.image_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        together = without_splits(prepared, folder / "together")
        store = FeatureStore(prepared, config, backbone, folder)
        return {
            "prepare": rate(lambda: prepare(config.data, folder), count),
            "prepare_without_splits": rate(lambda: prepare(str(together), folder), count),
            "maps": rate(lambda: store.feature_maps("validation", 0, _CUT), held_out),
            "bytes": {
                "photo": round(sum(sizes) / count),
                "vector": 4 * backbone.output_shape[-1],
                "map": 2 * math.prod(shape),
                "prepared": round(on_disk(prepared) / count),
            },
            "photos": {"prepare": count, "maps": held_out},
            "image_size": config.image_size,
        }


def main() -> None:
    """Measure and write it down."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.units")
    cli.add_config_options(options, ("data", "weights", "image_size"), Config())
    cli.add_folder_options(options)
    given = options.parse_args()
    config = cli.chosen(given, Config())
    found = measure(config, given.cache) | {"run": cli.provenance(start)}
    file = given.results / "benchmarks" / "units.json"
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    cli.run(main)
