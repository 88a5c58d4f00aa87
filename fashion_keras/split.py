"""Divides photos that come without splits: by class, near duplicates on one side."""

import collections
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fashion_keras.config import InputError

_SHARES = {"test": 0.1, "validation": 0.1}  # Of each class; the rest is for training.
_NEAR = 3  # Photos whose hashes differ in at most so many bits are near duplicates.


def difference_hash(pixels: np.ndarray) -> int:
    """Return 64 bits that say where a photo gets brighter from left to right on an 8 x 8 grid.

    Resized, re-encoded or slightly brightened copies differ in few bits. Source: Krawetz 2013,
    "Kind of like that" (dHash).

    Args:
        pixels: `(height, width, 3)` uint8.
    """
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX))
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def assign_splits(labels: Sequence[str], hashes: Sequence[int], seed: int) -> list[str]:
    """Give each photo a split: 80 % train, 10 % validation and 10 % test of each class.

    Near duplicates stay together, or the test would ask for photos seen in training.

    Args:
        labels: Class of each photo.
        hashes: `difference_hash` of each photo.
        seed: Another seed gives another division.

    Returns:
        `train`, `validation` or `test` for each photo.

    Raises:
        InputError: If a class has too few different photos to be in all three.
    """
    by_label: dict[str, list[list[int]]] = collections.defaultdict(list)
    for group in near_duplicates(hashes):
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


def near_duplicates(hashes: Sequence[int]) -> list[list[int]]:
    """Put photos whose hashes differ in at most three bits together.

    Such hashes agree in at least one of their four 16-bit quarters, so only photos that share
    a quarter are compared.

    Returns:
        Groups of indices into `hashes`; most hold one photo.
    """
    parent = list(range(len(hashes)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for quarter in range(4):
        sharing: dict[int, list[int]] = collections.defaultdict(list)
        for number, value in enumerate(hashes):
            candidates = sharing[value >> 16 * quarter & 0xFFFF]
            for other in candidates:
                if (value ^ hashes[other]).bit_count() <= _NEAR:
                    parent[root(number)] = root(other)
            candidates.append(number)
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for number in range(len(hashes)):
        groups[root(number)].append(number)
    return list(groups.values())
