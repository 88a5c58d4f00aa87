"""Tests of decisions on single photos: reading, writing, and what they do to a data set."""

import dataclasses
import re
import shutil
import unicodedata

import pytest

from fashion_keras.config import Config, InputError, with_whole_paths
from fashion_keras.data.prepare import Prepared, prepare, summary
from fashion_keras.data.review import Decision, read_review, write_review
from fashion_keras.data.scan import scan
from fashion_keras.evaluate import labelled_photos, with_review
from tests.data.test_scan import touch

LABELS = ["hat", "Shoe"]
DECISIONS = {
    "hat/é, 1.jpg": Decision("keep"),
    "hat/2.jpg": Decision("move", "Shoe"),
    "Shoe/3.jpg": Decision("drop"),
}


def places(prepared: Prepared) -> set[tuple[str, str]]:
    return {(photo.file, photo.label) for photo in prepared.photos}


def test_a_written_file_is_read_again_also_from_a_spreadsheet(tmp_path):
    file = tmp_path / "results" / "a.csv"
    write_review(file, DECISIONS)
    assert file.read_bytes().startswith(b"\xef\xbb\xbffile,action,label\r\n")
    assert read_review(file, LABELS) == DECISIONS
    name = unicodedata.normalize("NFD", "hat/é, 1.jpg")  # As macOS writes it.
    rows = f"file;action;label\n{name};Keep;\nhat/2.jpg;move;shoe\nShoe/3.jpg;drop\n"
    file.write_text(rows, encoding="utf-8")
    assert read_review(file, LABELS) == DECISIONS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns file, action, label; file, action, label is missing"),
        (
            "file,label\na,b\n",
            "line 1: expected the columns file, action, label; action is missing",
        ),
        ("file,action,label\na,keep,\n\nb,burn,\n", "line 4: `action` must be one of keep, move"),
        ('file,action,label\n"a\nb",keep,\nc,move,sock\n', "line 4: `label` must be one of hat, S"),
        ("file,action,label\na,move\n", "`label` must be one of hat, Shoe, other. Received"),
        ("file,action,label\na,keep,hat\n", "line 2: only `move` takes a label. Received: keep"),
        ("file,action,label\na,keep,\na,drop,\n", "line 3: an earlier line has the same file, a"),
        ("file,action,label\n,drop,\n", "line 2: expected the path of a photo. Received: nothing"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_line(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_review(tmp_path / "a.csv", LABELS)


def test_dropped_photos_are_not_used_and_moved_ones_change_class(sample_folder, tmp_path):
    photos, file = shutil.copytree(sample_folder, tmp_path / "photos"), tmp_path / "a.csv"
    hats = sorted(path.relative_to(photos).as_posix() for path in photos.glob("train/hat/*"))
    gone: list[str] = ["train/hat/none.jpg", "a", "b", "c"]
    decisions = {hats[0]: Decision("drop"), hats[1]: Decision("move", "dress")}
    decisions |= {hats[2]: Decision("keep"), hats[3]: Decision("move", "hat")}
    write_review(file, decisions | dict.fromkeys(gone, Decision("drop")))
    config = Config(data=str(photos))
    before = prepare(config, tmp_path / "cache")
    after = prepare(dataclasses.replace(config, review=str(file)), tmp_path / "cache")
    lost = {(hats[0], "hat"), (hats[1], "hat")}
    assert places(after) == places(before) - lost | {(hats[1], "dress")}
    read = [photo.prepared for photo in after.split("train")]
    assert read == sorted(read)  # As Keras lists the folder.
    note = "review a.csv: 1 photo dropped, 1 moved; 4 of its photos are not there"
    assert f"{note} (train/hat/none.jpg, a, b, ...)" in summary(after)
    moved = file.rename(tmp_path / "b.csv")  # What it says decides, not where it is.
    again = dataclasses.replace(config, review=str(moved))
    assert prepare(again, tmp_path / "cache").folder == after.folder
    write_review(moved, {hats[2]: Decision("keep")})
    assert prepare(again, tmp_path / "cache").folder == before.folder


@pytest.mark.parametrize(
    ("action", "label", "faults"),
    [
        ("move", "b", ([], [])),  # So a class is merged with another.
        ("drop", "", ([], [])),
        ("drop both", "", (["Fewer than two classes are left after the review"], [])),
        ("drop train", "", ([], ["The review leaves the class 'a' no photo for training."])),
    ],
)
def test_classes_may_go_but_not_from_training_alone(action, label, faults, tmp_path):
    names = [f"{split}/{label}/1.jpg" for split in ("train", "test") for label in "abc"]
    touch(tmp_path, *names)
    word, _, which = action.partition(" ")
    chosen = [name for name in names if {"both": "/c/" not in name}.get(which, "/a/" in name)]
    chosen = [name for name in chosen if which != "train" or "train" in name]
    write_review(tmp_path / "a.csv", dict.fromkeys(chosen, Decision(word, label)))
    found = scan(Config(data=str(tmp_path), review=str(tmp_path / "a.csv")), tmp_path / "cache")
    assert ([fault.partition(" /")[0] for fault in found.faults], found.class_faults) == faults
    left = {name.split("/")[1] for name in names if name not in chosen} | {*label}
    assert found.classes["train"] == sorted(left)


def test_photos_are_moved_to_other_and_out_of_it(tmp_path):
    touch(tmp_path, *(f"train/{label}/{number}.jpg" for label in "ab" for number in (1, 2)))
    touch(tmp_path, "val/a/1.jpg", "val/b/1.jpg", "other/x.jpg", "other/y.jpg", "other/z.jpg")
    decisions = {"train/a/1.jpg": Decision("move", "other"), "other/x.jpg": Decision("drop")}
    file = tmp_path.with_suffix(".csv")
    write_review(file, decisions | {"other/y.jpg": Decision("move", "b")})
    found = scan(Config(data=str(tmp_path), review=str(file)), tmp_path / "cache")
    assert [photo.name for photo in found.others] == ["train/a/1.jpg", "other/z.jpg"]
    assert {photo.split for photo in found.others} == {"other"}
    (moved,) = [photo for photo in found.photos if photo.name == "other/y.jpg"]
    assert (moved.split, moved.label, len(found.photos)) == ("train", "b", 6)
    assert found.notes[-1].startswith("other: 2 files of none of the classes")


def test_a_search_hands_the_file_on_with_its_whole_path(tmp_path, monkeypatch):
    write_review(tmp_path / "a.csv", {})
    monkeypatch.chdir(tmp_path)
    assert with_whole_paths(Config(review="a.csv")).review == str(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"No review at gone.csv; `python -m fashion_keras.check"):
        prepare(Config(data="sample", review="gone.csv"), tmp_path)


def test_photos_to_score_are_found_from_the_folder_of_a_split(sample_folder, tmp_path, capsys):
    file, folder = tmp_path / "a.csv", sample_folder / "test"
    photos = labelled_photos(folder, labels := sorted(path.name for path in folder.iterdir()))
    names = [f"test/{photo.name}" for photo in photos]
    decisions = {names[0]: Decision("drop"), names[1]: Decision("move", labels[-1])}
    decisions[names[2]] = Decision("move", "other")  # It has no category to be scored by.
    write_review(file, decisions | {"train/hat/1.jpg": Decision("drop")})
    found = with_review(photos, folder, labels, str(file))
    assert found == [photos[1]._replace(label=labels[-1]), *photos[3:]]
    assert capsys.readouterr().out == "review a.csv: 1 photo dropped, 2 moved\n"
    assert with_review(photos, folder, labels, "") == photos
    write_review(file, {photos[0].name: Decision("drop")})  # The folder is the whole data set.
    assert with_review(photos, folder, labels, str(file)) == photos[1:]
    write_review(file, dict.fromkeys(names, Decision("drop")))
    with pytest.raises(InputError, match="The review a.csv leaves no photo"):
        with_review(photos, folder, labels, str(file))
