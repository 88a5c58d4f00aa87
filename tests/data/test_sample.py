"""Tests of the drawn sample: its layout, its determinism, and that colour gives nothing away."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.sample import LABELS, draw_photo, draw_sample

Colours = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def colours_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour, the brightness and its spread of every photo, and the class numbers."""
    paths = sorted(folder.glob("*/*.jpg"))
    photos = [np.asarray(Image.open(path), dtype=float) for path in paths]
    rows = [[*photo.mean((0, 1)), photo.mean(), photo.mean(-1).std()] for photo in photos]
    return np.array(rows), np.array([LABELS.index(path.parent.name) for path in paths])


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Colours:
    """Return standardised colours and class numbers of training photos, then of test photos."""
    folder = draw_sample(tmp_path_factory.mktemp("sample") / "drawn", {"train": 10, "test": 5})
    train, train_numbers = colours_of(folder / "train")
    test, test_numbers = colours_of(folder / "test")
    centre, spread = train.mean(axis=0), train.std(axis=0)
    return (train - centre) / spread, train_numbers, (test - centre) / spread, test_numbers


def test_seed_decides_every_byte_and_more_photos_keep_the_first(tmp_path: Path) -> None:
    first = contents(draw_sample(tmp_path / "first", {"train": 1, "test": 1}, seed=3))
    assert set(first) == {
        f"{split}/{label}/000.jpg" for split in ("train", "test") for label in LABELS
    }
    assert len(set(first.values())) == 20  # No two photos are the same.
    more = contents(draw_sample(tmp_path / "more", {"test": 2}, seed=3))
    assert {name: first[name] for name in first if name.startswith("test")}.items() < more.items()
    other = contents(draw_sample(tmp_path / "other", {"test": 1}, seed=4))
    assert all(first[name] != other[name] for name in other)


def test_labels_and_sizes_are_those_expected() -> None:
    expected = "dress hat longsleeve outwear pants shirt shoes shorts skirt t-shirt"
    assert tuple(expected.split()) == LABELS
    photo = draw_photo("hat", np.random.default_rng(1), width=90, height=70)
    assert (photo.mode, photo.size) == ("RGB", (90, 70))


def test_colours_are_no_better_than_chance(colours: Colours) -> None:
    """Chance is 0.1, for the nearest mean colour and for the five nearest photos."""
    train, train_numbers, test, test_numbers = colours
    centres = np.stack([train[train_numbers == number].mean(axis=0) for number in range(10)])
    guesses = np.linalg.norm(test[:, None] - centres, axis=-1).argmin(axis=1)
    nearest = np.linalg.norm(test[:, None] - train, axis=-1).argsort(axis=1)[:, :5]
    votes = (train_numbers[nearest][..., None] == np.arange(10)).sum(axis=1)
    assert np.mean(guesses == test_numbers) < 0.3
    assert np.mean(votes.argmax(axis=1) == test_numbers) < 0.3
