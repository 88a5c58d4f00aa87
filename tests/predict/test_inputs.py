"""Tests of what a user may name: files, folders, patterns, addresses and lists."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.photo import PhotoError
from fashion_keras.predict.inputs import expand, find_files, is_address, read_named, take_any_name

FILES = ("a.jpg", "b/1.jpg", "b/2.jpg", "b/deep/3.png", "b/.hidden/4.jpg", "b/.5.jpg", "c/6.jpg")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start in a folder with files, so that names are short."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), "red").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reason_of(name: str) -> str:
    with pytest.raises(PhotoError) as failed:
        read_named(name)
    return str(failed.value)


def test_files_stay_as_they_are_named_each_once_and_in_order() -> None:
    assert expand(["c/6.jpg", "a.jpg", "c/6.jpg"]) == ["c/6.jpg", "a.jpg"]


def test_folder_gives_all_files_in_it_and_below_by_name_without_hidden_ones() -> None:
    assert expand(["b"]) == expand(["b/"]) == ["b/1.jpg", "b/2.jpg", "b/deep/3.png"]
    assert find_files(Path("b")) == [Path("b/1.jpg"), Path("b/2.jpg"), Path("b/deep/3.png")]
    assert expand(["."]) == ["a.jpg", "b/1.jpg", "b/2.jpg", "b/deep/3.png", "c/6.jpg"]
    assert expand(["b/2.jpg", "b"]) == ["b/2.jpg", "b/1.jpg", "b/deep/3.png"]


def test_hidden_folder_that_is_named_is_looked_into() -> None:
    assert expand(["b/.hidden"]) == ["b/.hidden/4.jpg"]
    assert expand(["b/.5.jpg"]) == ["b/.5.jpg"]


def test_folder_that_leads_back_into_itself_is_looked_into_once(here: Path) -> None:
    (here / "c" / "loop").symlink_to(here)
    assert expand(["c"]) == ["c/6.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b/*.jpg", ["b/1.jpg", "b/2.jpg"]),
        ("b/?.jpg", ["b/1.jpg", "b/2.jpg"]),
        ("b/[2-9].jpg", ["b/2.jpg"]),
        ("**/*.jpg", ["a.jpg", "b/1.jpg", "b/2.jpg", "c/6.jpg"]),
        ("**/*.png", ["b/deep/3.png"]),
        ("[bc]", ["b/1.jpg", "b/2.jpg", "b/deep/3.png", "c/6.jpg"]),
        ("b/**", ["b/1.jpg", "b/2.jpg", "b/deep/3.png"]),
        ("b/.*.jpg", ["b/.5.jpg"]),
    ],
)
def test_patterns(pattern: str, expected: list[str], here: Path) -> None:
    assert expand([pattern]) == expected
    assert expand([f"{here}/{pattern}"]) == [f"{here}/{name}" for name in expected]


@pytest.mark.parametrize("name", ["a[1].jpg", "what?.jpg", "*.jpg", "[1]"])
def test_file_that_is_really_called_like_a_pattern(name: str, here: Path) -> None:
    (here / "a.jpg").rename(here / name)
    assert expand([name]) == [name]
    assert read_named(name).shape == (8, 9, 3)
    assert name in expand(["."])
    assert name in expand(["[a[w*]*"])


def test_folder_that_is_really_called_like_a_pattern(here: Path) -> None:
    (here / "b").rename(here / "b[1]")
    assert expand(["b[1]"]) == ["b[1]/1.jpg", "b[1]/2.jpg", "b[1]/deep/3.png"]


def test_pattern_that_nothing_fits_stays_and_says_so() -> None:
    for pattern in ("b/*.gif", "nowhere/*.jpg", "b/[3-9].jpg", "[", "x" * 300 + "*"):
        assert expand([pattern]) == [pattern]
        assert reason_of(pattern) == "no file fits this pattern"


@pytest.mark.parametrize("address", ["http://a.b/*.jpg", "https://a.b/c?d=[1]", "HTTPS://a.b/c"])
def test_addresses_stay_as_they_are(address: str) -> None:
    assert is_address(address)
    assert expand([address, "a.jpg"]) == [address, "a.jpg"]


@pytest.mark.parametrize("name", ["a.jpg", "http/a.jpg", "httpsomething", "ftp://a.b/c.jpg"])
def test_names_are_no_addresses(name: str) -> None:
    assert not is_address(name)


def test_list_is_read_once_and_holds_all_that_can_be_named(here: Path) -> None:
    listed = ["c\n", "b/*.jpg\r\n", "\n", "a.jpg", "http://a.b/c\n", " with spaces.jpg \n", "-\n"]
    expected = ["c/6.jpg", "b/1.jpg", "b/2.jpg", "a.jpg", "http://a.b/c", " with spaces.jpg ", "-"]
    assert expand(["-"], listed) == expected
    assert expand(["b", "-", "gone.jpg", "-"], iter(listed)) == [
        *("b/1.jpg", "b/2.jpg", "b/deep/3.png", "c/6.jpg"),
        *("a.jpg", "http://a.b/c", " with spaces.jpg ", "-", "gone.jpg"),
    ]


def test_list_is_not_read_if_it_is_not_named() -> None:
    def fail() -> Iterator[str]:
        raise AssertionError("the list was read")
        yield ""

    assert expand(["a.jpg"], fail()) == ["a.jpg"]
    assert expand([]) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", "cannot be opened: No such file or directory"),
        ("", "cannot be opened: "),  # Not all of the current folder.
        ("zero\0byte.jpg", "cannot be opened: embedded null byte"),
        ("zero\0byte*.jpg", "cannot be opened: embedded null byte"),
        ("x" * 300, "File name too long"),
        ("a.jpg/b.jpg", "cannot be opened: Not a directory"),
    ],
)
def test_names_of_nothing_stay_and_have_their_reason(name: str, reason: str) -> None:
    assert expand([name]) == [name]
    assert reason in reason_of(name)


def test_folder_without_files_stays_and_says_so(here: Path) -> None:
    (here / "empty" / "below").mkdir(parents=True)
    (here / "empty" / ".hidden.jpg").touch()
    assert expand(["empty"]) == ["empty"]
    assert reason_of("empty") == "a folder without files"


def test_broken_link_is_listed_and_says_so(here: Path) -> None:
    (here / "c" / "link.jpg").symlink_to("nothing.jpg")
    assert expand(["c", "c/link*"]) == ["c/6.jpg", "c/link.jpg"]
    assert reason_of("c/link.jpg") == "a link to a file that does not exist"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_folder_without_permission_is_a_row_not_a_silent_gap(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.scandir

    def refuse(folder: str | Path) -> Iterator[os.DirEntry]:
        if Path(folder) == Path("b/deep") or "c" in Path(folder).parts[:1]:
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    def refuse_list(folder: str) -> list[str]:
        return [entry.name for entry in refuse(folder)]

    monkeypatch.setattr(
        os, "scandir", refuse
    )  # The superuser, as whom tests may run, may read all.
    monkeypatch.setattr(os, "listdir", refuse_list)
    assert expand(["b", "c"]) == ["b/1.jpg", "b/2.jpg", "b/deep", "c"]
    assert reason_of("b/deep") == reason_of("c") == "cannot be opened: Permission denied"


def test_photo_is_read_by_its_name(here: Path) -> None:
    np.testing.assert_array_equal(read_named("b/deep/3.png"), np.full((8, 9, 3), (255, 0, 0)))


@pytest.mark.parametrize("allow_private", [True, False])
def test_photo_is_fetched_by_its_address(
    allow_private: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(address: str, allow_private: bool) -> bytes:
        asked.append((address, allow_private))
        return (here / "a.jpg").read_bytes()

    monkeypatch.setattr("fashion_keras.predict.inputs.fetch_photo", fetch)
    assert read_named("https://a.b/c", allow_private).shape == (8, 9, 3)
    assert asked == [("https://a.b/c", allow_private)]


def test_nothing_private_is_fetched_if_nothing_is_said() -> None:
    assert "local network" in reason_of("http://127.0.0.1:9/a.jpg")


def test_names_that_are_not_utf_8_are_read_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = b"\xff\xe4.jpg\n"
    source = io.TextIOWrapper(io.BytesIO(name), encoding="utf-8")
    target = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", source)
    monkeypatch.setattr(sys, "stdout", target)
    take_any_name()
    [read] = expand(["-"], sys.stdin)
    assert os.fsencode(read) == name.rstrip()
    print(read, flush=True)
    assert target.buffer.getvalue() == name  # pyright: ignore[reportAttributeAccessIssue]


def test_streams_of_another_sort_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    take_any_name()
