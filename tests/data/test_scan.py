"""Tests of the scan: which photos are found, and that every fault of the folders is named."""

from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.data.scan import find_photos, scan


def touch(folder: Path, *names: str) -> Path:
    """Write files; a name that ends in `/` is an empty folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(b"")
    return folder


def found(folder: Path) -> list[tuple[str, str, str]]:
    photos = find_photos(str(folder), folder / "cache")
    assert all(photo.path == (folder / photo.name).resolve() for photo in photos)
    return [(photo.split, photo.label, photo.name) for photo in photos]


def test_photos_are_listed_by_split_class_and_path(tmp_path):
    names = ["train/shoes/b.jpg", "train/shoes/a.jpg", "train/hat/c.jpg", "validation/hat/d.jpg"]
    assert found(touch(tmp_path, *names, "test/shoes/e.png", "readme.txt")) == [
        ("train", "hat", "train/hat/c.jpg"),
        ("train", "shoes", "train/shoes/a.jpg"),
        ("train", "shoes", "train/shoes/b.jpg"),
        ("validation", "hat", "validation/hat/d.jpg"),
        ("test", "shoes", "test/shoes/e.png"),
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_other_names_of_splits_are_understood(name, tmp_path):
    touch(tmp_path, "Training/hat/a.jpg", "Training/shoes/b.jpg", f"{name}/hat/c.jpg")
    assert found(tmp_path)[0] == ("train", "hat", "Training/hat/a.jpg")
    assert found(tmp_path)[-1] == ("validation", "hat", f"{name}/hat/c.jpg")


def test_class_folders_only_have_no_split(tmp_path):
    touch(tmp_path, ".git/a/b.jpg", "hat/.DS_Store", "shoes/.thumbs/1.jpg")  # Hidden.
    assert found(touch(tmp_path, "shoes/1.jpg", "hat/deeper/2.jpg", "hat/10.jpg")) == [
        ("", "hat", "hat/10.jpg"),
        ("", "hat", "hat/deeper/2.jpg"),
        ("", "shoes", "shoes/1.jpg"),
    ]


def test_folder_named_like_a_split_without_classes_is_no_split(tmp_path):
    touch(tmp_path, "train/hat/a.jpg", "train/shoes/b.jpg", "val/hat/c.jpg", "test/loose.jpg")
    assert {split for split, _, _ in found(tmp_path)} == {"train", "validation"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "No folder .*nowhere. Expected `clothing`, `sample`"),
        ("photo.jpg", r"photo\.jpg is not a folder. Expected `clothing`"),
        (".", "has two folders for validation: val and valid"),
    ],
)
def test_what_is_no_data_set_is_refused(data, message, tmp_path):
    touch(tmp_path, "photo.jpg", "val/hat/a.jpg", "valid/hat/b.jpg")
    with pytest.raises(InputError, match=message):
        scan(str(tmp_path / data), tmp_path)


ADVICE = "each class's photos into a folder of its own"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg"], f"No class folders .* {ADVICE}"),
        (["hat/a"], "Only one class in .*: hat. A classifier needs at least two"),
        (["hat\n/a", "bag/a"], r"The name of the class folder '.*hat\\n' cannot be shown"),
        (["train/a", "validation/b"], f"train and validation without class folders: put {ADVICE}"),
        (["train/hat/a", "train/bag/b"], "must hold both train and validation .* Missing: validat"),
        (["test/hat/a", "test/bag/b"], "must hold both .* Missing: train, validation$"),
        (["hat/a", "skirt/b", "bag/"], "folder .*bag is empty: add photos or remove it"),
        (["hat/a", "skirt/b", "shoes/.hidden"], "folder .*shoes is empty"),
        (
            ["train/hat/a", "train/bag/b", "val/hat/c", "test/sock/d"],
            "'sock' is in test but not in train: .*train.sock or remove .*test.sock",
        ),
    ],
)
def test_faults_are_named(names, message, tmp_path):
    with pytest.raises(InputError, match=message):
        found(touch(tmp_path, *names))
    result = scan(str(tmp_path), tmp_path)
    of_classes = "is empty" in message or "sock" in message
    assert (len(result.faults), len(result.class_faults)) == (1 - of_classes, of_classes)


def test_all_faults_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as failed:
        found(touch(tmp_path, "train/hat/a", "test/hat/b", "test/sock/c", "test/bag/"))
    lines = str(failed.value).splitlines()
    words = ["Missing: validation", "Only one class", "bag is empty", "'sock' is in test"]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 4


def test_scan_lists_classes_and_photos_that_are_not_used(tmp_path):
    touch(tmp_path, "train/hat/a/b.jpg", "train/hat/.hidden", "val/hat/c.jpg", "train/d.jpg")
    touch(tmp_path, "more/e.png", "readme.txt", "train/shoes/")
    result = scan(str(tmp_path), tmp_path)
    assert result.classes == {"train": ["hat", "shoes"], "validation": ["hat"]}
    assert [photo.name for photo in result.photos] == ["train/hat/a/b.jpg", "val/hat/c.jpg"]
    assert result.unused == ["more/e.png", "train/d.jpg"]


def test_sample_is_drawn_once_into_a_cache_given_relatively(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "sample-5/train/hat/a", "sample-5/train/bag/b", "sample-5/validation/hat/c")
    photos = find_photos("sample", Path(), seed=5)
    assert photos[1].path == tmp_path.resolve() / "sample-5" / "train" / "hat" / "a"
