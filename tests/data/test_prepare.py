"""Tests of preparing: what is linked, rewritten or rejected; the source is never changed."""

import collections
import csv
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config, InputError
from fashion_keras.data import prepare as prepare_module
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import PreparedPhoto, Rejected, prepare, summary

SPLITS = ("train", "validation", "test")


def draw(path: Path, number: int = 0, **settings: Any) -> Path:
    """Write a photo of noise that differs from those with other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (24, 16, 3), "uint8")
    Image.fromarray(pixels).save(path, **settings)
    return path


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return name, date and bytes of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a source with one clean photo of each class in train and validation."""
    places = ("train/hat", "train/shoes", "validation/hat", "validation/shoes")
    for number, name in enumerate(places):
        draw(tmp_path / "source" / name / "a.jpg", number)
    return tmp_path / "source"


def test_clean_photos_are_links_to_the_source(photos, cache):
    draw(photos / "train" / "hat" / "b.PNG", 9, format="PNG")
    prepared = prepare(Config(data=str(photos)), cache)
    original = (photos / "train" / "hat" / "a.jpg").resolve()
    digest = hashlib.sha256(original.read_bytes()).hexdigest()
    place = "train/hat/0000000.jpg"
    assert prepared.photos[0] == PreparedPhoto("train", "hat", place, "train/hat/a.jpg", digest)
    assert prepared.photos[1].prepared == "train/hat/0000001.png"
    assert (prepared.folder / place).is_symlink()
    assert (prepared.folder / place).resolve() == original


def test_clean_photos_are_copied_where_links_are_not_possible(photos, cache, monkeypatch):
    def refuse(*names: Path) -> None:
        raise OSError("no right to make links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    copy = prepare(Config(data=str(photos)), cache).folder / "train" / "hat" / "0000000.jpg"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (photos / "train" / "hat" / "a.jpg").read_bytes()


@pytest.mark.parametrize("name", ["turned.jpg", "grey.png", "picture.webp", "picture.gif"])
def test_other_photos_are_rewritten_as_png_with_the_same_pixels(name, photos, cache):
    tags = Image.Exif()
    tags[0x0112] = 6 if name == "turned.jpg" else 1
    original = draw(photos / "train" / "hat" / name, 9, exif=tags)
    if name == "grey.png":
        deep = np.array([[0, 257, 32896, 65535]], "uint16").repeat(8, axis=0).repeat(2, axis=1)
        Image.fromarray(deep).save(original)
    prepared = prepare(Config(data=str(photos)), cache)
    photo = prepared.photos[1]
    rewritten = prepared.folder / photo.prepared
    assert (photo.file, rewritten.suffix) == (f"train/hat/{name}", ".png")
    assert not rewritten.is_symlink()
    np.testing.assert_array_equal(np.asarray(Image.open(rewritten)), read_photo(original).pixels)
    assert photo.sha256 == hashlib.sha256(rewritten.read_bytes()).hexdigest()
    assert read_photo(rewritten).clean


def test_source_stays_and_unreadable_files_are_listed_with_their_reason(photos, cache):
    folder = photos / "train" / "hat"
    draw(folder / "a.webp", 9)
    (folder / "b.jpg").write_bytes(b"")
    (folder / "c.jpg").symlink_to(photos / "gone.jpg")
    before = state(photos)
    prepared = prepare(Config(data=str(photos)), cache)
    assert state(photos) == before
    assert prepared.rejected == [
        Rejected("train/hat/b.jpg", "empty file"),
        Rejected("train/hat/c.jpg", "a link to a file that does not exist"),
    ]
    lines = (prepared.folder / "quarantine.csv").read_text(encoding="utf-8").splitlines()
    assert list(csv.reader(lines)) == [["file", "reason"], *map(list, prepared.rejected)]
    listed = {photo.prepared for photo in prepared.photos}
    assert set(state(prepared.folder)) == listed | {"photos.csv", "quarantine.csv"}
    folders = {path.name for path in prepared.folder.iterdir() if path.is_dir()}
    assert folders == {"train", "validation"}
    assert summary(prepared).splitlines() == [
        "photos: 3 train, 2 validation, 0 test; 2 classes: hat, shoes",
        "2 files cannot be used (train/hat/b.jpg: empty file); "
        f"all are listed in {prepared.folder / 'quarantine.csv'}",
    ]


def test_photos_of_none_of_the_classes_are_prepared_beside_the_splits(photos, cache):
    before = prepare(Config(data=str(photos)), cache)
    draw(photos / "other" / "x.jpg", 9)
    draw(photos / "train" / "other" / "y.png", 10)
    (photos / "other" / "bad.jpg").write_bytes(b"")
    prepared = prepare(Config(data=str(photos)), cache)
    assert prepared.folder != before.folder
    assert (prepared.labels, prepared.photos[0]) == (["hat", "shoes"], before.photos[0])
    assert [photo.file for photo in prepared.photos] == [photo.file for photo in before.photos]
    assert [photo.file for photo in prepared.others] == ["other/x.jpg", "train/other/y.png"]
    assert {photo.split for photo in prepared.others} == {"other"}
    assert prepared.rejected == [Rejected("other/bad.jpg", "empty file")]
    assert not (prepared.folder / "train" / "other").exists()
    assert "\nother: 3 files of none of the classes" in summary(prepared)


def test_class_without_readable_photo_is_an_error(photos, cache):
    (photos / "train" / "shoes" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"shoes can be read \(a.jpg: empty file\). Fix"):
        prepare(Config(data=str(photos)), cache)
    assert not list(cache.glob("prepared/[!.]*"))


def test_second_call_reads_no_photo(photos, cache, monkeypatch):
    (photos / "train" / "hat" / "b.jpg").write_bytes(b"no photo")
    first = prepare(Config(data=str(photos)), cache)
    monkeypatch.setattr(prepare_module, "read_photo", lambda path: pytest.fail(f"{path} is read"))
    assert prepare(Config(data=str(photos)), cache) == first
    assert prepare(Config(data=str(photos), split_seed=2), cache) == first  # The source has splits.


def test_changed_new_and_removed_photos_are_noticed(photos, cache):
    first = prepare(Config(data=str(photos)), cache)
    new = draw(photos / "train" / "hat" / "b.jpg", 99)
    assert len(prepare(Config(data=str(photos)), cache).photos) == 5
    new.unlink()
    assert prepare(Config(data=str(photos)), cache) == first
    changed = photos / "train" / "hat" / "a.jpg"
    os.utime(changed, (1, 1))
    assert prepare(Config(data=str(photos)), cache).folder != first.folder
    draw(changed, 99)
    again = prepare(Config(data=str(photos)), cache)
    assert again.photos[0].sha256 != first.photos[0].sha256
    assert again.photos[1:] == first.photos[1:]


def test_class_that_validation_lacks_has_its_folder_there(photos, cache):
    (photos / "validation" / "shoes" / "a.jpg").unlink()
    (photos / "validation" / "shoes").rmdir()
    prepared = prepare(Config(data=str(photos)), cache)
    assert list((prepared.folder / "validation" / "shoes").iterdir()) == []
    assert prepared.labels == ["hat", "shoes"]
    assert [photo.label for photo in prepared.split("validation")] == ["hat"]


def test_class_folders_are_split_and_the_seed_decides(tmp_path, cache):
    source = tmp_path / "source"
    for number in range(10):
        draw(source / "shoes" / f"{number}.png", number)
        large = Image.open(draw(source / "hat" / f"{number}.png", 10 + number)).resize((144, 144))
        large.save(source / "hat" / f"{number}.png")
        # A copy, turned, that belongs to the same split.
        large.transpose(Image.Transpose.ROTATE_90).save(source / "hat" / f"{number}.webp")
    prepared, other = (prepare(Config(data=str(source), split_seed=seed), cache) for seed in (1, 2))
    counts = collections.Counter((photo.split, photo.label) for photo in prepared.photos)
    for label, copies in (("hat", 2), ("shoes", 1)):
        assert [counts[split, label] for split in SPLITS] == [8 * copies, copies, copies]
    split_of = {photo.file: photo.split for photo in prepared.photos}
    for number in range(10):
        assert split_of[f"hat/{number}.png"] == split_of[f"hat/{number}.webp"]
    for split in SPLITS:  # As folders are read.
        listed = [str(prepared.folder / photo.prepared) for photo in prepared.split(split)]
        assert listed == sorted(map(str, (prepared.folder / split).glob("*/*")))
    assert prepare(Config(data=str(source)), cache) == prepared
    in_test, in_other = ({photo.file for photo in one.split("test")} for one in (prepared, other))
    assert in_test != in_other


def test_unusual_names_are_kept_or_escaped(photos, cache):
    names = ['a,"b".jpg', "写真 1.jpg", "\udcff.jpg"]
    try:
        for name in names:
            draw(photos / "train" / "été & hiver" / name, 9, format="JPEG")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    prepared = prepare(Config(data=str(photos)), cache)
    assert prepared.labels == ["hat", "shoes", "été & hiver"]
    escaped = [f"train/été & hiver/{name}" for name in [*names[:-1], "\\udcff.jpg"]]
    found = [photo for photo in prepared.photos if photo.label == "été & hiver"]
    assert sorted(photo.file for photo in found) == sorted(escaped)
    assert all((prepared.folder / photo.prepared).is_file() for photo in found)


def test_validation_is_taken_out_of_training_where_it_is_missing(tmp_path, cache):
    source = tmp_path / "source"
    for number in range(20):
        for label in ("shoes", "hat"):
            draw(source / "Training" / label / f"{number}.png", len(label) * 100 + number)
    for label in ("shoes", "hat"):
        draw(source / "Testing" / label / "a.png", len(label))
    draw(source / "loose.png", 1)
    prepared, other = (prepare(Config(data=str(source), split_seed=seed), cache) for seed in (1, 2))
    counts = collections.Counter((photo.split, photo.label) for photo in prepared.photos)
    expected = {"train": 18, "validation": 2, "test": 1}
    assert counts == {(split, one): n for split, n in expected.items() for one in ("hat", "shoes")}
    validation = {photo.file for photo in prepared.split("validation")}
    assert validation != {photo.file for photo in other.split("validation")}
    assert all(name.startswith("Training/") for name in validation)
    assert summary(prepared).splitlines()[1:] == [
        "Training is taken for train, Testing is taken for test",
        "there is no folder for validation: a tenth of the training photos is used",
        "photos that are not used, as they are in no class folder: 1 (loose.png)",
    ]
