"""Tests of walking folders: every fault of the layout is named, none stops the walk."""

import pytest

from fashion_keras.check.census import take_census
from fashion_keras.config import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def wrong(folder):
    found = take_census(str(folder), folder).findings
    return [item for finding in found if finding.kind == "layout" for item in finding.items]


def test_files_empty_classes_and_strays_are_listed(tmp_path):
    touch(tmp_path, "train/hat/a/b.jpg", "train/hat/.hidden", "val/hat/c.jpg", "train/d.jpg")
    touch(tmp_path, "more/e.png", "readme.txt")
    (tmp_path / "train" / "shoes").mkdir()
    census = take_census(str(tmp_path), tmp_path)
    assert census.classes == {"train": ["hat", "shoes"], "validation": ["hat"]}
    assert [photo.name for photo in census.photos] == ["train/hat/a/b.jpg", "val/hat/c.jpg"]
    assert census.unused == ["more/e.png", "train/d.jpg"]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["train/hat/a.jpg", "train/bag/a.jpg"], "no folder validation"),
        (["val/hat/a", "valid/hat/b", "train/hat/c", "train/bag/d"], "two folders for validation"),
        (["hat/a.jpg"], "only one class: hat"),
        (["a.jpg"], "no class folders"),
        (["train/a.jpg", "validation/b.jpg"], "no class folders in train or validation"),
        (["hat\n/a.jpg", "bag/a.jpg"], r"a class folder whose name cannot be shown: 'hat\n'"),
    ],
)
def test_faults_of_the_layout_are_named(names, fault, tmp_path):
    assert fault in "\n".join(wrong(touch(tmp_path, *names)))


def test_a_good_layout_has_no_faults(tmp_path):
    assert wrong(touch(tmp_path, "hat/a.jpg", "bag/a.jpg")) == []


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No folder"):
        take_census(str(tmp_path / "nowhere"), tmp_path)
