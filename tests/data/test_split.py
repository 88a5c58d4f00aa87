"""Tests of splitting: which photos are duplicates, and which photos go where."""

import collections
import io
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.data.sample import draw_photo
from fashion_keras.data.split import (
    TURNS,
    PerceptualHash,
    assign_splits,
    group_duplicates,
    perceptual_hash,
)

BASE = 0x0123_4567_89AB_CDEF


def flipped(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def grey(*values: int, level: int = 100) -> list[PerceptualHash]:
    """Return photos of one grey with these hashes."""
    thumbnails = np.full((1, 192), level, "uint8")
    return [PerceptualHash(np.array([value], "uint64"), thumbnails) for value in values]


def grouped(photos: Sequence[PerceptualHash]) -> list[list[int]]:
    """Return groups of photos in different files."""
    return group_duplicates(photos, [str(number) for number in range(len(photos))])


def distinct(count: int) -> list[int]:
    """Return hashes of which any two differ in many bits."""
    generator = np.random.default_rng(1)
    return [int.from_bytes(generator.bytes(8), "big") for _ in range(count)]


def drawn(label: str) -> Image.Image:
    return draw_photo(label, np.random.default_rng([1, len(label)]), 240, 320)


def shares(labels: Sequence[str], splits: Sequence[str]) -> dict[tuple[str, str], int]:
    return dict(collections.Counter(zip(labels, splits, strict=True)))


def test_bits_of_a_hash_say_where_a_photo_gets_brighter() -> None:
    ramp = np.arange(9, dtype="uint8")[None, :, None].repeat(8, axis=0).repeat(3, axis=2) * 20
    spot = np.zeros((8, 9, 3), "uint8")
    spot[0, 1] = 200
    hashes = [
        perceptual_hash(Image.fromarray(one)).hashes[0] for one in (ramp, ramp[:, ::-1], spot)
    ]
    assert hashes == [2**64 - 1, 0, 1 << 63]
    assert perceptual_hash(Image.new("RGB", (1, 1), "red")).thumbnails.shape == (8, 192)


def test_resized_brightened_turned_and_mirrored_photos_are_duplicates() -> None:
    photo, file = drawn("dress"), io.BytesIO()
    photo.resize((120, 160)).save(file, "JPEG", quality=60)
    brighter = photo.point([min(255, value + 4) for value in range(256)] * 3)
    turned = [Image.fromarray(turn(np.asarray(photo))) for turn in TURNS.values()]
    photos = [drawn("pants"), *turned, Image.open(file), brighter, drawn("hat"), drawn("t-shirt")]
    groups = grouped([perceptual_hash(one) for one in photos])
    assert groups == [[0], [*range(1, 11)], [11], [12]]


def test_the_same_file_is_a_duplicate_even_of_a_plain_photo() -> None:
    plain = perceptual_hash(Image.new("RGB", (40, 40), "red"))
    assert group_duplicates([plain] * 3, ["a", "b", "a"]) == [[0, 2], [1]]
    assert group_duplicates([], []) == []


@pytest.mark.parametrize("bits", [(), (0,), (0, 20, 40), (20, 40, 60), (0, 40, 60), (0, 20, 60)])
def test_hashes_that_differ_in_three_bits_belong_together(bits: tuple[int, ...]) -> None:
    assert grouped(grey(BASE, flipped(BASE, *bits))) == [[0, 1]]


# The last differ in three bits, one in each quarter that is not plain.
@pytest.mark.parametrize(
    ("one", "bits"),
    [(BASE, (0, 20, 40, 60)), (BASE, (0, 1, 2, 3)), (0x0001_0001_0001_0000, (17, 33, 49))],
)
def test_hashes_that_differ_more_or_share_only_background_do_not(
    one: int, bits: tuple[int, ...]
) -> None:
    assert grouped(grey(one, flipped(one, *bits))) == [[0], [1]]


def test_the_same_are_found_as_by_comparing_all_with_all() -> None:
    generator = np.random.default_rng(2)
    values = [value & (2**40 - 1) for value in distinct(40)]
    values += [
        flipped(value, *generator.choice(64, size=size, replace=False).tolist())
        for value in values
        for size in (1, 2, 3, 4, 5)
    ]

    def near(one: int, other: int) -> bool:
        quarters = [0xFFFF << first for first in (0, 16, 32, 48)]
        shared = any(one & part and not (one ^ other) & part for part in quarters)
        return shared and (one ^ other).bit_count() <= 3

    groups = grouped(grey(*values))
    group_of = {number: place for place, group in enumerate(groups) for number in group}
    pairs = [
        pair
        for pair in itertools.combinations(range(len(values)), 2)
        if near(*(values[number] for number in pair))
    ]
    assert all(group_of[one] == group_of[other] for one, other in pairs)
    joined = {number for pair in pairs for number in pair}
    assert [group for group in groups if len(group) > 1 and not joined.issuperset(group)] == []
    assert 40 < len(groups) < len(values)


def test_groups_are_joined_by_a_photo_between_them() -> None:
    ends = [BASE, flipped(BASE, 0, 1, 2, 3, 4, 5)]
    assert grouped(grey(*ends)) == [[0], [1]]
    assert grouped(grey(*ends, flipped(BASE, 0, 1, 2))) == [[0, 1, 2]]


def test_photos_with_one_hash_but_other_colours_stay_apart() -> None:
    photos = [*grey(BASE), *grey(BASE, level=104), *grey(BASE, level=110)]
    assert grouped(photos) == [[0, 1], [2]]


def test_different_garments_on_the_same_white_background_stay_apart() -> None:
    photos = []
    for number in range(12):
        pixels = np.full((80, 60, 3), 255, "uint8")
        pixels[20 + number : 70, 15:45] = 20 * number
        photos.append(perceptual_hash(Image.fromarray(pixels)))
    assert grouped(photos) == [[number] for number in range(12)]


def test_shares_are_80_10_10_by_class() -> None:
    labels = ["hat"] * 100 + ["shoes"] * 20
    counts = shares(labels, assign_splits(labels, grouped(grey(*distinct(120))), seed=1))
    assert counts == {
        ("hat", "train"): 80,
        ("hat", "validation"): 10,
        ("hat", "test"): 10,
        ("shoes", "train"): 16,
        ("shoes", "validation"): 2,
        ("shoes", "test"): 2,
    }


@pytest.mark.parametrize("count", [3, 4, 9, 14])
def test_each_class_is_in_each_split(count: int) -> None:
    labels = ["hat"] * count + ["shoes"] * count
    counts = shares(labels, assign_splits(labels, grouped(grey(*distinct(2 * count))), seed=1))
    for label in ("hat", "shoes"):
        assert (counts[label, "validation"], counts[label, "test"]) == (1, 1)
        assert counts[label, "train"] == count - 2


def test_seed_decides_each_class_by_itself() -> None:
    groups = grouped(grey(*distinct(40)))
    both = ["hat"] * 20 + ["shoes"] * 20
    first = assign_splits(both, groups, seed=1)
    assert assign_splits(both, groups, seed=1) == first
    assert assign_splits(both, groups, seed=2) != first
    assert assign_splits(["hat"] * 20, groups[:20], seed=1) == first[:20]


@pytest.mark.parametrize("seed", range(1, 6))
def test_duplicates_are_in_one_split(seed: int) -> None:
    values = [flipped(value, bit) for value in distinct(20) for bit in (3, 30, 60)]
    splits = assign_splits(["hat"] * 60, grouped(grey(*values)), seed)
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert splits.count("test") == 6


@pytest.mark.parametrize("seed", range(1, 8))
def test_a_group_larger_than_a_share_stays_in_train(seed: int) -> None:
    groups = [list(range(12)), *([number] for number in range(12, 20))]
    splits = assign_splits(["hat"] * 20, groups, seed)
    assert splits[:12] == ["train"] * 12
    assert splits.count("test") == splits.count("validation") == 2


def test_class_with_too_few_different_photos_is_refused() -> None:
    groups = [[number] for number in range(6)] + [[6, 7]]
    labels = ["hat"] * 5 + ["shoes"] * 3
    advice = "'shoes' has 2 different photos; .* needs at least 3. Add photos, or make the split"
    with pytest.raises(InputError, match=advice):
        assign_splits(labels, groups, seed=1)
