"""Divides photos that come without splits: by class, near duplicates on one side."""

import collections
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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


# Hashes that differ in three bits agree in at least three of these six parts.
_PARTS = [
    (2**bits - 1) << first
    for first, bits in zip((0, 11, 22, 33, 44, 54), (11,) * 4 + (10,) * 2, strict=True)
]
_QUARTERS = [0xFFFF << first for first in (0, 16, 32, 48)]
_AT_ONCE = 2**16  # Pairs of thumbnails.


class Looks(NamedTuple):
    """What a photo looks like, in few numbers, one row for each turn of it.

    Attributes:
        hashes: 64 bits that say where the photo gets brighter from left to right on an 8 x 8 grid
            (dHash: Krawetz 2013, "Kind of like that"). Copies differ in few bits. `(turns,)`
            uint64.
        thumbnails: The photo at 8 x 8 pixels, `(turns, 192)` uint8.
    """

    hashes: np.ndarray
    thumbnails: np.ndarray


def looks_of(image: Image.Image) -> Looks:
    """Return what a photo looks like in each of `TURNS`."""
    square = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    return look_at([turn(square) for turn in TURNS.values()])


def look_at(turns: Sequence[np.ndarray]) -> Looks:
    """Return what a photo looks like.

    Args:
        turns: The photo in one or more turns, each `(height, width, 3)` uint8.
    """
    photos = [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in turns]
    box = Image.Resampling.BOX
    grey = np.stack([np.asarray(photo.convert("L").resize((9, 8), box)) for photo in photos])
    brighter = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(len(photos), 64)
    hashes = np.packbits(brighter, axis=1).view(">u8").astype("uint64")[:, 0]
    return Looks(
        hashes, np.stack([np.asarray(photo.resize((8, 8), box)).ravel() for photo in photos])
    )


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
        first = min(waiting, key=len)
        chosen, left, photos = [first], [], len(first)
        for group in waiting:
            if group is not first and photos + len(group) <= wanted:
                chosen.append(group)
                photos += len(group)
            elif group is not first:
                left.append(group)
        waiting = left
        for number in itertools.chain(*chosen):
            splits[number] = split


def group_copies(looks: Sequence[Looks], digests: Sequence[str]) -> list[list[int]]:
    """Put photos together that show the same in any of eight turns, or are the same file.

    Args:
        looks: `looks_of` each photo.
        digests: Hash of each photo's bytes; it tells copies whose looks say nothing.

    Returns:
        Groups of places; most hold one photo.
    """
    first: dict[str, int] = {}
    same = [(first.setdefault(digest, number), number) for number, digest in enumerate(digests)]
    files = list(first.values())
    alike = _near_pairs([looks[number] for number in files])
    pairs = ((files[one], files[other]) for one, other in alike)
    return _joined(len(looks), itertools.chain(same, pairs))


def near_duplicates(looks: Sequence[Looks]) -> list[list[int]]:
    """Put photos together that are resized, re-encoded or slightly brightened copies.

    Their hashes differ in at most three bits and agree in at least one of their four 16-bit
    quarters. A quarter without a bit is no reason: it is the plain background that all photos of a
    shop share.

    Returns:
        Groups of indices into `looks`; most hold one photo.
    """
    return _joined(len(looks), _near_pairs(looks))


def _near_pairs(looks: Sequence[Looks]) -> Iterator[tuple[int, int]]:
    if not looks:
        return
    photos = np.repeat(np.arange(len(looks)), [len(look.hashes) for look in looks])
    thumbnails = np.concatenate([look.thumbnails for look in looks])
    for one, other in _near_hashes(np.concatenate([look.hashes for look in looks])):
        # Hashes alone would join different garments on the same white ground.
        apart = np.abs(thumbnails[one].astype("int16") - thumbnails[other]).mean(axis=1)
        alike = apart <= _NEAR_LEVELS
        yield from zip(photos[one[alike]].tolist(), photos[other[alike]].tolist(), strict=True)


def _near_hashes(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of hashes that differ in few bits, often the same ones more than once.

    Only hashes that agree in three parts are compared, by sorting them by these parts: so the
    work hardly grows faster than the number of photos.
    """
    for parts in itertools.combinations(_PARTS, 3):
        keys = hashes & np.uint64(sum(parts))
        order = np.argsort(keys)
        keys = keys[order]
        rows, gap = np.arange(len(keys) - 1), 1
        while len(rows := rows[: np.searchsorted(rows, len(keys) - gap)]):
            rows = rows[keys[rows] == keys[rows + gap]]
            yield from _compared(hashes, order[rows], order[rows + gap])
            gap += 1


def _compared(
    hashes: np.ndarray, ones: np.ndarray, others: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield those pairs, in parts, that differ in few bits and share more than a plain quarter."""
    for start in range(0, len(ones), _AT_ONCE):
        one, other = ones[start : start + _AT_ONCE], others[start : start + _AT_ONCE]
        first, differing = hashes[one], hashes[one] ^ hashes[other]
        near = np.bitwise_count(differing) <= _NEAR_BITS
        shared = [
            (first & np.uint64(part) > 0) & (differing & np.uint64(part) == 0) for part in _QUARTERS
        ]
        near &= np.any(shared, axis=0)
        yield one[near], other[near]


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the numbers up to `count` so that both of each pair are in the same group."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]  # The next way is shorter.
            number = parent[number]
        return number

    for one, other in pairs:
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for number in range(count):
        groups[root(number)].append(number)
    return list(groups.values())
