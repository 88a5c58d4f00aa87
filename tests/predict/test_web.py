"""Tests of fetching photos, against real servers on this computer."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fashion_keras.data.photo import PhotoError
from fashion_keras.predict import web
from fashion_keras.predict.web import fetch_photo, is_address

PHOTO = b"\xff\xd8\xff photo \r\n\0\xff" * 9
ANSWERS = {  # Status and a header by the first part of the path; others are the photo.
    "missing": (404, ()),
    "page": (200, ("Content-Type", "text/html; charset=utf-8")),
    "moved": (302, ("Location", "/photo/there.jpg")),
    "loop": (302, ("Location", "/loop/")),
    "file": (302, ("Location", "file:///etc/passwd")),
}


class Handler(BaseHTTPRequestHandler):
    """Answers as `ANSWERS` says, some of them slowly."""

    def do_GET(self):  # noqa: D102
        self.server.asked.append((self.path, dict(self.headers)))  # pyright: ignore
        kind = self.path.split("/")[1]
        status, header = ANSWERS.get(kind, (200, ()))
        time.sleep(0.5 if kind == "silence" else 0)
        self.send_response(status)
        if header:
            self.send_header(*header)
        with contextlib.suppress(OSError):  # Clients hang up.
            self.end_headers()
            for byte in PHOTO if kind == "drip" else ():
                time.sleep(0.02)
                self.wfile.write(bytes([byte]))
            self.wfile.write(PHOTO)

    def log_message(self, format, *_):  # noqa: A002, D102
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server, monkeypatch):
    """Return the address of the server, which is not behind a proxy of this computer."""
    monkeypatch.setenv("no_proxy", "*")
    server.asked.clear()
    return f"http://127.0.0.1:{server.server_port}"


def reason(address):
    with pytest.raises(PhotoError) as failed:
        fetch_photo(address)
    return str(failed.value)


def test_addresses_begin_with_their_protocol():
    assert all(map(is_address, ["http://a.b/*.jpg", "https://a.b/c?d=[1]", "HTTPS://a.b/c"]))
    assert not any(map(is_address, ["a.jpg", "http/a.jpg", "httpsomething", "ftp://a.b/c.jpg"]))


def test_photo_is_fetched_by_one_request(url, server):
    assert fetch_photo(f"{url}/photo/hat.jpg?size=9#part") == PHOTO
    [(path, headers)] = server.asked
    assert path == "/photo/hat.jpg?size=9"
    assert headers["User-Agent"].startswith("fashion_keras/")
    assert headers["Accept-Encoding"] == "identity"


def test_addresses_are_quoted_where_needed(url, server):
    fetch_photo(f"{url}/größe 7%20.jpg?c=%2F+ d")
    assert server.asked[0][0] == "/gr%C3%B6%C3%9Fe%207%20.jpg?c=%2F+%20d"


def test_redirects_are_followed_to_web_addresses_only(url, server):
    assert fetch_photo(f"{url}/moved/") == PHOTO
    assert [path for path, _ in server.asked] == ["/moved/", "/photo/there.jpg"]
    assert "is not allowed" in reason(f"{url}/file/")
    assert "infinite loop" in reason(f"{url}/loop/")


def test_what_is_no_photo_has_its_reason(url):
    assert reason(f"{url}/page/") == "is a web page, not a photo"
    assert reason(f"{url}/missing/") == "the server answered 404 Not Found"


def test_photo_of_up_to_the_limit_is_read(url, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", len(PHOTO))
    assert fetch_photo(f"{url}/photo/") == PHOTO
    monkeypatch.setattr(web, "MOST_BYTES", len(PHOTO) - 1)
    assert reason(f"{url}/photo/").startswith("too large: more than ")


@pytest.mark.parametrize("kind", ["drip", "silence"])
def test_slow_servers_are_left(kind, url, monkeypatch):
    monkeypatch.setattr(web, "MOST_SECONDS", 0.1)
    assert reason(f"{url}/{kind}/") == "took longer than 0.1 s"


@pytest.mark.parametrize("address", ["http://", "http://[::1", "http://x:y/", "http://localhost:1"])
def test_what_cannot_be_reached_has_a_reason(address, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    assert reason(address).startswith("cannot be fetched: ")
