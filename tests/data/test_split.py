"""Tests of splitting: which photos are duplicates, and which photos go where."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.data.sample import draw_photo
from fashion_keras.data.split import (
    PerceptualHash,
    assign_splits,
    deal_folds,
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


def test_resized_brightened_turned_and_mirrored_photos_are_duplicates():
    photo, file = drawn("dress"), io.BytesIO()
    photo.resize((120, 160)).save(file, "JPEG", quality=60)
    brighter = photo.point([min(255, value + 4) for value in range(256)] * 3)
    turned = [photo.transpose(turn) for turn in Image.Transpose]
    photos = [drawn("pants"), photo, *turned, Image.open(file), brighter, drawn("hat")]
    groups = grouped([perceptual_hash(one) for one in photos])
    assert groups == [[0], [*range(1, 11)], [11]]


def test_the_same_file_is_a_duplicate_even_of_a_plain_photo():
    plain = perceptual_hash(Image.new("RGB", (40, 40), "red"))
    assert group_duplicates([plain] * 3, ["a", "b", "a"]) == [[0, 2], [1]]
    assert group_duplicates([], []) == []


@pytest.mark.parametrize("bits", [(), (0,), (0, 20, 40), (20, 40, 60), (0, 40, 60), (0, 20, 60)])
def test_hashes_that_differ_in_three_bits_belong_together(bits):
    assert grouped(grey(BASE, flipped(BASE, *bits))) == [[0, 1]]


# The last differ in three bits, one in each quarter that is not plain.
@pytest.mark.parametrize(
    ("one", "bits"),
    [(BASE, (0, 20, 40, 60)), (BASE, (0, 1, 2, 3)), (0x0001_0001_0001_0000, (17, 33, 49))],
)
def test_hashes_that_differ_more_or_share_only_background_do_not(one, bits):
    assert grouped(grey(one, flipped(one, *bits))) == [[0], [1]]


def test_all_near_hashes_are_found_among_many():
    generator = np.random.default_rng(2)
    first = [value & (2**40 - 1) for value in distinct(60)]  # The first quarter of all is plain.
    places = [generator.choice(40, size=1 + number % 2, replace=False) for number in range(60)]
    second = [flipped(value, *bits.tolist()) for value, bits in zip(first, places, strict=True)]
    assert grouped(grey(*first, *second)) == [[number, number + 60] for number in range(60)]


def test_groups_are_joined_by_a_photo_between_them():
    ends = [BASE, flipped(BASE, 0, 1, 2, 3, 4, 5)]
    assert grouped(grey(*ends)) == [[0], [1]]
    assert grouped(grey(*ends, flipped(BASE, 0, 1, 2))) == [[0, 1, 2]]


def test_different_garments_on_the_same_white_background_stay_apart():
    photos = []
    for number in range(12):
        pixels = np.full((80, 60, 3), 255, "uint8")
        pixels[20 + number : 70, 15:45] = 20 * number
        photos.append(perceptual_hash(Image.fromarray(pixels)))
    assert grouped(photos) == [[number] for number in range(12)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (14, (12, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))],
)
def test_shares_of_each_class_are_80_10_10(count, expected):
    labels = ["hat"] * count + ["shoes"] * 30
    splits = assign_splits(labels, [[number] for number in range(len(labels))], seed=1)
    for own, counts in ((splits[:count], expected), (splits[count:], (24, 3, 3))):
        assert tuple(map(own.count, ("train", "validation", "test"))) == counts


def test_seed_decides_each_class_by_itself():
    groups = [[number] for number in range(40)]
    both = ["hat"] * 20 + ["shoes"] * 20
    first = assign_splits(both, groups, seed=1)
    assert assign_splits(both, groups, seed=1) == first
    assert assign_splits(both, groups, seed=2) != first
    assert assign_splits(["hat"] * 20, groups[:20], seed=1) == first[:20]


@pytest.mark.parametrize("seed", range(1, 6))
def test_duplicates_are_in_one_split(seed):
    groups = [[number, number + 20, number + 40] for number in range(20)]
    splits = assign_splits(["hat"] * 60, groups, seed)
    assert splits[:20] == splits[20:40] == splits[40:]
    assert splits.count("test") == 6
    groups = [list(range(12)), *([number] for number in range(12, 20))]
    splits = assign_splits(["hat"] * 20, groups, seed)
    assert splits[:12] == ["train"] * 12  # The group is larger than a share.
    assert splits.count("test") == splits.count("validation") == 2


def test_class_with_too_few_different_photos_is_refused():
    groups = [[number] for number in range(6)] + [[6, 7]]
    advice = "'shoes' has 2 different photos; .* needs at least 3. Add photos, or make the split"
    with pytest.raises(InputError, match=advice):
        assign_splits(["hat"] * 5 + ["shoes"] * 3, groups, seed=1)


def test_folds_hold_each_class_evenly_and_copies_together():
    numbers = np.repeat([0, 1, 2], 40)
    folds = deal_folds(numbers, [[0, 7, 40]], seed=1)
    assert folds[0] == folds[7] == folds[40]
    for number in range(3):
        sizes = np.bincount(folds[number == numbers], minlength=5)
        assert 6 <= sizes.min() <= sizes.max() <= 10
    assert len(set(deal_folds(np.arange(3), [], seed=1))) == 3
