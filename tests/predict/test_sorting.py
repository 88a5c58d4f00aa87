"""Tests of sorting photos into folders: nothing is lost, replaced or put elsewhere."""

import os
import stat
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.sorting import check_labels, place


def photo(file: Path, content: str = "content") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("link", [False, True])
def test_photo_gets_into_the_folder_under_its_name(link: bool, tmp_path: Path) -> None:
    file = photo(tmp_path / "a.jpg")
    placed = place(file, tmp_path / "sorted" / "hat", link)
    assert placed == tmp_path / "sorted" / "hat" / "a.jpg"
    assert placed.is_symlink() == link
    assert files_in(placed.parent) == {"a.jpg": "content"}
    assert file.read_text() == "content"
    assert not file.is_symlink()


def test_copy_is_another_file_of_the_same_date(tmp_path: Path) -> None:
    file = photo(tmp_path / "a.jpg")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    placed = place(file, tmp_path / "hat", link=False)
    assert placed.stat().st_mtime == 1_000_000_000
    file.write_text("changed")
    assert placed.read_text() == "content"


def test_copy_can_be_written_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that may not be written is common, and its owner may not open such a copy again."""
    modes = []
    monkeypatch.setattr(os, "fsync", lambda number: modes.append(os.fstat(number).st_mode))
    file = photo(tmp_path / "a.jpg")
    file.chmod(0o444)
    placed = place(file, tmp_path / "hat", link=False)
    assert modes[0] & stat.S_IWUSR
    assert stat.S_IMODE(placed.stat().st_mode) == 0o444


@pytest.mark.parametrize("link", [False, True])
def test_other_photos_of_the_same_name_get_a_number(link: bool, tmp_path: Path) -> None:
    for number in range(3):
        file = photo(tmp_path / str(number) / "a.b.jpg", f"photo {number}")
        place(file, tmp_path / "hat", link)
    assert files_in(tmp_path / "hat") == {
        "a.b (2).jpg": "photo 1",
        "a.b (3).jpg": "photo 2",
        "a.b.jpg": "photo 0",
    }


@pytest.mark.parametrize("link", [False, True])
def test_photo_that_is_there_already_stays_alone(link: bool, tmp_path: Path) -> None:
    files = [photo(tmp_path / str(number) / "a.jpg", f"photo {number}") for number in range(2)]
    places = [place(file, tmp_path / "hat", link) for file in files]
    before = [path.lstat().st_ino for path in places]
    assert [place(file, tmp_path / "hat", link) for file in files] == places
    assert [place(file, tmp_path / "hat", not link) for file in files] == places
    assert [path.lstat().st_ino for path in places] == before
    assert len(files_in(tmp_path / "hat")) == 2


def test_same_size_and_date_do_not_make_two_photos_the_same(tmp_path: Path) -> None:
    for number in range(2):
        file = photo(tmp_path / str(number) / "a.jpg", f"photo {number}")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        place(file, tmp_path / "hat", link=False)
    assert len(files_in(tmp_path / "hat")) == 2


def test_photo_that_lies_in_its_folder_stays(tmp_path: Path) -> None:
    file = photo(tmp_path / "hat" / "a.jpg")
    assert place(file, tmp_path / "hat", link=True) == file
    assert files_in(tmp_path / "hat") == {"a.jpg": "content"}
    assert not file.is_symlink()


@pytest.mark.parametrize("taken", ["folder", "broken link"])
def test_name_that_is_taken_by_something_else(taken: str, tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    if taken == "folder":
        (tmp_path / "hat" / "a.jpg").mkdir()
    else:
        (tmp_path / "hat" / "a.jpg").symlink_to("gone")
    placed = place(photo(tmp_path / "a.jpg"), tmp_path / "hat", link=False)
    assert placed == tmp_path / "hat" / "a (2).jpg"
    assert placed.read_text() == "content"
    assert not (tmp_path / "gone").exists()
    assert not (tmp_path / "hat" / "gone").exists()


def test_link_leads_to_the_photo_wherever_it_is_seen_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "photos" / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "b.jpg"):
        placed = place(Path(name), Path("sorted/hat"), link=True)
        assert placed.readlink() == tmp_path / "photos" / "a.jpg"


def test_copy_of_a_link_is_a_photo(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").symlink_to(photo(tmp_path / "a.jpg"))
    placed = place(tmp_path / "b.jpg", tmp_path / "hat", link=False)
    assert not placed.is_symlink()
    assert placed.read_text() == "content"


def test_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        place(photo(tmp_path / "a.jpg"), tmp_path / "hat", link=False)
    assert list((tmp_path / "hat").iterdir()) == []


@pytest.mark.parametrize("label", ["../x", "..", "a/b", "/x", "a\\b", ".hidden", ""])
def test_label_that_is_no_name_of_a_folder_is_refused(label: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a folder") as refused:
        check_labels(["hat", label])
    assert repr(label) in str(refused.value)


def test_label_that_means_uncertain_photos_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be told from uncertain photos"):
        check_labels(["hat", "uncertain"])


def test_plain_labels_are_taken() -> None:
    check_labels(["t-shirt", "long sleeve", "hat.", "Größe 7"])
