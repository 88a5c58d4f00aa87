"""Tests of the drawn sample: its layout, its determinism, and that colour gives nothing away."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.sample import LABELS, draw_photo, draw_sample


def read_bytes(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def colour_features(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour, the brightness and its spread of every photo, and the labels."""
    paths = sorted(folder.glob("*/*.jpg"))
    photos = [np.asarray(Image.open(path), dtype=float) for path in paths]
    rows = [[*photo.mean((0, 1)), photo.mean(), photo.mean(-1).std()] for photo in photos]
    return np.array(rows), np.array([LABELS.index(path.parent.name) for path in paths])


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, ...]:
    """Standardised colour features and labels of train photos, then of test photos."""
    folder = draw_sample(tmp_path_factory.mktemp("sample") / "drawn", {"train": 10, "test": 5})
    train, train_labels = colour_features(folder / "train")
    test, test_labels = colour_features(folder / "test")
    centre, spread = train.mean(axis=0), train.std(axis=0)
    return (train - centre) / spread, train_labels, (test - centre) / spread, test_labels


def test_labels_are_the_ten_classes() -> None:
    """The labels are those of the data set the sample stands in for."""
    expected = "dress hat longsleeve outwear pants shirt shoes shorts skirt t-shirt"
    assert tuple(expected.split()) == LABELS


def test_sample_has_the_asked_layout(tmp_path: Path) -> None:
    """Files are split/label/number.jpg, and nothing else is left beside them."""
    folder = draw_sample(tmp_path / "new" / "sample", {"train": 2, "test": 1})
    names = {"train": ("000.jpg", "001.jpg"), "test": ("000.jpg",)}
    expected = {
        f"{split}/{label}/{name}" for split in names for label in LABELS for name in names[split]
    }
    assert folder == tmp_path / "new" / "sample"
    assert set(read_bytes(tmp_path / "new")) == {f"sample/{name}" for name in expected}


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    """The same seed gives the same files and another seed gives others."""
    first = read_bytes(draw_sample(tmp_path / "first", {"test": 1}, seed=3))
    assert first == read_bytes(draw_sample(tmp_path / "again", {"test": 1}, seed=3))
    other = read_bytes(draw_sample(tmp_path / "other", {"test": 1}, seed=4))
    assert all(first[name] != other[name] for name in first)


def test_more_photos_keep_the_first(tmp_path: Path) -> None:
    """A larger sample contains a smaller one."""
    few = read_bytes(draw_sample(tmp_path / "few", {"test": 1}))
    many = read_bytes(draw_sample(tmp_path / "many", {"train": 1, "test": 2}))
    assert few.items() < many.items()


def test_no_two_photos_are_alike(tmp_path: Path) -> None:
    """Numbers and splits give different photos, so none leaks into the test split."""
    photos = read_bytes(draw_sample(tmp_path / "sample", {"train": 2, "test": 1}))
    assert len(set(photos.values())) == len(photos) == 30


def test_existing_folder_stays_untouched(tmp_path: Path) -> None:
    """A folder that exists is the user's."""
    (tmp_path / "note.txt").write_text("mine")
    assert draw_sample(tmp_path, {"test": 1}) == tmp_path
    assert read_bytes(tmp_path) == {"note.txt": b"mine"}


def test_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails midway leaves neither a sample nor scratch files."""

    def draw_or_fail(label: str, generator: np.random.Generator) -> Image.Image:
        if label == "shirt":
            raise OSError("the disk is full")
        return draw_photo(label, generator, 16, 16)

    monkeypatch.setattr("fashion_keras.data.sample.draw_photo", draw_or_fail)
    with pytest.raises(OSError, match="the disk is full"):
        draw_sample(tmp_path / "sample", {"test": 1})
    assert list(tmp_path.iterdir()) == []


def test_photo_has_the_asked_size() -> None:
    """Width comes before height."""
    photo = draw_photo("hat", np.random.default_rng(1), width=90, height=70)
    assert (photo.mode, photo.size) == ("RGB", (90, 70))


def test_unknown_label_is_refused() -> None:
    """The error names what was expected and what came."""
    with pytest.raises(ValueError, match="expected a label out of dress, .*, received 'sock'"):
        draw_photo("sock", np.random.default_rng(1))


def test_nearest_mean_colour_is_near_chance(colours: tuple[np.ndarray, ...]) -> None:
    """Chance is 0.1."""
    train, train_labels, test, test_labels = colours
    centres = np.stack([train[train_labels == label].mean(axis=0) for label in range(10)])
    guesses = np.linalg.norm(test[:, None] - centres, axis=-1).argmin(axis=1)
    assert np.mean(guesses == test_labels) < 0.3


def test_nearest_neighbours_in_colour_are_near_chance(colours: tuple[np.ndarray, ...]) -> None:
    """Chance is 0.1."""
    train, train_labels, test, test_labels = colours
    nearest = np.linalg.norm(test[:, None] - train, axis=-1).argsort(axis=1)[:, :5]
    votes = (train_labels[nearest][..., None] == np.arange(10)).sum(axis=1)
    assert np.mean(votes.argmax(axis=1) == test_labels) < 0.3
