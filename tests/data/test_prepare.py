"""Tests of preparing: what is linked, rewritten or put aside; the source stays as it is."""

import collections
import csv
import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.data import inspected
from fashion_keras.data import prepare as prepare_module
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import Prepared, PreparedPhoto, Rejected, prepare, summary


def draw(path, number=0, **settings):
    """Write a photo of noise that differs from those with other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (24, 16, 3), "uint8")
    Image.fromarray(pixels).save(path, **settings)
    return path


def state(folder):
    """Return name, bytes and date of everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


@pytest.fixture
def photos(tmp_path):
    """Return a source with one clean photo of each class in train and validation."""
    folder = tmp_path / "source"
    for number, name in enumerate(("train/hat", "train/shoes", "validation/hat", "val/shoes")):
        draw(folder / name.replace("val/", "validation/") / "a.jpg", number)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def no_decoder(monkeypatch):
    """Return a function that forbids reading photos from then on."""

    def forbid():
        monkeypatch.setattr(inspected, "read_photo", lambda path: pytest.fail("it was read"))

    return forbid


def unsplit(folder, count):
    for number in range(count):
        for label in ("hat", "shoes"):
            draw(folder / label / f"{number}.png", number + 100 * len(label))
    return folder


def test_clean_photos_are_links_to_the_source(photos, cache):
    prepared = prepare(str(photos), cache)
    link = prepared.folder / "train" / "hat" / "0000000.jpg"
    assert link.is_symlink()
    assert link.resolve() == (photos / "train" / "hat" / "a.jpg").resolve()
    expected = hashlib.sha256((photos / "train" / "hat" / "a.jpg").read_bytes()).hexdigest()
    assert prepared.photos[0] == PreparedPhoto(
        "train", "hat", "train/hat/0000000.jpg", "train/hat/a.jpg", expected
    )


def test_clean_photos_are_copied_where_links_are_not_possible(photos, cache, monkeypatch):
    def refuse(link, target):
        raise OSError("no right to make links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    copy = prepare(str(photos), cache).folder / "train" / "hat" / "0000000.jpg"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (photos / "train" / "hat" / "a.jpg").read_bytes()


def test_links_hold_with_a_cache_given_relatively(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train/hat", "train/shoes", "validation/hat"):
        draw(tmp_path / "cache" / "sample-1" / name / "a.jpg", len(name))
    prepared = prepare("sample", Path("cache"))
    assert [(prepared.folder / photo.prepared).is_file() for photo in prepared.photos] == [True] * 3


def test_clean_png_keeps_its_suffix(photos, cache):
    draw(photos / "train" / "hat" / "b.PNG", 9, format="PNG")
    prepared = prepare(str(photos), cache)
    assert prepared.photos[1].prepared == "train/hat/0000001.png"
    assert (prepared.folder / prepared.photos[1].prepared).is_symlink()


@pytest.mark.parametrize("name", ["turned.jpg", "grey.png", "picture.webp", "picture.gif"])
def test_other_photos_are_rewritten_as_png_with_the_same_pixels(name, photos, cache):
    tags = Image.Exif()
    tags[0x0112] = 6 if name == "turned.jpg" else 1
    original = draw(photos / "train" / "hat" / name, 9, exif=tags)
    if name == "grey.png":
        deep = np.array([[0, 257, 32896, 65535]], "uint16").repeat(8, axis=0).repeat(2, axis=1)
        Image.fromarray(deep).save(original)
    photo = prepare(str(photos), cache).photos[1]
    rewritten = next((cache / "prepared").glob(f"*/{photo.prepared}"))
    assert (photo.file, rewritten.suffix, rewritten.is_symlink()) == (
        f"train/hat/{name}",
        ".png",
        False,
    )
    np.testing.assert_array_equal(np.asarray(Image.open(rewritten)), read_photo(original).pixels)
    assert photo.sha256 == hashlib.sha256(rewritten.read_bytes()).hexdigest()
    assert read_photo(rewritten).clean


def test_source_is_never_changed(photos, cache):
    draw(photos / "train" / "hat" / "b.webp", 9)
    (photos / "train" / "hat" / "c.jpg").write_bytes(b"no photo")
    before = state(photos)
    prepare(str(photos), cache)
    assert state(photos) == before
    assert len(before) == 12  # 6 folders and 6 files.


def test_prepared_folder_holds_nothing_else(photos, cache):
    draw(photos / "train" / "hat" / "b.webp", 9)
    prepared = prepare(str(photos), cache)
    files = {path for path, (_, content) in state(prepared.folder).items() if content}
    listed = {photo.prepared for photo in prepared.photos}
    assert files == listed | {"photos.csv", "quarantine.csv"}
    assert {path.name for path in prepared.folder.iterdir() if path.is_dir()} == {
        "train",
        "validation",
    }
    assert list(cache.iterdir()) == [cache / "prepared"]


def test_unreadable_files_are_listed_with_their_reason(photos, cache):
    (photos / "train" / "hat" / "b.jpg").write_bytes(b"")
    (photos / "train" / "hat" / "c.jpg").write_bytes(b"<html>")
    prepared = prepare(str(photos), cache)
    reason = "not a photo in one of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"
    expected = [Rejected("train/hat/b.jpg", "empty file"), Rejected("train/hat/c.jpg", reason)]
    assert prepared.rejected == expected
    lines = (prepared.folder / "quarantine.csv").read_text(encoding="utf-8").splitlines()
    assert list(csv.reader(lines)) == [["file", "reason"], *map(list, expected)]
    assert len(prepared.photos) == 4


def test_link_to_nowhere_is_put_aside(photos, cache):
    (photos / "train" / "hat" / "b.jpg").symlink_to(photos / "gone.jpg")
    expected = "a link to a file that does not exist"
    assert prepare(str(photos), cache).rejected == [Rejected("train/hat/b.jpg", expected)]


def test_second_call_reads_no_photo(photos, cache, no_decoder):
    (photos / "train" / "hat" / "b.jpg").write_bytes(b"no photo")
    first = prepare(str(photos), cache)
    no_decoder()
    assert prepare(str(photos), cache) == first


def test_splits_of_the_source_make_the_seed_irrelevant(photos, cache, no_decoder):
    first = prepare(str(photos), cache, seed=1)
    no_decoder()
    assert prepare(str(photos), cache, seed=2) == first


def test_changed_photo_is_noticed(photos, cache):
    first = prepare(str(photos), cache)
    draw(photos / "train" / "hat" / "a.jpg", 99)
    second = prepare(str(photos), cache)
    assert second.folder != first.folder
    assert second.photos[0].sha256 != first.photos[0].sha256
    assert second.photos[1:] == first.photos[1:]


def test_change_of_the_date_alone_is_noticed(photos, cache):
    first = prepare(str(photos), cache)
    os.utime(photos / "train" / "hat" / "a.jpg", (1, 1))
    assert prepare(str(photos), cache).folder != first.folder


def test_new_and_removed_photos_are_noticed(photos, cache):
    first = prepare(str(photos), cache)
    new = draw(photos / "train" / "hat" / "b.jpg", 99)
    assert len(prepare(str(photos), cache).photos) == 5
    new.unlink()
    assert prepare(str(photos), cache) == first


def test_class_without_readable_photo_is_an_error(photos, cache):
    (photos / "train" / "shoes" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"shoes can be read \(a.jpg: empty file\). Mend"):
        prepare(str(photos), cache)
    assert not list(cache.glob("prepared/*/photos.csv"))


def test_class_that_validation_lacks_has_its_folder_there(photos, cache):
    (photos / "validation" / "shoes" / "a.jpg").unlink()
    (photos / "validation" / "shoes").rmdir()
    prepared = prepare(str(photos), cache)
    assert list((prepared.folder / "validation" / "shoes").iterdir()) == []
    assert prepared.labels == ["hat", "shoes"]
    assert [photo.label for photo in prepared.split("validation")] == ["hat"]


def test_killed_preparing_leaves_no_folder_that_is_used(photos, cache, monkeypatch):
    place = prepare_module._place

    def die(*arguments):
        place(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_place", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(str(photos), cache)
    assert [path.suffix for path in (cache / "prepared").glob("[!.]*")] == [".tmp"]
    prepared = prepare(str(photos), cache)
    assert len(prepared.photos) == 4
    assert list((cache / "prepared").glob("[!.]*")) == [prepared.folder]


def test_half_deleted_folder_is_made_again(photos, cache):
    first = prepare(str(photos), cache)
    (first.folder / "photos.csv").unlink()
    (first.folder / first.photos[0].prepared).unlink()
    again = prepare(str(photos), cache)
    assert again == first
    assert all((again.folder / photo.prepared).is_file() for photo in again.photos)


def test_summary_counts_photos_and_classes(photos, cache):
    text = summary(prepare(str(photos), cache))
    assert text == "photos: 2 train, 2 validation, 0 test; 2 classes: hat, shoes"


def test_summary_names_the_first_file_that_cannot_be_used():
    rejected = [Rejected("train/hat/b.jpg", "empty file"), Rejected("c.jpg", "damaged: so")]
    text = summary(Prepared(Path("there"), ["hat", "shoes"], [], rejected)).splitlines()[1]
    assert text == (
        "2 files cannot be used (train/hat/b.jpg: empty file); "
        f"all are listed in {Path('there') / 'quarantine.csv'}"
    )


def test_class_folders_are_split_with_every_photo_in_one_place(tmp_path, cache):
    prepared = prepare(str(unsplit(tmp_path / "source", 10)), cache)
    counts = collections.Counter((photo.split, photo.label) for photo in prepared.photos)
    for label in ("hat", "shoes"):
        assert [counts[split, label] for split in ("train", "validation", "test")] == [8, 1, 1]
    expected = {f"{label}/{number}.png" for label in ("hat", "shoes") for number in range(10)}
    assert {photo.file for photo in prepared.photos} == expected


def test_seed_decides_the_division(tmp_path, cache):
    source = unsplit(tmp_path / "source", 10)
    first, other = (prepare(str(source), cache, seed) for seed in (1, 2))
    assert prepare(str(source), cache, 1) == first
    assert {photo.file for photo in first.split("test")} != {
        photo.file for photo in other.split("test")
    }


def test_copies_of_a_photo_are_on_one_side(tmp_path, cache):
    source = unsplit(tmp_path / "source", 6)
    for number in range(6):
        draw(source / "hat" / f"copy {number}.webp", number + 300, lossless=True)
    split_of = {photo.file: photo.split for photo in prepare(str(source), cache).photos}
    for number in range(6):
        assert split_of[f"hat/copy {number}.webp"] == split_of[f"hat/{number}.png"]


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_turned_copies_of_a_photo_are_on_one_side(turn, tmp_path, cache):
    source = unsplit(tmp_path / "source", 6)
    for number in range(6):
        with Image.open(source / "hat" / f"{number}.png") as photo:
            large = photo.resize((144, 144))
        large.save(source / "hat" / f"{number}.png")
        large.transpose(turn).save(source / "hat" / f"turned {number}.png")
    split_of = {photo.file: photo.split for photo in prepare(str(source), cache).photos}
    for number in range(6):
        assert split_of[f"hat/turned {number}.png"] == split_of[f"hat/{number}.png"]


def test_unreadable_photo_does_not_count_when_splitting(tmp_path, cache):
    source = unsplit(tmp_path / "source", 3)
    (source / "hat" / "broken.jpg").write_bytes(b"no photo")
    prepared = prepare(str(source), cache)
    assert [len(prepared.split(name)) for name in ("train", "validation", "test")] == [2, 2, 2]
    assert [one.file for one in prepared.rejected] == ["hat/broken.jpg"]


def test_photos_are_listed_in_the_order_in_which_folders_are_read(tmp_path, cache):
    prepared = prepare(str(unsplit(tmp_path / "source", 12)), cache)
    for split in ("train", "validation", "test"):
        listed = [photo.prepared for photo in prepared.split(split)]
        on_disk = sorted((prepared.folder / split).glob("*/*"))
        assert listed == [path.relative_to(prepared.folder).as_posix() for path in on_disk]


@pytest.mark.parametrize(
    "name", ["un été.jpg", "写真 1.jpg", 'a,"b".jpg', "two\nlines.jpg", "=1.jpg"]
)
def test_unusual_names_are_kept(name, photos, cache):
    draw(photos / "train" / "hat" / name, 9, format="JPEG")
    prepared = prepare(str(photos), cache)
    assert f"train/hat/{name}" in {photo.file for photo in prepared.photos}
    assert len(prepared.split("train")) == 3


def test_unusual_class_names_are_kept(photos, cache):
    draw(photos / "train" / "été & hiver" / "a.jpg", 9)
    assert prepare(str(photos), cache).labels == ["hat", "shoes", "été & hiver"]


def test_name_that_is_no_text_is_escaped(photos, cache):
    try:
        draw(photos / "train" / "hat" / "b.jpg", 9).rename(photos / "train" / "hat" / "\udcff.jpg")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    prepared = prepare(str(photos), cache)
    assert prepared.photos[1].file == "train/hat/\\udcff.jpg"
    assert (prepared.folder / prepared.photos[1].prepared).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_two_that_prepare_the_same_do_it_once(photos, cache, monkeypatch):
    lay_out, calls = prepare_module._lay_out, []
    monkeypatch.setattr(
        prepare_module,
        "_lay_out",
        lambda *given: (calls.append(1), time.sleep(0.2), lay_out(*given)),
    )
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: prepare(str(photos), cache), range(2))
    assert one == other
    assert len(calls) == 1
