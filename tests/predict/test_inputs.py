"""Tests of what a user may name: files, folders, patterns, addresses and lists."""

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data.photo import PhotoError
from fashion_keras.predict.inputs import expand, read_list, read_named
from tests.builders import encoded

HALVES = Image.new("RGB", (9, 8), "red")
HALVES.paste("blue", (0, 0, 4, 8))
FILES = ("a.jpg", "b/1.jpg", "b/2.jpg", "b/deep/3.png", "b/.hidden/4.jpg", "b/.5.jpg", "c/6.jpg")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Start in a folder with files, so that names are short."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        HALVES.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reason(name):
    with pytest.raises(PhotoError) as failed:
        read_named(name)
    return str(failed.value)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["c/6.jpg", "a.jpg", "c/6.jpg"], ["c/6.jpg", "a.jpg"]),
        (["b/2.jpg", "b/"], ["b/2.jpg", "b/1.jpg", "b/deep/3.png"]),
        (["b/.hidden"], ["b/.hidden/4.jpg"]),  # Hidden ones can be named.
        (["https://a.b/c?d=[1]", "a.jpg"], ["https://a.b/c?d=[1]", "a.jpg"]),
    ],
)
def test_files_folders_and_addresses(inputs, expected):
    assert expand(inputs) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b/*.jpg", ["b/1.jpg", "b/2.jpg"]),
        ("b/[2-9].jpg", ["b/2.jpg"]),
        ("**/*.jpg", ["a.jpg", "b/1.jpg", "b/2.jpg", "c/6.jpg"]),
        ("[bc]", ["b/1.jpg", "b/2.jpg", "b/deep/3.png", "c/6.jpg"]),
        ("b/**", ["b/1.jpg", "b/2.jpg", "b/deep/3.png"]),
        ("b/.*.jpg", ["b/.5.jpg"]),
    ],
)
def test_patterns(pattern, expected, here):
    assert expand([pattern]) == expected
    assert expand([f"{here}/{pattern}"]) == [f"{here}/{name}" for name in expected]


@pytest.mark.parametrize("name", ["a[1].jpg", "*.jpg"])
def test_file_that_is_really_called_like_a_pattern(name, here):
    (here / "a.jpg").rename(here / name)
    assert expand([name]) == [name]
    assert read_named(name).shape == (8, 9, 3)
    assert name in expand(["."])
    assert name in expand(["[a[w*]*"])


def test_list_holds_all_that_can_be_named():
    listed = ["c\n", "b/*.jpg\r\n", "\n", "a.jpg", "http://a.b/c\n", " with spaces.jpg \n", "-\n"]
    assert expand(["b", "-", "gone.jpg", "-"], iter(listed)) == [
        *("b/1.jpg", "b/2.jpg", "b/deep/3.png", "c/6.jpg"),
        *("a.jpg", "http://a.b/c", " with spaces.jpg ", "-", "gone.jpg"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone.jpg", "cannot be opened: No such file or directory"),
        ("", "cannot be opened: "),  # Not all of the current folder.
        ("zero\0byte*.jpg", "embedded null byte"),
        ("x" * 300, "File name too long"),
        ("a.jpg/b.jpg", "cannot be opened: Not a directory"),
        ("b/*.gif", "no file matches this pattern"),
        ("x" * 300 + "*", "no file matches this pattern"),
    ],
)
def test_names_of_nothing_stay_and_have_their_reason(name, expected):
    assert expand([name]) == [name]
    assert expected in reason(name)


def test_folder_without_files_and_broken_link_stay_and_have_their_reason(here):
    (here / "empty" / "below").mkdir(parents=True)
    (here / "empty" / ".hidden.jpg").touch()
    (here / "c" / "link.jpg").symlink_to("nothing.jpg")
    assert expand(["empty", "c", "c/link*"]) == ["empty", "c/6.jpg", "c/link.jpg"]
    assert reason("empty") == "a folder without files"
    assert reason("c/link.jpg") == "a link to a file that does not exist"


def test_photo_is_read_or_fetched_by_its_name(here, monkeypatch):
    content = (here / "b/deep/3.png").read_bytes()
    monkeypatch.setattr("fashion_keras.predict.inputs.fetch_photo", lambda address: content)
    for name in ("b/deep/3.png", "https://a.b/c"):
        np.testing.assert_array_equal(read_named(name), np.asarray(HALVES))


def test_photo_in_an_address_is_read():
    held = encoded(HALVES)
    for text in (f";base64,{base64.b64encode(held).decode()}", f",{quote(held)}"):
        [name] = expand([f"data:image/png{text}"])
        np.testing.assert_array_equal(read_named(name), np.asarray(HALVES))
    assert "base64 is damaged" in reason("data:image/png;base64,_")


def test_photo_of_a_single_colour_has_its_reason():
    Image.new("RGB", (9, 8), "red").save("a.jpg")
    assert reason("a.jpg") == "of a single colour: nothing can be seen"


UMLAUT = "hüte.jpg"


@pytest.mark.parametrize(
    "content",
    [
        UMLAUT.encode(),
        b"\xef\xbb\xbf" + UMLAUT.encode() + b"\r\n",
        f'"{UMLAUT}"\r\n'.encode(),
        f"'{UMLAUT}'\n".encode(),
        f"{UMLAUT}\r\n".encode("utf-16"),
        f"{UMLAUT}\n".encode("cp1252"),
        f"~/{UMLAUT}".encode(),
        b"file://",
    ],
)
def test_lists_as_windows_and_spreadsheets_write_them(content, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "a.jpg").rename(here / UMLAUT)
    content = (here / UMLAUT).as_uri().encode() if content == b"file://" else content
    listed = io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
    [name] = expand(["-"], read_list(listed))
    assert Path(name).samefile(UMLAUT)
    assert read_named(name).shape == (8, 9, 3)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that apply")
def test_folder_without_permission_stays_and_has_its_reason(here):
    (here / "closed").mkdir(mode=0)
    assert expand(["closed"]) == ["closed"]
    assert reason("closed") == "cannot be opened: Permission denied"
