"""Tests of dividing photos: which look the same, and which go where."""

import collections
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.data.sample import draw_photo
from fashion_keras.data.split import (
    TURNS,
    Looks,
    _joined,
    assign_splits,
    group_copies,
    look_at,
    looks_of,
    near_duplicates,
)

BASE = 0x0123_4567_89AB_CDEF


def flipped(value, *bits):
    for bit in bits:
        value ^= 1 << bit
    return value


def looks(*hashes, level=100):
    """Return photos of one grey with these hashes."""
    thumbnails = np.full((1, 192), level, "uint8")
    return [Looks(np.array([value], "uint64"), thumbnails) for value in hashes]


def hash_of(pixels):
    return int(look_at([pixels]).hashes[0])


def copies(*hashes):
    """Return groups of photos with these hashes."""
    return near_duplicates(looks(*hashes))


def distinct_hashes(count):
    """Return hashes of which any two differ in many bits."""
    generator = np.random.default_rng(1)
    return [int.from_bytes(generator.bytes(8), "big") for _ in range(count)]


def drawn(label):
    return draw_photo(label, np.random.default_rng([1, len(label)]), 240, 320)


def bits_between(first, second):
    return (hash_of(np.asarray(first)) ^ hash_of(np.asarray(second))).bit_count()


def shares(labels, splits):
    return collections.Counter(zip(labels, splits, strict=True))


def test_hash_of_a_photo_that_gets_brighter_has_all_bits():
    ramp = np.arange(9, dtype="uint8")[None, :, None].repeat(8, axis=0).repeat(3, axis=2) * 20
    assert hash_of(ramp) == 2**64 - 1
    assert hash_of(ramp[:, ::-1]) == 0


def test_first_bit_of_the_hash_is_the_upper_left():
    pixels = np.zeros((8, 9, 3), "uint8")
    pixels[0, 1] = 200
    assert hash_of(pixels) == 1 << 63


def test_copies_of_a_photo_look_the_same():
    photo = drawn("dress")
    file = io.BytesIO()
    photo.resize((120, 160)).save(file, "JPEG", quality=60)
    assert bits_between(photo, Image.open(file)) <= 3
    assert bits_between(photo, photo.point([min(255, value + 4) for value in range(256)] * 3)) <= 3


@pytest.mark.parametrize("other", ["pants", "hat", "t-shirt"])
def test_other_photos_look_different(other):
    assert bits_between(drawn("dress"), drawn(other)) > 3


def test_hash_of_a_single_pixel_is_zero():
    assert hash_of(np.full((1, 1, 3), 7, "uint8")) == 0


@pytest.mark.parametrize("bits", [(), (0,), (0, 20, 40), (20, 40, 60), (0, 40, 60), (0, 20, 60)])
def test_hashes_that_differ_in_three_bits_belong_together(bits):
    assert near_duplicates(looks(BASE, flipped(BASE, *bits))) == [[0, 1]]


@pytest.mark.parametrize("bits", [(0, 20, 40, 60), (0, 1, 2, 3), (0, 1, 20, 40)])
def test_hashes_that_differ_in_four_bits_do_not(bits):
    assert near_duplicates(looks(BASE, flipped(BASE, *bits))) == [[0], [1]]


def test_the_same_are_found_as_by_comparing_all_with_all():
    hashes = [value & (2**40 - 1) for value in distinct_hashes(40)]
    generator = np.random.default_rng(2)
    hashes += [
        flipped(value, *generator.choice(64, size=size, replace=False).tolist())
        for value in hashes
        for size in (1, 2, 3, 4, 5)
    ]

    def near(one, other):
        differing = hashes[one] ^ hashes[other]
        quarters = [0xFFFF << first for first in (0, 16, 32, 48)]
        shared = any(hashes[one] & part and not differing & part for part in quarters)
        return shared and differing.bit_count() <= 3

    pairs = itertools.combinations(range(len(hashes)), 2)
    expected = _joined(len(hashes), (pair for pair in pairs if near(*pair)))
    assert near_duplicates(looks(*hashes)) == expected
    assert 40 < len(expected) < len(hashes)


def test_photos_that_share_nothing_but_a_plain_quarter_stay_apart():
    # They differ in three bits, one in each quarter that is not plain.
    one = 0x0001_0001_0001_0000
    assert near_duplicates(looks(one, flipped(one, 17, 33, 49))) == [[0], [1]]


def test_near_duplicates_of_near_duplicates_belong_together():
    chain = [BASE, flipped(BASE, 0, 1, 2), flipped(BASE, 0, 1, 2, 20, 21, 22), ~BASE & (2**64 - 1)]
    assert near_duplicates(looks(*chain)) == [[0, 1, 2], [3]]


def test_two_groups_are_joined_by_a_photo_between_them():
    ends = [BASE, flipped(BASE, 0, 1, 2, 3, 4, 5)]
    assert near_duplicates(looks(*ends)) == [[0], [1]]
    assert near_duplicates(looks(*ends, flipped(BASE, 0, 1, 2))) == [[0, 1, 2]]


def test_no_photos_have_no_near_duplicates():
    assert near_duplicates([]) == []


def test_shares_are_80_10_10_by_class():
    labels = ["hat"] * 100 + ["shoes"] * 20
    counts = shares(labels, assign_splits(labels, copies(*distinct_hashes(120)), seed=1))
    assert counts == {
        ("hat", "train"): 80,
        ("hat", "validation"): 10,
        ("hat", "test"): 10,
        ("shoes", "train"): 16,
        ("shoes", "validation"): 2,
        ("shoes", "test"): 2,
    }


@pytest.mark.parametrize("count", [3, 4, 9, 14])
def test_each_class_is_in_each_split(count):
    labels = ["hat"] * count + ["shoes"] * count
    counts = shares(labels, assign_splits(labels, copies(*distinct_hashes(2 * count)), seed=1))
    for label in ("hat", "shoes"):
        assert (counts[label, "validation"], counts[label, "test"]) == (1, 1)
        assert counts[label, "train"] == count - 2


def test_same_seed_gives_the_same_division_and_another_seed_another():
    labels, hashes = ["hat", "shoes"] * 30, distinct_hashes(60)
    first = assign_splits(labels, copies(*hashes), seed=1)
    assert assign_splits(labels, copies(*hashes), seed=1) == first
    assert assign_splits(labels, copies(*hashes), seed=2) != first


def test_a_class_is_divided_the_same_whatever_the_others_are():
    hashes = distinct_hashes(40)
    alone = assign_splits(["hat"] * 20, copies(*hashes[:20]), seed=1)
    assert assign_splits(["hat"] * 20 + ["shoes"] * 20, copies(*hashes), seed=1)[:20] == alone


@pytest.mark.parametrize("seed", range(1, 6))
def test_near_duplicates_are_on_one_side(seed):
    hashes = [flipped(value, bit) for value in distinct_hashes(20) for bit in (3, 30, 60)]
    splits = assign_splits(["hat"] * 60, copies(*hashes), seed)
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert shares(["hat"] * 60, splits)["hat", "test"] == 6


@pytest.mark.parametrize("bits", [(), (5,)])
def test_class_with_too_few_different_photos_says_what_to_do(bits):
    hashes = [*distinct_hashes(5), BASE, flipped(BASE, *bits), ~BASE & (2**64 - 1)]
    labels = ["hat"] * 5 + ["shoes"] * 3
    advice = "'shoes' has 2 different photos; .* needs at least 3. Add photos, or make the split"
    with pytest.raises(InputError, match=advice):
        assign_splits(labels, copies(*hashes), seed=1)


@pytest.mark.parametrize("seed", range(1, 8))
def test_a_group_larger_than_a_share_stays_in_train(seed):
    hashes = [0xFFFF << 16] * 12 + [
        number * 0x0123_4567_89AB_CDEF % 2**64 for number in range(1, 9)
    ]
    splits = assign_splits(["hat"] * 20, copies(*hashes), seed)
    assert splits[:12] == ["train"] * 12
    assert splits.count("test") == splits.count("validation") == 2


def test_photos_with_one_hash_but_other_colours_stay_apart():
    assert near_duplicates([*looks(BASE), *looks(BASE, level=104), *looks(BASE, level=110)]) == [
        [0, 1],
        [2],
    ]


def test_different_garments_on_the_same_white_ground_stay_apart():
    photos = []
    for number in range(12):
        pixels = np.full((80, 60, 3), 255, "uint8")
        pixels[20 + number : 70, 15:45] = 20 * number
        photos.append(look_at([pixels]))
    assert near_duplicates(photos) == [[number] for number in range(12)]


def test_turned_and_mirrored_photos_are_copies():
    photo = np.asarray(drawn("dress"))
    turned = [Image.fromarray(turn(photo)) for turn in TURNS.values()]
    photos = [drawn("pants"), *turned, drawn("hat")]
    names = [str(number) for number in range(len(photos))]
    groups = group_copies([looks_of(one) for one in photos], names)
    assert groups == [[0], [*range(1, 9)], [9]]


def test_the_same_file_is_a_copy_even_of_a_plain_photo():
    plain = looks_of(Image.new("RGB", (40, 40), "red"))
    assert group_copies([plain] * 3, ["a", "b", "a"]) == [[0, 2], [1]]
