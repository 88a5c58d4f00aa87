"""Splits photos 80/10/10 by class, with duplicates of a photo in the same split."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.config import InputError

_SHARE = 0.1  # Of each class, for test and validation each; the rest is for training.
# Near-duplicates differ in at most so many bits of their hashes, and on average in at most so many
# levels (of 255) of their thumbnails.
_NEAR_BITS = 3
_NEAR_LEVELS = 4
_SIDE = 72  # Of the square that is hashed: a multiple of 9 and 8, the sides of the hash's grid.
FOLDS = 5
TURNS = (None, *Image.Transpose)  # What a duplicate may have been through.


class PerceptualHash(NamedTuple):
    """A photo in few numbers that hardly differ for near-duplicates, one row for each turn of it.

    Attributes:
        hashes: 64 bits that say where the photo gets brighter from left to right on an 8 x 8 grid
            (dHash: Krawetz 2013, "Kind of like that"). `(turns,)` uint64.
        thumbnails: The photo at 8 x 8 pixels, `(turns, 192)` uint8.
    """

    hashes: np.ndarray
    thumbnails: np.ndarray


def perceptual_hash(image: Image.Image) -> PerceptualHash:
    """Return the perceptual hash of a photo in each of `TURNS`."""
    box = Image.Resampling.BOX
    square = image.convert("RGB").resize((_SIDE, _SIDE), box)
    photos = [square if turn is None else square.transpose(turn) for turn in TURNS]
    grey = np.stack([np.asarray(photo.convert("L").resize((9, 8), box)) for photo in photos])
    brighter = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(len(photos), 64)
    hashes = np.packbits(brighter, axis=1).view(">u8").astype("uint64")[:, 0]
    thumbnails = np.stack([np.asarray(photo.resize((8, 8), box)).ravel() for photo in photos])
    return PerceptualHash(hashes, thumbnails)


def assign_splits(
    labels: Sequence[str],
    groups: Sequence[Sequence[int]],
    seed: int,
    missing: Sequence[str] = ("test", "validation"),
) -> list[str]:
    """Return the split of each photo: 10 % of each class for each missing split, the rest train.

    Duplicates stay together; otherwise the test would contain photos seen in training.

    Args:
        labels: Class of each photo.
        groups: Photos by number, duplicates in the same group (see `group_duplicates`).
        seed: Decides which photos go where.
        missing: Splits to fill.

    Raises:
        InputError: If a class has too few different photos to be in all of them.
    """
    splits = ["train"] * len(labels)
    for label in sorted(set(labels)):
        own = [group for group in groups if labels[group[0]] == label]
        if len(own) <= len(missing):
            raise InputError(
                f"The class {label!r} has {len(own)} different photos; splitting into train and "
                f"{' and '.join(sorted(missing, reverse=True))} needs at least {len(missing) + 1}. "
                "Add photos, or make the split folders."
            )
        random.Random(f"{seed} {label}").shuffle(own)  # noqa: S311 -- nothing secret.
        _fill(splits, own, missing)
    return splits


def _fill(splits: list[str], groups: list[Sequence[int]], missing: Sequence[str]) -> None:
    """Fill the missing splits with whole groups, at least one each; the rest stays train.

    A group larger than what is wanted stays train; so many duplicates would distort a score.
    """
    wanted = max(round(_SHARE * sum(map(len, groups))), 1)
    for split in missing:
        chosen: list[int] = []
        for group in [min(groups, key=len), *groups]:
            if (not chosen or len(chosen) + len(group) <= wanted) and group in groups:
                chosen += group
                groups.remove(group)
        for number in chosen:
            splits[number] = split


def deal_folds(numbers: np.ndarray, groups: Sequence[Sequence[int]], seed: int) -> np.ndarray:
    """Return the fold of each photo: each class is spread evenly, copies of a photo stay together.

    `numbers` are the class numbers of the photos; `groups` hold the places of copies.
    """
    leader = np.arange(len(numbers))
    for group in groups:
        leader[list(group)] = min(group)
    leaders = np.random.default_rng(seed).permutation(np.unique(leader))
    by_class = leaders[np.argsort(numbers[leaders], kind="stable")]
    folds = np.empty(len(numbers), dtype=int)
    folds[by_class] = np.arange(len(by_class)) % FOLDS
    return folds[leader]


def group_duplicates(hashes: Sequence[PerceptualHash], digests: Sequence[str]) -> list[list[int]]:
    """Group photos that are the same file or near-duplicates: resized, re-encoded, turned, ...

    Their hashes, in any two turns, differ in at most three bits and agree in at least one of their
    four 16-bit quarters that is not zero: a plain background, which all photos of a shop share, is
    no evidence. Their thumbnails have nearly the same colours.

    Args:
        hashes: `perceptual_hash` of each photo.
        digests: Hash of each photo's bytes.

    Returns:
        Groups of photos by number; most hold one photo.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not hashes:
        return []
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, number), number) for number, digest in enumerate(digests)]
    files = list(first.values())
    near = _near_pairs([hashes[number] for number in files])
    pairs += [(files[one], files[other]) for one, other in near]
    graph = coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(len(hashes), len(hashes)))
    group_of = connected_components(graph, directed=False)[1]
    ends = np.bincount(group_of).cumsum()[:-1]
    return [group.tolist() for group in np.split(np.argsort(group_of, kind="stable"), ends)]


def _near_pairs(photos: Sequence[PerceptualHash]) -> Iterator[tuple[int, int]]:
    owners = np.repeat(np.arange(len(photos)), [len(photo.hashes) for photo in photos])
    thumbnails = np.concatenate([photo.thumbnails for photo in photos])
    for one, other in _near_hashes(np.concatenate([photo.hashes for photo in photos])):
        # Hashes alone would join different garments on the same white background.
        apart = np.abs(thumbnails[one].astype("int16") - thumbnails[other]).mean(axis=1)
        near = apart <= _NEAR_LEVELS
        yield from zip(owners[one[near]].tolist(), owners[other[near]].tolist(), strict=True)


def _near_hashes(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of hashes that differ in few bits, often the same ones more than once.

    Only hashes that agree in a quarter are compared: they are next to each other when sorted.
    """
    for first in (0, 16, 32, 48):
        keys = hashes & np.uint64(0xFFFF << first)
        order = np.argsort(keys)[np.count_nonzero(keys == 0) :]
        keys = keys[order]
        rows, gap = np.arange(len(keys)), 1
        while len(rows := rows[rows < len(keys) - gap]):
            rows = rows[keys[rows] == keys[rows + gap]]
            one, other = order[rows], order[rows + gap]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= _NEAR_BITS
            yield one[near], other[near]
            gap += 1
