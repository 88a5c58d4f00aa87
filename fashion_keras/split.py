"""Divides photos that come without splits: by class, near duplicates on one side."""

import collections
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.config import InputError

_SHARES = {"test": 0.1, "validation": 0.1}  # Of each class; the rest is for training.
# Near duplicates differ in at most so many bits of their hashes, and on average in at most so many
# levels (of 255) of their thumbnails.
_NEAR_BITS = 3
_NEAR_LEVELS = 4
_SIDE = 72  # Of the square that looks are taken from: a multiple of 9 and 8, the grids of a look.
# What a copy may have been through, the first being nothing.
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda pixels: pixels,
    "turned by 90 degrees": lambda pixels: np.rot90(pixels, 1),
    "turned by 180 degrees": lambda pixels: np.rot90(pixels, 2),
    "turned by 270 degrees": lambda pixels: np.rot90(pixels, 3),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "mirrored and turned by 90 degrees": lambda pixels: np.rot90(pixels[:, ::-1], 1),
    "upside down": lambda pixels: pixels[::-1],
    "mirrored and turned by 270 degrees": lambda pixels: np.rot90(pixels[:, ::-1], 3),
}


class Look(NamedTuple):
    """What a photo looks like, in few numbers.

    Attributes:
        hash: 64 bits that say where the photo gets brighter from left to right on an 8 x 8 grid
            (dHash: Krawetz 2013, "Kind of like that"). Copies differ in few bits.
        thumbnail: The photo at 8 x 8 pixels, `(192,)` int16.
    """

    hash: int
    thumbnail: np.ndarray


def look_of(pixels: np.ndarray) -> Look:
    """Return what a photo looks like.

    Args:
        pixels: `(height, width, 3)` uint8.
    """
    photo = Image.fromarray(pixels)
    grey = np.asarray(photo.convert("L").resize((9, 8), Image.Resampling.BOX))
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    thumbnail = np.asarray(photo.resize((8, 8), Image.Resampling.BOX)).ravel().astype("int16")
    return Look(int("".join("1" if bit else "0" for bit in bits), 2), thumbnail)


def looks_of(image: Image.Image) -> tuple[Look, ...]:
    """Return what a photo looks like in each of `TURNS`."""
    square = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    return tuple(look_of(np.ascontiguousarray(turn(square))) for turn in TURNS.values())


def assign_splits(labels: Sequence[str], groups: Sequence[Sequence[int]], seed: int) -> list[str]:
    """Give each photo a split: 80 % train, 10 % validation and 10 % test of each class.

    Copies stay together, or the test would ask for photos seen in training.

    Args:
        labels: Class of each photo.
        groups: Copies, by their places; a photo without copies is alone (see `group_copies`).
        seed: Another seed gives another division.

    Returns:
        `train`, `validation` or `test` for each photo.

    Raises:
        InputError: If a class has too few different photos to be in all three.
    """
    by_label: dict[str, list[Sequence[int]]] = collections.defaultdict(list)
    for group in groups:
        by_label[labels[group[0]]].append(group)
    splits = ["train"] * len(labels)
    for label in sorted(set(labels)):
        own = by_label[label]
        if len(own) < 3:
            raise InputError(
                f"The class {label!r} has {len(own)} different photos; splitting into train, "
                "validation and test needs at least 3. Add photos, or make the split folders."
            )
        random.Random(f"{seed} {label}").shuffle(own)  # noqa: S311 -- nothing secret.
        _fill(splits, own)
    return splits


def _fill(splits: list[str], groups: Sequence[Sequence[int]]) -> None:
    """Fill test and validation with whole groups, at least one each; the rest stays train.

    A group too large for what is wanted stays train; so many copies would distort a score.
    """
    total = sum(len(group) for group in groups)
    waiting = list(groups)
    for split, share in _SHARES.items():
        wanted = max(round(share * total), 1)
        chosen = [min(waiting, key=len)]
        for group in waiting:
            if group is not chosen[0] and sum(map(len, chosen)) + len(group) <= wanted:
                chosen.append(group)
        waiting = [group for group in waiting if group not in chosen]
        for group in chosen:
            for number in group:
                splits[number] = split


def group_copies(looks: Sequence[Sequence[Look]], digests: Sequence[str]) -> list[list[int]]:
    """Put photos together that show the same in any of eight turns, or are the same file.

    Args:
        looks: `looks_of` each photo.
        digests: Hash of each photo's bytes; it tells copies whose looks say nothing.

    Returns:
        Groups of places; most hold one photo.
    """
    turned = [look for photo in looks for look in photo]
    alike = [[entry // len(TURNS) for entry in group] for group in near_duplicates(turned)]
    same: dict[str, list[int]] = collections.defaultdict(list)
    for number, digest in enumerate(digests):
        same[digest].append(number)
    return _joined(
        len(looks), ((group[0], other) for group in [*alike, *same.values()] for other in group[1:])
    )


def near_duplicates(looks: Sequence[Look]) -> list[list[int]]:
    """Put photos together that are resized, re-encoded or slightly brightened copies.

    Hashes that differ in at most three bits agree in at least one of their four 16-bit quarters,
    so only photos that share a quarter are compared. A quarter without a bit is no reason: it is
    the plain background that all photos of a shop share.

    Returns:
        Groups of indices into `looks`; most hold one photo.
    """
    return _joined(len(looks), _near_pairs(looks))


def _near_pairs(looks: Sequence[Look]) -> Iterable[tuple[int, int]]:
    for quarter in range(4):
        sharing: dict[int, list[int]] = collections.defaultdict(list)
        for number, look in enumerate(looks):
            bits = look.hash >> 16 * quarter & 0xFFFF
            for other in sharing[bits] if bits else ():
                if _alike(look, looks[other]):
                    yield number, other
            sharing[bits].append(number)


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the numbers up to `count` so that both of each pair are in the same group."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for one, other in pairs:
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for number in range(count):
        groups[root(number)].append(number)
    return list(groups.values())


def _alike(one: Look, other: Look) -> bool:
    # Hashes alone would join different garments on the same white ground.
    if (one.hash ^ other.hash).bit_count() > _NEAR_BITS:
        return False
    return bool(np.abs(one.thumbnail - other.thumbnail).mean() <= _NEAR_LEVELS)
