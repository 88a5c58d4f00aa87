"""Tests of the download, from a server on this computer: whole, damaged, and refused."""

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.data import download as download_module
from fashion_keras.data.download import DIGEST, download, download_clothing, photos_digest

CONTENT = bytes(range(256)) * 8
PHOTOS = {"train/hat/1.jpg": b"a hat", "test/shoes/2.jpg": b"a shoe"}


def zip_of(photos: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in photos.items():
            archive.writestr(f"top-1/{name}", content)
    return packed.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at every address, and counts the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.requests = CONTENT, 200, 0
        self.sent: int | None = None  # Bytes after which the connection ends.
        self.address = f"http://127.0.0.1:{self.server_port}/photos.zip"


class Handler(BaseHTTPRequestHandler):
    """Answers like a server of files; the tests set how well it does."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:  # noqa: D102, N802 -- the name that http.server asks for.
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.sent])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, D102
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def clothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serve two photos in place of clothing-dataset-small."""
    server.content = zip_of(PHOTOS)
    known = b"".join(name.encode() + hashlib.sha256(PHOTOS[name]).digest() for name in PHOTOS)
    monkeypatch.setattr(download_module, "ADDRESS", server.address)
    monkeypatch.setattr(download_module, "DIGEST", hashlib.sha256(known).hexdigest())
    return server


def test_connection_that_ends_early_is_an_error(server: Server) -> None:
    download(server.address, file := io.BytesIO())
    assert file.getvalue() == CONTENT
    server.sent = 700
    with pytest.raises(InputError, match="ended after 700 of 2048 bytes. Name a folder"):
        download(server.address, io.BytesIO())


def test_unreachable_and_silent_servers_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/photos.zip"
        with pytest.raises(InputError, match=f"Cannot download {address}: timed out. Name a"):
            download(address, io.BytesIO(), timeout=0.1)
    with pytest.raises(InputError, match=f"Cannot download {address}: .*refused.*. Name a"):
        download(address, io.BytesIO())


def test_clothing_is_unpacked_once(clothing: Server, tmp_path: Path) -> None:
    folder = download_clothing(tmp_path / "cache")
    for name, content in PHOTOS.items():
        assert (folder / name).read_bytes() == content
    assert download_clothing(tmp_path / "cache") == folder
    assert list((tmp_path / "cache").iterdir()) == [folder]
    assert clothing.requests == 1


WHOLE = zip_of(PHOTOS | {"train/hat/1.jpg": b"a hat" * 100})
DATA = 30 + len("top-1/train/hat/1.jpg")  # After the header of the first file.
DAMAGED = {
    "cut": WHOLE[:-10],
    "data": WHOLE[:DATA] + b"\xff" + WHOLE[DATA + 1 :],
    "encrypted": WHOLE.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
    "other photos": WHOLE,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_archive_is_refused_and_removed(
    damage: str, clothing: Server, tmp_path: Path
) -> None:
    good, clothing.content = clothing.content, DAMAGED[damage]
    with pytest.raises(InputError, match="is damaged or was changed; it has been removed. Run the"):
        download_clothing(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    clothing.content = good
    assert download_clothing(tmp_path).is_dir()


def test_clothing_that_cannot_be_downloaded_names_other_ways(
    clothing: Server, tmp_path: Path
) -> None:
    clothing.status = 503
    reason = "HTTP Error 503: Service Unavailable"
    advice = "Name a folder with a copy of the photos instead, or try `sample`."
    with pytest.raises(InputError, match=f"Cannot download {clothing.address}: {reason}. {advice}"):
        download_clothing(tmp_path)


@pytest.mark.real
def test_digest_of_the_real_photos_is_the_pinned_one(real_data: Path) -> None:
    assert photos_digest(real_data) == DIGEST
