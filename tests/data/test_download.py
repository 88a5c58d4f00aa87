"""Tests of the download, from files and a socket of this computer: whole, damaged, and refused."""

import hashlib
import io
import socket
import threading
import zipfile
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.data import download as download_module
from fashion_keras.data.download import DIGEST, download, download_clothing, photos_digest

PHOTOS = {"train/hat/1.jpg": b"a hat" * 100, "test/shoes/2.jpg": b"a shoe"}


def zip_of(photos: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in photos.items():
            archive.writestr(f"top-1/{name}", content)
    return packed.getvalue()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two photos in place of the archive of clothing-dataset-small."""
    file = tmp_path / "photos.zip"
    file.write_bytes(zip_of(PHOTOS))
    known = b"".join(name.encode() + hashlib.sha256(PHOTOS[name]).digest() for name in PHOTOS)
    monkeypatch.setattr(download_module, "ADDRESS", file.as_uri())
    monkeypatch.setattr(download_module, "DIGEST", hashlib.sha256(known).hexdigest())
    return file


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("200 OK\r\nContent-Length: 2048\r\n\r\nabc", "the connection ended after 3 of 2048 bytes"),
        ("503 Service Unavailable\r\n\r\n", "HTTP Error 503: Service Unavailable"),
        ("", "timed out"),
    ],
)
def test_failed_download_names_address_reason_and_other_ways(answer, reason, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 {answer}".encode() if answer else b"")
            done.wait(0 if answer else 5)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/photos.zip"
        advice = "Name a folder with a copy of the photos instead, or try `sample`."
        with pytest.raises(InputError, match=f"Cannot download {address}: {reason}. {advice}"):
            download(address, io.BytesIO(), timeout=5 if answer else 0.1)
        done.set()
        thread.join()
    with pytest.raises(InputError, match=f"Cannot download {address}: .*refused.*. Name a"):
        download(address, io.BytesIO())


def test_clothing_is_unpacked_once(archive, tmp_path):
    folder = download_clothing(tmp_path / "cache")
    for name, content in PHOTOS.items():
        assert (folder / name).read_bytes() == content
    archive.unlink()
    assert download_clothing(tmp_path / "cache") == folder
    assert list((tmp_path / "cache").iterdir()) == [folder]


@pytest.mark.parametrize("content", [b"<html>Log in</html>", zip_of({"train/hat/1.jpg": b"a cap"})])
def test_other_content_is_refused_and_removed(content, archive, tmp_path):
    good = archive.read_bytes()
    archive.write_bytes(content)
    with pytest.raises(InputError, match="is damaged or was changed; it has been removed. Run the"):
        download_clothing(tmp_path / "cache")
    assert all(path.suffix == ".lock" for path in (tmp_path / "cache").iterdir())
    archive.write_bytes(good)
    assert download_clothing(tmp_path / "cache").is_dir()


@pytest.mark.real
def test_digest_of_the_real_photos_is_the_pinned_one(real_data):
    assert photos_digest(real_data) == DIGEST
