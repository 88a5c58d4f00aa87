"""One web address becomes the bytes of a photo, without a way into the local network."""

import functools
import http.client
import io
import re
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urljoin, urlsplit

from fashion_keras import __version__
from fashion_keras.data.photo import PhotoError

MOST_BYTES = 50_000_000  # Of one answer, its headers included.
MOST_SECONDS = 20.0  # For all of a photo: looking names up, connecting, redirects, reading.
MOST_REDIRECTS = 5
# Blocks that lead to no host of the internet although `ipaddress.is_global` says so, at least in
# some patch releases of Python: Azure's metadata service, IETF, 6to4, multicast. Of IPv6 only
# 2000::/3 is given out to hosts; inside it are Teredo, 6to4 and addresses for examples.
_NOT_PUBLIC = [
    *map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4")),
    *map(ip_network, ("::/3", "4000::/2", "8000::/1", "2001::/23", "2002::/16", "3fff::/20")),
]
_NAT64 = ip_network("64:ff9b::/96")  # How a network without IPv4 reaches IPv4 (RFC 6052).
_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|script|title)\b", re.I)


class WebError(PhotoError):
    """A photo cannot be fetched; the message is the reason, without the address."""


class _TooLargeError(Exception):
    """More than `MOST_BYTES` came. No `ValueError`, as `http.client` would swallow it."""


class _Target(NamedTuple):
    """An address and the parts of it that a request needs; `host` and `path` are ASCII."""

    address: str
    secure: bool
    host: str
    port: int
    path: str


class _Answer(io.RawIOBase):
    """What a server sends on one connection, under the deadline and the size limit.

    Every byte passes here. A timeout of the socket alone would hold for one call, so a server
    that drips bytes would never meet it; and `http.client` reads lines, and chunks of whatever
    size the server claims, in one call.
    """

    def __init__(self, line: socket.socket, deadline: float) -> None:
        self._line = line
        self._deadline = deadline
        self._bytes_left = MOST_BYTES

    def makefile(self, mode: str) -> io.BufferedReader:
        """Do what `http.client` asks of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(_seconds_left(self._deadline))
        count = self._line.recv_into(buffer)
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise _TooLargeError
        return count


def fetch_photo(address: str, allow_private: bool = False) -> bytes:
    """Fetch one photo from the web.

    Nothing is fetched from this computer or the local network: each host, also of a redirect, is
    looked up once, all addresses found must be public, and the connection goes to one of these
    very addresses, so that a name server that changes its answer gains nothing. For the same
    reason the proxies named in the environment are not used: a proxy looks names up itself.
    May be called from many threads at once.

    Args:
        address: Begins with `http://` or `https://`.
        allow_private: Also fetch from this computer and the local network.

    Returns:
        What the server sent, less than `MOST_BYTES`; nothing says yet that it is a photo.

    Raises:
        WebError: If the address leads to one that is not public, gives a web page or no answer,
            or takes more than `MOST_SECONDS`, `MOST_BYTES` or `MOST_REDIRECTS`.
    """
    deadline = time.monotonic() + MOST_SECONDS
    try:
        return _follow(address, allow_private, deadline)
    except WebError:
        raise
    except (_TooLargeError, OSError, ValueError, OverflowError, http.client.HTTPException) as error:
        raise WebError(_reason(error)) from error


def _follow(address: str, allow_private: bool, deadline: float) -> bytes:
    """Ask for `address`, then for what it redirects to, until a photo comes."""
    target = _parse(address)
    for _ in range(MOST_REDIRECTS + 1):
        with closing(_connect(target, allow_private, deadline)) as line:
            with closing(_ask(line, target, deadline)) as response:
                response.begin()
                if response.status not in (301, 302, 303, 307, 308):
                    return _read(response)
                # Headers are decoded as Latin-1, though servers write UTF-8.
                location = response.getheader("Location", "").encode("latin-1")
        before, target = target, _parse(location.decode("utf-8", "replace"), target.address)
        if before.secure and not target.secure:
            # Who gives https expects that nobody on the way can exchange the photo.
            raise WebError("redirects from https to http, which is not safe")
    raise WebError(f"redirects more than {MOST_REDIRECTS} times")


def _parse(address: str, base: str = "") -> _Target:
    try:
        parts = urlsplit(urljoin(base, address))
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path = quote(path, safe="!$%&'()*+,/:;=?@[]~")  # `%`, as most of it is quoted already.
    except ValueError as error:
        raise WebError("not a web address") from error
    if parts.scheme not in ("http", "https"):
        raise WebError("only addresses that begin with http:// or https:// are fetched")
    if "@" in parts.netloc:
        raise WebError("an address with a user name or password in it is not fetched")
    if not re.fullmatch(r"[a-z0-9._:-]+", host):
        raise WebError("not a web address")
    secure = parts.scheme == "https"
    port = (443 if secure else 80) if port is None else port
    return _Target(parts.geturl(), secure, host, port, path)


def _connect(target: _Target, allow_private: bool, deadline: float) -> socket.socket:
    found = _look_up(target, deadline)
    if not allow_private and not all(_is_public(place[0]) for place in found):
        raise WebError("points to an address of the local network")
    line = _dial(found, deadline)
    if not target.secure:
        return line
    with closing(line):  # `wrap_socket` takes the connection out of it.
        line.settimeout(_seconds_left(deadline))
        return _tls().wrap_socket(line, server_hostname=target.host.rstrip("."))


def _look_up(target: _Target, deadline: float) -> list[tuple[str, int]]:
    """Return each of the host's addresses, in digits, and the port."""
    found: Future = Future()

    def ask() -> None:
        try:
            found.set_result(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.set_exception(error)

    # `getaddrinfo` knows no time limit, so a thread waits for it, if need be after this function.
    threading.Thread(target=ask, daemon=True).start()
    return [place[:2] for *_, place in found.result(_seconds_left(deadline))]


def _is_public(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_global and not any(address in block for block in _NOT_PUBLIC)


def _dial(found: list[tuple[str, int]], deadline: float) -> socket.socket:
    """Connect to the first address that answers, each with its share of the time."""
    failure = OSError("no address")  # An address in digits is not looked up again.
    for number, place in enumerate(found):
        try:
            return socket.create_connection(place, _seconds_left(deadline) / (len(found) - number))
        except OSError as error:
            failure = error
    raise failure


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # Checks certificates and names; takes 30 ms to make.


def _ask(line: socket.socket, target: _Target, deadline: float) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.default_port = 443 if target.secure else 80
    connection.sock = line  # So `http.client` does not connect, which would look the name up.
    line.settimeout(_seconds_left(deadline))
    headers = {
        "User-Agent": f"fashion_keras/{__version__}",  # Some hosts of photos refuse to do without.
        "Accept": "image/*, */*;q=0.5",
        "Accept-Encoding": "identity",  # Packed, a small answer could unpack to any size.
        "Connection": "close",
    }
    connection.request("GET", target.path, headers=headers)
    return http.client.HTTPResponse(cast(socket.socket, _Answer(line, deadline)), method="GET")


def _read(response: http.client.HTTPResponse) -> bytes:
    if response.status != http.client.OK:
        words = http.client.responses.get(response.status, "")  # The server's could be anything.
        raise WebError(f"answered {response.status} {words}".rstrip())
    if response.getheader("Content-Encoding", "identity").strip().lower() != "identity":
        raise WebError("came compressed, though it was asked for as it is")
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise WebError("is a web page, not a photo")
    if (response.length or 0) > MOST_BYTES:
        raise _TooLargeError
    content = b"".join(iter(functools.partial(response.read, 65536), b""))
    if response.length:  # `http.client` takes an early end for the end.
        raise http.client.IncompleteRead(b"", response.length)
    if _HTML.match(content):
        raise WebError("is a web page, not a photo")
    return content


def _seconds_left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _reason(error: Exception) -> str:
    reasons = {  # The first one that fits counts.
        TimeoutError: f"took longer than {MOST_SECONDS:g} s",
        _TooLargeError: f"too large: more than {MOST_BYTES / 1e6:g} MB",
        socket.gaierror: "its host's name cannot be looked up",
        ssl.SSLCertVerificationError: f"bad certificate: {getattr(error, 'verify_message', '')}",
        ssl.SSLError: "no secure connection can be made",
        ConnectionRefusedError: "refuses connections",
        (ConnectionError, http.client.IncompleteRead): "broke the connection off",
        OSError: f"cannot be reached: {getattr(error, 'strerror', None) or error}",
        # `http.client` also passes on mistakes of its own, as with a chunk of -5 bytes.
        Exception: "does not answer as a web server does",
    }
    return next(words for kind, words in reasons.items() if isinstance(error, kind))
