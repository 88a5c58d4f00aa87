"""Tests of the drawn sample: its layout, its determinism, and that colour gives nothing away."""

import itertools

import numpy as np
import pytest

from fashion_keras.data.sample import LABELS, draw_photo, draw_sample
from tests.builders import contents


def colours(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Return colour, brightness and its spread of drawn photos, and their class numbers."""
    rows = []
    for label, seed in itertools.product(LABELS, seeds):
        photo = np.asarray(draw_photo(label, np.random.default_rng(seed), 60, 80), dtype=float)
        rows.append([*photo.mean((0, 1)), photo.mean(), photo.mean(-1).std()])
    return np.array(rows), np.arange(len(LABELS)).repeat(len(seeds))


@pytest.mark.slow
def test_seed_decides_every_byte_and_more_photos_keep_the_first(tmp_path):
    first = contents(draw_sample(tmp_path / "first", {"train": 1, "test": 1}, seed=3))
    assert set(first) == {f"{one}/{label}/000.jpg" for one in ("train", "test") for label in LABELS}
    assert len(set(first.values())) == 20  # No two photos are the same.
    more = contents(draw_sample(tmp_path / "more", {"test": 2}, seed=3))
    assert {name: first[name] for name in first if name.startswith("test")}.items() < more.items()
    other = contents(draw_sample(tmp_path / "other", {"test": 1}, seed=4))
    assert all(first[name] != other[name] for name in other)


def test_labels_and_sizes_are_those_expected():
    expected = "dress hat longsleeve outwear pants shirt shoes shorts skirt t-shirt"
    assert tuple(expected.split()) == LABELS
    photo = draw_photo("hat", np.random.default_rng(1), width=90, height=70)
    assert (photo.mode, photo.size) == ("RGB", (90, 70))


def test_colours_are_no_better_than_chance():
    """Chance is 0.1, for the five nearest photos."""
    (train, train_numbers), (test, test_numbers) = colours(range(10)), colours(range(10, 15))
    gaps = (test[:, None] - train) / train.std(axis=0)
    nearest = np.linalg.norm(gaps, axis=-1).argsort(axis=1)[:, :5]
    votes = (train_numbers[nearest][..., None] == np.arange(10)).sum(axis=1)
    assert np.mean(votes.argmax(axis=1) == test_numbers) < 0.3
