"""Tests of sorting photos into folders: nothing is lost, replaced or put elsewhere."""

import os
import stat
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.sorting import check_labels, place


def photo(file, content="content"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def files_in(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("link", [False, True])
def test_photo_gets_into_the_folder_under_its_name(link, tmp_path):
    file = photo(tmp_path / ("a" * 250 + ".jpg"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    file.chmod(0o444)
    placed = place(file, tmp_path / "sorted" / "hat", link)
    assert placed.is_symlink() == link
    assert files_in(tmp_path / "sorted" / "hat") == {file.name: "content"}
    assert placed.stat().st_mtime == 1_000_000_000
    assert stat.S_IMODE(placed.stat().st_mode) == 0o444


@pytest.mark.parametrize("link", [False, True])
def test_other_photos_of_the_same_name_get_a_number(link, tmp_path):
    files = [photo(tmp_path / str(number) / "a.b.jpg", f"photo {number}") for number in range(3)]
    for file in files:
        os.utime(file, (1_000_000_000, 1_000_000_000))  # Size and date do not make them equal.
    expected = {"a.b.jpg": "photo 0", "a.b (2).jpg": "photo 1", "a.b (3).jpg": "photo 2"}
    places = [place(file, tmp_path / "hat", link) for file in files]
    assert files_in(tmp_path / "hat") == expected
    assert [place(file, tmp_path / "hat", not link) for file in files] == places
    assert files_in(tmp_path / "hat") == expected


def test_photo_that_is_in_its_folder_and_a_broken_link_stay(tmp_path):
    file = photo(tmp_path / "hat" / "a.jpg")
    assert place(file, tmp_path / "hat", link=True) == file
    assert not file.is_symlink()
    (tmp_path / "hat" / "b.jpg").symlink_to("gone")
    placed = place(photo(tmp_path / "b.jpg"), tmp_path / "hat", link=False)
    assert placed == tmp_path / "hat" / "b (2).jpg"
    assert not (tmp_path / "hat" / "gone").exists()


def test_links_lead_to_the_photo_and_copies_of_links_are_photos(tmp_path, monkeypatch):
    photo(tmp_path / "photos" / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "b.jpg"):
        placed = place(Path(name), Path("sorted/hat"), link=True)
        assert placed.readlink() == tmp_path / "photos" / "a.jpg"
    assert not place(Path("b.jpg"), Path("copies"), link=False).is_symlink()


NO_NAMES = ["../x", "..", "/x", "a\\b", ".hidden", "", "uncertain", "none of these"]


@pytest.mark.parametrize("label", NO_NAMES)
def test_label_that_is_no_name_of_a_folder_is_refused(label):
    with pytest.raises(InputError, match="cannot be the name of a folder|would be mixed with"):
        check_labels(["hat", label])
    check_labels(["t-shirt", "long sleeve", "hat.", "Größe 7"])
