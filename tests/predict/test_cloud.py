"""Tests of names in cloud stores; a folder of this computer stands in for the stores."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError
from fashion_keras.predict import cloud
from fashion_keras.predict.cloud import arrow, expand_cloud, is_cloud, locate, read_object

if importlib.util.find_spec("pyarrow") is None:
    pytest.skip("needs the extra `ray`", allow_module_level=True)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that stands in for the bucket `s3://shop` and `gs://shop`."""
    fs = arrow("fs")

    def connect(store: str, bucket: str) -> Any:
        if bucket != "shop":
            raise InputError(f"no way to {bucket}")
        return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    monkeypatch.setattr(cloud, "_connect", connect)
    folder = tmp_path / "shop"
    for name in ("photos/b.jpg", "photos/a/2.jpg", "photos/a.jpg", "photos/.hidden/3.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize("name", ["s3://shop/a.jpg", "gs://shop/"])
def test_places_in_a_store_are_told_from_other_names(name: str) -> None:
    assert is_cloud(name)
    for other in ("hat.jpg", "https://shop/a.jpg", "s3", "s3:/shop", "folder/s3://shop"):
        assert not is_cloud(other)


def test_what_ends_in_a_slash_becomes_the_files_below(bucket: Path) -> None:
    names = ["hat.jpg", "gs://shop/x.jpg", "s3://shop/photos/", "s3://shop/photos/b.jpg", "hat.jpg"]
    assert expand_cloud(names) == [
        *("hat.jpg", "gs://shop/x.jpg"),
        *("s3://shop/photos/a/2.jpg", "s3://shop/photos/a.jpg", "s3://shop/photos/b.jpg"),
    ]
    assert expand_cloud(["gs://shop/"])[0] == "gs://shop/photos/a/2.jpg"


@pytest.mark.parametrize("name", ["s3://shop/empty/", "s3://shop/gone/"])
def test_a_place_without_files_is_an_error(name: str, bucket: Path) -> None:
    with pytest.raises(InputError, match=f"There is no file below {name}"):
        expand_cloud([name])


def test_every_bucket_is_tried_once(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(cloud, "_try", tried.append)
    expand_cloud([f"{store}://shop/{number}.jpg" for number in range(3) for store in ("s3", "gs")])
    assert tried == ["s3://shop/0.jpg", "gs://shop/0.jpg"]


def test_a_bucket_that_cannot_be_reached_is_an_error(bucket: Path) -> None:
    with pytest.raises(InputError, match="no way to other"):
        expand_cloud(["s3://shop/a.jpg", "s3://other/a.jpg"])


def test_a_bad_name_of_a_bucket_is_an_error() -> None:
    with pytest.raises(InputError, match="^gs://a b cannot be reached: .* Credentials are taken"):
        locate("gs://a b/1.jpg")
    for name in ("s3://", "s3:///1.jpg"):
        with pytest.raises(InputError, match=f"such as s3://bucket/photos/. Received: {name}$"):
            locate(name)


def test_photos_are_read(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_object("s3://shop/photos/a.jpg") == b"photos/a.jpg"
    with pytest.raises(PhotoError, match=r"^there is no such file \(a folder ends in `/`\)$"):
        read_object("s3://shop/gone.jpg")
    with pytest.raises(PhotoError, match="^no way to other$"):
        read_object("s3://other/a.jpg")
    monkeypatch.setattr(cloud, "_MOST_BYTES", 11)
    with pytest.raises(PhotoError, match="^too large: 12 bytes, at most 11 are read$"):
        read_object("s3://shop/photos/a.jpg")


def test_paths_belong_to_this_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filesystem, path = locate("folder/")
    assert (filesystem.type_name, path) == ("local", str(tmp_path / "folder"))
