"""Divides photos that come without splits: by class, near duplicates on one side."""

import collections
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.config import InputError

_SHARES = {"test": 0.1, "validation": 0.1}  # Of each class; the rest is for training.
# Near duplicates differ in at most so many bits of their hashes, and on average in at most so many
# levels (of 255) of their thumbnails.
_NEAR_BITS = 3
_NEAR_LEVELS = 4


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


def assign_splits(labels: Sequence[str], looks: Sequence[Look], seed: int) -> list[str]:
    """Give each photo a split: 80 % train, 10 % validation and 10 % test of each class.

    Near duplicates stay together, or the test would ask for photos seen in training.

    Args:
        labels: Class of each photo.
        looks: `look_of` each photo.
        seed: Another seed gives another division.

    Returns:
        `train`, `validation` or `test` for each photo.

    Raises:
        InputError: If a class has too few different photos to be in all three.
    """
    by_label: dict[str, list[list[int]]] = collections.defaultdict(list)
    for group in near_duplicates(looks):
        by_label[labels[group[0]]].append(group)
    splits = ["train"] * len(labels)
    for label in sorted(set(labels)):
        groups = by_label[label]
        if len(groups) < 3:
            raise InputError(
                f"The class {label!r} has {len(groups)} different photos; splitting into train, "
                "validation and test needs at least 3. Add photos, or make the split folders."
            )
        random.Random(f"{seed} {label}").shuffle(groups)  # noqa: S311 -- nothing secret.
        _fill(splits, groups)
    return splits


def _fill(splits: list[str], groups: list[list[int]]) -> None:
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


def near_duplicates(looks: Sequence[Look]) -> list[list[int]]:
    """Put photos together that are resized, re-encoded or slightly brightened copies.

    Hashes that differ in at most three bits agree in at least one of their four 16-bit quarters,
    so only photos that share a quarter are compared. A quarter without a bit is no reason: it is
    the plain background that all photos of a shop share.

    Returns:
        Groups of indices into `looks`; most hold one photo.
    """
    parent = list(range(len(looks)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for quarter in range(4):
        sharing: dict[int, list[int]] = collections.defaultdict(list)
        for number, look in enumerate(looks):
            bits = look.hash >> 16 * quarter & 0xFFFF
            for other in sharing[bits] if bits else ():
                if _alike(look, looks[other]):
                    parent[root(number)] = root(other)
            sharing[bits].append(number)
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for number in range(len(looks)):
        groups[root(number)].append(number)
    return list(groups.values())


def _alike(one: Look, other: Look) -> bool:
    # Hashes alone would join different garments on the same white ground.
    if (one.hash ^ other.hash).bit_count() > _NEAR_BITS:
        return False
    return bool(np.abs(one.thumbnail - other.thumbnail).mean() <= _NEAR_LEVELS)
