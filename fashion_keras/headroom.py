"""How much memory a batch needs, and how much is left; for computing on the CPU.

There TensorFlow mostly dies of too little memory (or is killed for it) instead of saying so, so
that what cannot fit must not be tried. Graphics cards say so; see `memory`.
"""

import math
import sys
from pathlib import Path
from typing import Any

import keras

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None

# Peak memory over that of the largest layer's output, or of all outputs together (measured). Batch
# normalisation that learns, too, keeps more for it.
_FORWARD, _TRAINING, _NEW = 5.0, 1.25, 1.9
_SHARE = 0.8  # Of what is left is used.
_GROUP = Path("/sys/fs/cgroup")


def parts_that_fit(needed: float, photos: int, what: str) -> int:
    """Return in how many equal parts a batch fits into the memory that is left; say so if not one.

    Args:
        needed: Bytes for one photo (see `for_forward`, `for_training`).
        photos: Photos in a batch.
        what: What is done, for the line that says so.

    Returns:
        1 where it fits whole, or graphics cards compute, or what is left is not known.
    """
    most, left = _most(needed, photos)
    parts = next(
        parts for parts in range(1, photos + 1) if not photos % parts and photos <= most * parts
    )
    _say(needed, photos, left, photos // parts, what)
    return parts


def photos_that_fit(needed: float, photos: int, what: str) -> int:
    """Return how many of a batch's photos fit at a time; say so if not all.

    Args:
        needed: See `parts_that_fit`.
        photos: See `parts_that_fit`.
        what: See `parts_that_fit`.
    """
    most, left = _most(needed, photos)
    _say(needed, photos, left, most, what)
    return most


def _most(needed: float, photos: int) -> tuple[int, float]:
    """Return how many photos fit at a time, at least one, and the bytes that are left."""
    left = memory_left()
    if left is None or keras.distribution.list_devices("gpu") or needed * photos <= _SHARE * left:
        return photos, 0.0
    return max(1, int(_SHARE * left / needed)), left


def _say(needed: float, photos: int, left: float, going_on: int, what: str) -> None:
    if going_on < photos:
        print(
            f"{what}: {photos} photos at once take about {needed * photos / 1e9:.1f} GB of "
            f"memory, {left / 1e9:.1f} GB are free: going on with {going_on}",
            file=sys.stderr,  # On standard output rows may stand.
            flush=True,
        )


def for_forward(backbone: keras.Model, size: int) -> float:
    """Return the bytes that one photo of so many pixels a side needs on its way through."""
    return _FORWARD * max(_outputs(backbone, size))


def for_training(backbone: keras.Model, size: int, fine_tune_from: str | None) -> float:
    """Return the bytes that one photo needs to train what lies above a cut, or everything."""
    names = [layer.name.partition("_")[0] for layer in backbone.layers]
    return _TRAINING * sum(
        _outputs(backbone, size)[names.index(fine_tune_from) if fine_tune_from else 0 :]
    )


def for_new_backbone(backbone: keras.Model, size: int) -> float:
    """Return the bytes that one photo needs to train everything from random weights."""
    return _NEW * sum(_outputs(backbone, size))


def _outputs(backbone: keras.Model, size: int) -> list[int]:
    """Return the bytes of each layer's output for one photo."""
    every = keras.Model(backbone.inputs, [layer.output for layer in backbone.layers])
    shapes: Any = every.compute_output_shape((1, size, size, 3))
    return [4 * math.prod(one[1:]) for one in shapes]


def memory_left() -> int | None:
    """Return the bytes that machine, container and process limit leave; None if not known."""
    known = [left for left in (_of_machine(), _of_group(), _of_process()) if left is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    return _field(Path("/proc/meminfo"), "MemAvailable:")


def _of_group() -> int | None:
    """Return what the control groups leave that this process is in (of version 2)."""
    own = Path("/proc/self/cgroup")
    told = own.read_text().splitlines() if own.exists() else []
    name = next((line[3:].strip("/") for line in told if line.startswith("0::")), "")
    group = _GROUP / name
    groups = [one for one in (group, *group.parents) if one.is_relative_to(_GROUP)]
    known = [left for one in groups if (left := _left_in(one)) is not None]
    return min(known, default=None)


def _left_in(group: Path) -> int | None:
    most = group / "memory.max"
    if not most.exists() or not most.read_text().strip().isdigit():
        return None
    used = int((group / "memory.current").read_text())
    cached = next(
        int(line.split()[1])
        for line in (group / "memory.stat").read_text().splitlines()
        if line.startswith("inactive_file ")
    )
    return int(most.read_text()) - used + cached


def _of_process() -> int | None:
    used = _field(Path("/proc/self/status"), "VmSize:")
    if resource is None or used is None:
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    # Of addresses twice as many are used up as memory: each thread reserves some.
    return None if most == resource.RLIM_INFINITY else (most - used) // 2


def _field(file: Path, name: str) -> int | None:
    """Return a number of kB from one of Linux's tables, in bytes."""
    lines = file.read_text().splitlines() if file.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)
