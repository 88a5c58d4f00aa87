"""Tests of the scan: which photos are found, and that every fault of the folders is named."""

import unicodedata
from pathlib import Path

import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.data.scan import scan


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
    photos = scan(Config(data=str(folder)), folder / "cache").usable().photos
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


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "VALIDATION_SET", "devset"])
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
        scan(Config(data=str(tmp_path / data)), tmp_path)


SAME = r"a, b hold the same folders \(bag, hat\), which are taken for the classes"
ADVICE = "each class's photos into a folder of its own"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg"], f"No class folders .* {ADVICE}"),
        (["hat/a"], "Only one class in .*: hat. A classifier needs at least two"),
        (["hat\n/a", "bag/a"], r"The name of the class folder '.*hat\\n' cannot be shown"),
        (["train/a", "validation/b"], f"train and validation without class folders: put {ADVICE}"),
        (["test/hat/a", "test/bag/b"], "holds test but no train: add it"),
        (["a/hat/1.jpg", "a/bag/1.jpg", "b/hat/1.jpg", "b/bag/1.jpg"], SAME),
        (
            ["hat/train/1.jpg", "hat/test/2.jpg", "bag/train/3.jpg", "bag/test/4.jpg"],
            "bag, hat hold test, train each: put class folders into split folders",
        ),
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
    result = scan(Config(data=str(tmp_path)), tmp_path)
    of_classes = "is empty" in message or "sock" in message
    assert (len(result.faults), len(result.class_faults)) == (1 - of_classes, of_classes)


def test_all_faults_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as failed:
        found(touch(tmp_path, "train/hat/a", "test/hat/b", "test/sock/c", "test/bag/"))
    lines = str(failed.value).splitlines()
    words = ["Only one class", "bag is empty", "'sock' is in test"]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 3


def test_scan_lists_classes_and_photos_that_are_not_used(tmp_path):
    touch(tmp_path, "train/hat/a/b.jpg", "train/hat/.hidden", "val/hat/c.jpg", "train/d.jpg")
    touch(tmp_path, "more/e.png", "readme.txt", "train/shoes/")
    result = scan(Config(data=str(tmp_path)), tmp_path)
    assert result.classes == {"train": ["hat", "shoes"], "validation": ["hat"]}
    assert [photo.name for photo in result.photos] == ["train/hat/a/b.jpg", "val/hat/c.jpg"]
    assert result.unused == ["more/e.png", "train/d.jpg"]


def splits_of(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    result = scan(Config(data=str(folder)), folder / "cache")
    assert result.faults == result.class_faults == []
    found: dict[str, list[str]] = {}
    for photo in result.photos:
        found.setdefault(photo.split, []).append(f"{photo.label}/{photo.path.name}")
    return found, result.notes


BOTH = ["hat/a.jpg", "bag/b.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("Training", "Testing"),
        ("TRAIN", "Test-Data"),
        ("trainImages", "testImages"),
        ("01 train", "02 test"),
        ("shop_train", "shop_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("photos/train", "photos/test"),
    ],
)
def test_names_of_splits_as_people_write_them(names, tmp_path):
    touch(tmp_path, *(f"{folder}/{name}" for folder in names for name in BOTH))
    found, notes = splits_of(tmp_path)
    assert found == {"train": ["bag/b.jpg", "hat/a.jpg"], "test": ["bag/b.jpg", "hat/a.jpg"]}
    assert "there is no folder for validation: a tenth of the training photos is used" in notes
    outer = names[0].split("/")[0]
    said = any(f"{outer} is taken for train" in note for note in notes)
    assert said == (outer.lower() not in ("train", "photos"))


def test_classes_that_are_named_like_splits_are_none(tmp_path):
    touch(tmp_path, "train/1.jpg", "bus/2.jpg", "test tubes/3.jpg", "training shoes/big/4.jpg")
    found, _ = splits_of(tmp_path)
    assert found == {"": ["bus/2.jpg", "test tubes/3.jpg", "train/1.jpg", "training shoes/4.jpg"]}


@pytest.mark.parametrize("outer", ["flowers", "a/b/c", "train", "flowers/train"])
def test_photos_one_folder_too_deep_are_found_and_that_is_said(outer, tmp_path):
    touch(tmp_path, *(f"{outer}/{name}" for name in BOTH), "readme.txt")
    found, notes = splits_of(tmp_path)
    assert found == {"": ["bag/b.jpg", "hat/a.jpg"]}
    assert notes


def test_what_systems_and_this_project_write_is_no_class(tmp_path):
    touch(tmp_path, *BOTH, "__MACOSX/x.jpg", "@eaDir/x.jpg", ".ipynb_checkpoints/x.jpg")
    touch(tmp_path, "hat/Thumbs.db", "hat/desktop.ini", "hat/@eaDir/x.jpg", "cache/prepared/x.jpg")
    touch(tmp_path, "results/search/best_config.json", "results/final/confusion.png")
    touch(tmp_path, "other/.final.lock", "venv/pyvenv.cfg", "venv/logo.png")
    assert splits_of(tmp_path) == ({"": ["bag/b.jpg", "hat/a.jpg"]}, [])
    assert scan(Config(data=str(tmp_path)), tmp_path / "cache").unused == []


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere", "c.jpg", "more/d.jpg")
    photos = touch(tmp_path / "photos", *BOTH)
    (photos / "hat" / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "hat" / "linked" / "more" / "loop").symlink_to(photos / "hat")
    assert splits_of(photos)[0] == {"": ["bag/b.jpg", "hat/a.jpg", "hat/c.jpg", "hat/d.jpg"]}
    assert scan(Config(data=str(photos)), tmp_path).unused == []


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (BOTH, ["other/x.jpg"]),
        (BOTH, ["OTHER/deeper/x.jpg"]),
        (BOTH, ["none of these/x.jpg"]),
        ([f"{split}/{name}" for split in ("train", "val") for name in BOTH], ["Other/x.jpg"]),
        (
            [f"{split}/{name}" for split in ("train", "val") for name in BOTH],
            ["other/x.jpg", "train/other/y.jpg", "val/Other/z.jpg"],
        ),
        ([f"train/{name}" for name in BOTH], ["other/x.jpg", "train/other/y.jpg"]),
        ([f"a/train/{name}" for name in [*BOTH, "c/d.jpg"]], ["a/other/x.jpg", "other/y.jpg"]),
    ],
)
def test_photos_of_none_of_the_classes_are_in_folders_named_other(names, others, tmp_path):
    result = scan(Config(data=str(touch(tmp_path, *names, *others))), tmp_path / "cache")
    assert result.faults == result.class_faults == result.unused == []
    assert {photo.name for photo in result.photos} == set(names)
    assert {(one.split, one.label) for one in result.others} == {("other", "other")}
    assert sorted(one.name for one in result.others) == sorted(others)
    note = f"other: {len(others)} files of none of the classes, which set the threshold of"
    assert result.notes[-1].startswith(note)


def test_other_makes_no_second_class_and_no_splits_into_classes(tmp_path):
    with pytest.raises(InputError, match="Only one class in .*: hat"):
        found(touch(tmp_path / "one", "hat/a.jpg", "other/x.jpg"))
    with pytest.raises(InputError, match="test and train without class folders"):
        found(touch(tmp_path / "none", "train/a.jpg", "test/b.jpg", "other/x.jpg"))


def test_labels_of_tables_and_names_may_be_other(tmp_path):
    touch(tmp_path, "hat_1.jpg", "bag_2.jpg", "Other_3.jpg", "images.csv")
    table = "file,label\nhat_1.jpg,hat\nbag_2.jpg,bag\nOther_3.jpg,OTHER\n"
    (tmp_path / "images.csv").write_text(table)
    for data, pattern in ((tmp_path / "images.csv", ""), (tmp_path, r"([A-Za-z]+)_\d")):
        result = scan(Config(data=str(data), label_pattern=pattern), tmp_path / "cache")
        assert result.classes == {"": ["bag", "hat"]}
        assert [(one.name, one.split) for one in result.others] == [("Other_3.jpg", "other")]
    (tmp_path / "images.csv").write_text("file,label\nhat_1.jpg,other\nbag_2.jpg,Other\n")
    with pytest.raises(InputError, match="All photos are labelled other: a classifier needs two"):
        scan(Config(data=str(tmp_path / "images.csv")), tmp_path / "cache")


def test_names_that_differ_in_case_or_form_are_the_same_class(tmp_path):
    composed, apart = "Hüte", unicodedata.normalize("NFD", "hüte")
    touch(tmp_path, f"train/{composed}/a.jpg", "train/bag/b.jpg", f"val/{apart}/c.jpg", "val/Bag/d")
    found, notes = splits_of(tmp_path)
    assert found["validation"] == ["Hüte/c.jpg", "bag/d"]
    assert "bag and Bag are taken for the same class" in notes


def test_an_archive_is_to_be_unpacked(tmp_path):
    touch(tmp_path, "photos.ZIP")
    with pytest.raises(InputError, match=r"photos.ZIP is an archive: unpack it"):
        scan(Config(data=str(tmp_path / "photos.ZIP")), tmp_path)


def test_sample_is_drawn_once_into_a_cache_given_relatively(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "sample-5/train/hat/a", "sample-5/train/bag/b", "sample-5/validation/hat/c")
    photos = scan(Config(data="sample", split_seed=5), Path()).photos
    assert photos[1].path == tmp_path.resolve() / "sample-5" / "train" / "hat" / "a"
