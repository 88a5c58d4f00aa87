"""Fetches photos from web addresses, within limits of time and size."""

import base64
import http.client
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from fashion_keras import __version__
from fashion_keras.data.photo import PhotoError

MOST_BYTES = 50_000_000
MOST_SECONDS = 20.0
_HEADERS = {
    "User-Agent": f"fashion_keras/{__version__}",  # Some hosts of photos require one.
    "Accept": "image/*, */*;q=0.5",
}


def is_address(name: str) -> bool:
    """Return whether a name is the address of a photo on the web, or holds it, and is no path."""
    return name.lower().startswith(("http://", "https://", "data:image/"))


def fetch_photo(address: str) -> bytes:
    """Return what a server sends for a photo's address, at most `MOST_BYTES`; thread-safe.

    Raises:
        PhotoError: If the server cannot be reached, answers with an error or a web page, or takes
            more than `MOST_SECONDS`.
    """
    deadline = time.monotonic() + MOST_SECONDS
    if address.lower().startswith("data:"):
        return _decoded(address)
    try:
        with urllib.request.urlopen(_request(address), timeout=MOST_SECONDS) as answer:  # noqa: S310
            return _read(answer, deadline)
    except PhotoError:
        raise
    except urllib.error.HTTPError as error:
        error.close()  # It holds the connection.
        raise PhotoError(f"the server answered {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # An URLError wraps the error of the system.
        if isinstance(reason, TimeoutError):
            raise PhotoError(f"took longer than {MOST_SECONDS:g} s") from error
        raise PhotoError(f"cannot be fetched: {reason}") from error


def _decoded(address: str) -> bytes:
    """Return the bytes that an address of the scheme `data` holds (RFC 2397)."""
    kind, _, content = address.partition(",")
    content = unquote_to_bytes(content)
    if not kind.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise PhotoError(f"its base64 is damaged: {error}") from error


def _request(address: str) -> urllib.request.Request:
    parts = urlsplit(address)
    # Lists of addresses hold spaces and umlauts; `%` is safe, as most are quoted already.
    path, query = (quote(part, safe="!$%&'()*+,/:;=?@[]~") for part in (parts.path, parts.query))
    quoted = parts._replace(path=path, query=query, fragment="").geturl()
    return urllib.request.Request(quoted, headers=_HEADERS)  # noqa: S310 (see `fetch_photo`)


def _read(answer: Any, deadline: float) -> bytes:
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise PhotoError("is a web page, not a photo")
    content = bytearray()
    while chunk := answer.read1(65536):  # Returns what has come, however little.
        content += chunk
        if len(content) > MOST_BYTES:
            raise PhotoError(f"too large: more than {MOST_BYTES / 1e6:g} MB")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(content)
