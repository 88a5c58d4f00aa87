"""What the reckoning of `scale` starts from: measured, published, assumed; and the stages."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.inspection import read_metadata

# Published, not measured here: photos a second of Xception at 299 px on an RTX 3090 by timm's
# tables (PyTorch, mixed precision, pytorch-image-models/results), the lower of those for training.
PUBLISHED_FORWARD, PUBLISHED_TRAINING = 1414.0, 386.0
# Another framework, data of its own, no input pipeline: half of what is published is reckoned with.
SHARE_OF_PUBLISHED = 0.5
MULTIPLICATIONS = {150: 1.92e9, 299: 8.36e9}  # Of one photo; counted.
# The default search: trials, their epochs, and the trainings after them with epochs at the most.
TRIALS, EPOCHS, AFTER, LONGEST = 90, 576, 26, 30
HEADS, PASSES, VIEWS = 5, 8, 4  # Of the final training.
WITHOUT_MODEL = ("prepare, with splits", "prepare, without", "check")
TRAIN, HELD_OUT = 0.8, 0.1  # Shares of all photos; validation and test have the same.


class Machine(NamedTuple):
    """A kind of machine that somebody may have.

    Attributes:
        name: What it is called in the tables.
        boxes: How many of them.
        cores: Of one box.
        gpus: Of one box.
        hourly: Dollars an hour for one box.
        gigabyte_hourly: Dollars an hour for one GB on disk.
        parallel: Share of all workers that have a trial while Hyperband runs.
    """

    name: str
    boxes: int
    cores: int
    gpus: int
    hourly: float
    gigabyte_hourly: float
    parallel: float


_DISK = 0.08 / 730  # Dollars for a GB of network disk, an hour.
# Assumptions of November 2026, none of them asked for: 60 W at $0.30 a kWh; a cloud box with one
# card; a box with eight. Hyperband's rounds shrink, so most workers of a cluster have no trial.
MACHINES = (
    Machine("laptop, 2 cores, no graphics card", 1, 2, 0, 0.06 * 0.30, 0.0, 1.0),
    Machine("box with one graphics card, 16 cores", 1, 16, 1, 0.70, _DISK, 1.0),
    Machine("cluster: 8 boxes of 8 graphics cards, 128 cores each", 8, 128, 8, 8.00, _DISK, 0.3),
)


class Stage(NamedTuple):
    """Some work of the pipeline.

    Attributes:
        name: What it is called in the tables.
        kind: What one unit of it is: `prepare`, `small` or `large` (a photo through the backbone at
            150 or 299 px), `maps` (the same at 299 px with its maps kept), `tune` (a photo in
            fine-tuning), `head` (a vector in training a head).
        amount: How many units.
        spreads: Whether more than one machine can share it.
        kept: Units whose outcome stays on disk.
        starts: Trainings that begin, each of which costs something.
    """

    name: str
    kind: str
    amount: float
    spreads: bool
    kept: float = 0.0
    starts: int = 0


def stages_of(count: int, machine: Machine) -> list[Stage]:
    """Return the stages of the whole pipeline for so many photos."""
    train, held_out = TRAIN * count, HELD_OUT * count
    searched, final = 2 * train + held_out, (VIEWS + 1) * train + held_out
    kind = "maps"
    if machine.gpus:  # Fine-tuning begins with photos there: no maps, vectors for the heads only.
        final, kind = searched, "large"
    passes = PASSES * (train + held_out / 3)  # Validation goes forward only.
    trained = (EPOCHS + AFTER * LONGEST) * train
    return [
        Stage("prepare", "prepare", count, spreads=False),
        Stage("vectors at 150 px", "small", searched, True, searched),
        Stage("search", "head", trained, True, starts=TRIALS + AFTER),
        Stage("vectors and maps at 299 px", kind, final, True, final),
        Stage("heads", "head", HEADS * 26 * train, spreads=False, starts=HEADS),
        Stage("fine-tuning", "tune", passes, spreads=False),
        Stage("calibration and test", "large", 2 * held_out, spreads=False),
        Stage("prediction of as many photos", "large", count, spreads=True),
    ]


class Units(NamedTuple):
    """What single photos cost: a second of the machine that measured gets through so many.

    Attributes:
        cores: Of the machine that measured.
        prepare: Photos prepared.
        small: Photos through the backbone at 150 px.
        large: The same at 299 px.
        maps: The same with their maps kept.
        tune: Photos in fine-tuning on maps.
        head: Vectors in the training of a head.
        start: Seconds that one more training costs, however short.
        card_small: Photos at 150 px on one graphics card.
        card_large: The same at 299 px.
        card_tune: Photos in fine-tuning on pixels there.
        vector_bytes: Of one view of a photo.
        map_bytes: The same.
        photo_bytes: A photo's file, on the average.
        link: Bytes on disk of one prepared photo, a link and a line.
        memory: By command: GB with 4 thousand photos, with 100 thousand.
        unmeasured: Commands that were measured with 4 thousand photos only.
        xception: GB that Xception takes more than the cheap backbone of that measurement.
        search: Seconds of the measured search, and of the same by these units.
        run: Where the measurement of memory comes from (see `command.provenance`).
    """

    cores: int
    prepare: float
    small: float
    large: float
    maps: float
    tune: float
    head: float
    start: float
    card_small: float
    card_large: float
    card_tune: float
    vector_bytes: int
    map_bytes: int
    photo_bytes: int
    link: int
    memory: dict[str, tuple[float, float]]
    unmeasured: list[str]
    xception: float
    search: tuple[float, float]
    run: dict

    def memory_gb(self, count: int) -> float:
        """Return the memory of the command that needs most, on a straight line through both."""
        return max(
            (0.0 if name in WITHOUT_MODEL else self.xception)
            + few
            + max(0.0, many - few) * (count - 4_000) / 96_000
            for name, (few, many) in self.memory.items()
        )


def read_units(results: Path) -> Units:
    """Gather the unit costs from what was measured."""

    def read(name: str) -> Any:
        return json.loads((results / name).read_text(encoding="utf-8"))

    units, memory, vectors = (
        read(f"benchmarks/{name}.json") for name in ("units", "memory", "vectors")
    )
    predictions, search, ran = (
        read(name)
        for name in ("benchmarks/predictions.json", "benchmarks/search.json", "search/search.json")
    )
    photos, held_out, tune, head = _training(results / "final")
    card = SHARE_OF_PUBLISHED * PUBLISHED_FORWARD
    small = vectors["photos"] / statistics.median(one["view 1"] for one in vectors["seconds"])
    start = search["ours"]["seconds_more_a_trial"]
    trained = (EPOCHS + AFTER * LONGEST) * photos
    reckoned = (2 * photos + held_out) / small + trained / head + (TRIALS + AFTER) * start
    return Units(
        cores=2,
        prepare=units["prepare"]["undisturbed"],
        small=small,
        large=predictions["photos"]
        / statistics.median(one["ours"] for one in predictions["seconds_of_rounds"]),
        maps=units["maps"]["undisturbed"],
        tune=tune,
        head=head,
        start=start,
        card_small=card * MULTIPLICATIONS[299] / MULTIPLICATIONS[150],
        card_large=card,
        card_tune=SHARE_OF_PUBLISHED * PUBLISHED_TRAINING,
        vector_bytes=units["bytes"]["vector"],
        map_bytes=units["bytes"]["map"],
        photo_bytes=units["bytes"]["photo"],
        link=units["bytes"]["prepared"],
        memory=_measured_twice(memory["commands"]),
        unmeasured=[name for name, one in memory["commands"].items() if "100000" not in one],
        xception=memory["constant_gb"]["xception"] - memory["constant_gb"]["cheap"],
        search=(ran["run"]["seconds"], reckoned),
        run=memory["runs"][0],
    )


def _training(results: Path) -> tuple[int, int, float, float]:
    """Return photos for training and validation, and how many a second fine-tuning and heads do."""
    stages = _seconds_by_stage(results / "history.csv")
    counts = read_metadata(results / "fashion.keras")["data"]["photos"]
    photos, held_out = counts["train"], counts["validation"]
    tune = (photos + held_out / 3) / stages["fine-tuning"]
    return photos, held_out, tune, photos / stages["head 1"]


def _measured_twice(commands: dict[str, dict]) -> dict[str, tuple[float, float]]:
    return {
        name: (one["4000"]["gb"], one["100000"]["gb"])
        for name, one in commands.items()
        if {"4000", "100000"} <= one.keys()
    }


def _seconds_by_stage(file: Path) -> dict[str, float]:
    """Return the median seconds of an epoch of each stage of the released run."""
    with file.open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    return {
        stage: statistics.median(float(row["seconds"]) for row in rows if row["stage"] == stage)
        for stage in {row["stage"] for row in rows}
    }
