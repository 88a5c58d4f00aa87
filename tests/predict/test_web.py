"""Tests of fetching: which addresses are refused, and which servers give which reason.

Real servers answer on loopback, which is therefore allowed there; names and public addresses are
made up by a name service of the test's own, and connections to them diverted to such a server.
"""

import contextlib
import ipaddress
import random
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fashion_keras.data.photo import PhotoError
from fashion_keras.predict import web
from fashion_keras.predict.web import WebError, fetch_photo

PHOTO = b"\xff\xd8\xff photo \r\n\0\xff" * 9
PUBLIC = "93.184.216.34"
LOCAL = "points to an address of the local network"
NO_SCHEME = "only addresses that begin with http:// or https:// are fetched"
WITH_USER = "an address with a user name or password in it is not fetched"
NO_ADDRESS = "not a web address"
NO_SERVER = "does not answer as a web server does"
TOO_LARGE = "too large: more than 0.01 MB"
IS_PAGE = "is a web page, not a photo"


def answer(content=PHOTO, status="200 OK", length=True, **headers):
    """Return a whole answer of a server as bytes; underscores in names of headers are hyphens."""
    if length:
        headers["Content_Length"] = len(content)
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + content


def redirect(location, status="302 Found"):
    return answer(b"", status, Location=location)


def chunked(content, size=7):
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return answer(body, length=False, Transfer_Encoding="chunked")


class Server(socketserver.ThreadingTCPServer):
    """A server whose answers are bytes, or a pair of bytes sent at once and bytes dripped after."""

    daemon_threads = False  # So that closing waits for all threads.
    request_queue_size = 64

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.port = self.server_address[1]
        self.answers, self.requests, self.server_names = [], [], []
        self.stop = threading.Event()
        self.context = context
        if context:
            context.sni_callback = lambda line, name, context: self.server_names.append(name)

    def url(self, path="/", host="127.0.0.1", scheme="http"):
        """Return a web address that leads here."""
        return f"{scheme}://{host}:{self.port}{path}"

    def get_request(self):
        """Accept one connection, encrypted if there is a context for that."""
        line, place = super().get_request()
        if self.context:
            line = self.context.wrap_socket(line, server_side=True, do_handshake_on_connect=False)
        return line, place

    def finish_request(self, request: Any, client_address):
        """Answer one connection; the last answer is sent again and again."""
        with contextlib.suppress(OSError), request.makefile("rb") as text:  # Clients hang up.
            lines = []
            while line := text.readline().decode("latin-1").rstrip("\r\n"):
                lines.append(line)
            if not lines:
                return  # A client that hung up, too.
            self.requests.append(lines)
            self.send(request, self.answers.pop(0) if self.answers[1:] else self.answers[0])

    def send(self, connection, content):
        """Send an answer, the dripped part at a hundred bytes a second."""
        at_once, dripped = content if isinstance(content, tuple) else (content, b"")
        connection.sendall(at_once)
        for byte in dripped:
            if self.stop.wait(0.01):
                return
            connection.sendall(bytes([byte]))


class RudeServer(Server):
    """A server that answers without reading anything."""

    def finish_request(self, request, client_address):
        """Answer one connection."""
        with contextlib.suppress(OSError):
            self.send(request, self.answers[0])


@contextlib.contextmanager
def serving(context=None, kind=Server):
    with kind(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server
        finally:
            server.stop.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def rude_server():
    with serving(kind=RudeServer) as running:
        yield running


@pytest.fixture
def short_deadline(monkeypatch):
    monkeypatch.setattr(web, "MOST_SECONDS", 0.15)


class NameService:
    """What `socket.getaddrinfo` says of names: their next list of addresses; `asked` are names."""

    def __init__(self, monkeypatch):
        self.answers, self.asked = {}, []
        real = socket.getaddrinfo

        def look_up(host, port, *arguments, **settings):
            if ":" in host or host.replace(".", "").isdigit():
                return real(host, port, *arguments, **settings)
            self.asked.append(host)
            answers = self.answers[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [entry for digits in found for entry in real(digits, port, type=1)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def names(monkeypatch):
    return NameService(monkeypatch)


@pytest.fixture
def dialled(monkeypatch, server):
    """Return the list of all places connected to; connections go to `server` in their stead."""
    places = []

    class Diverted(socket.socket):
        def __init__(self, family=socket.AF_INET, *arguments, **settings):
            family = socket.AF_INET if family == socket.AF_INET6 else family
            super().__init__(family, *arguments, **settings)

        def connect(self, place):
            places.append(place[:2])
            super().connect(("127.0.0.1", server.port))

    monkeypatch.setattr(socket, "socket", Diverted)
    return places


def reason_of(address, allow_private=True):
    with pytest.raises(WebError) as failed:
        fetch_photo(address, allow_private)
    return str(failed.value)


def reason_when(server, *answers):
    server.answers[:] = answers
    return reason_of(server.url())


def test_errors_are_those_of_photos():
    assert issubclass(WebError, PhotoError)


def test_photo_is_fetched_by_one_plain_request(server):
    server.answers[:] = [answer(Content_Type="image/jpeg")]
    assert fetch_photo(server.url("/a%20b/ü c.jpg?q=ä&w=100%#part"), allow_private=True) == PHOTO
    ((first, *headers),) = server.requests
    assert first == "GET /a%20b/%C3%BC%20c.jpg?q=%C3%A4&w=100% HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in headers
    assert "Accept-Encoding: identity" in headers
    assert not [line for line in headers if line.startswith(("Cookie", "Authorization", "Referer"))]


def test_address_without_a_path_asks_for_the_root(server):
    server.answers[:] = [answer()]
    fetch_photo(f"HTTP://127.0.0.1:{server.port}?a", allow_private=True)
    assert server.requests[0][0] == "GET /?a HTTP/1.1"


@pytest.mark.parametrize(
    "content",
    [
        chunked(PHOTO),
        answer(length=False),
        answer(Content_Encoding="Identity"),
        b"HTTP/1.0 200\r\n\r\n" + PHOTO,
    ],
)
def test_all_ways_to_send_a_photo_are_read(server, content):
    server.answers[:] = [content]
    assert fetch_photo(server.url(), allow_private=True) == PHOTO


def test_photo_of_many_reads_comes_whole(server):
    content = random.Random(1).randbytes(1_000_003)  # noqa: S311 -- not for cryptography.
    server.answers[:] = [answer(content), chunked(content, 50_000)]
    assert fetch_photo(server.url(), allow_private=True) == content
    assert fetch_photo(server.url(), allow_private=True) == content


def test_many_threads_fetch_at_once(server):
    photos = [bytes([number]) * 50 for number in range(16)]
    server.answers[:] = [(answer(photo)[:-20], photo[-20:]) for photo in photos] + [b""]
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        fetched = list(pool.map(lambda _: fetch_photo(server.url(), True), photos))
    assert sorted(fetched) == photos
    assert socket.getdefaulttimeout() is None
    assert time.monotonic() - start < 2  # One after the other: 16 times 0.2 seconds.


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    server.answers[:] = [answer()]
    assert fetch_photo(server.url(), allow_private=True) == PHOTO


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("photo.jpg", NO_SCHEME),
        ("", NO_SCHEME),
        ("file:///etc/passwd", NO_SCHEME),
        ("ftp://example.com/", NO_SCHEME),
        ("http://me@example.com/", WITH_USER),
        ("http://:pw@example.com", WITH_USER),
        ("http://example.com\\@127.0.0.1/", WITH_USER),
        ("http://", NO_ADDRESS),
        ("http:///a.jpg", NO_ADDRESS),
        ("http://example.com:x/", NO_ADDRESS),
        ("http://example.com:65536/", NO_ADDRESS),
        ("http://[::1/", NO_ADDRESS),
        ("http://[fe80::1%25eth0]/", NO_ADDRESS),
        ("http://exa mple.com/", NO_ADDRESS),
        ("http://exam\0ple.com/", NO_ADDRESS),
        ("http://a..b/", NO_ADDRESS),
        ("http://example.com/\ud800", NO_ADDRESS),  # Python's stand-in for a broken byte.
        (f"http://{'a' * 64}.com/", NO_ADDRESS),
    ],
)
def test_what_is_no_web_address_is_refused_before_any_look_up(names, address, reason):
    assert reason_of(address) == reason
    assert not names.asked


FORBIDDEN = {
    "this computer": "127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3 [::1] [::]",
    "private": "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 "
    "[fc00::1] [fdff::1] [fec0::1]",
    "link-local": "169.254.0.1 169.254.255.255 [fe80::1] [febf::1]",
    "of clouds' metadata": "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 "
    "[fd00:ec2::254]",
    "of providers": "100.64.0.1 100.127.255.255 192.0.0.1 192.0.0.9 192.88.99.1 [2001:1::1]",
    "multicast and broadcast": "224.0.0.1 239.255.255.255 255.255.255.255 [ff02::1] [ff0e::1]",
    "tests and examples": "192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 "
    "[2001:db8::1] [2001:2::1] [3fff::1] [100::1]",
    "reserved": "240.0.0.1 254.255.255.255 [4000::1] [5f00::1] [8000::1] [2001:10::1]",
    "IPv4 in IPv6": "[::ffff:127.0.0.1] [::ffff:10.0.0.1] [::ffff:a9fe:a9fe] [::7f00:1] "
    "[::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::808:808]",
    "6to4 and Teredo": "[2002:7f00:1::] [2002:808:808::1] [2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "odd, as systems read them": "2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.1 0 localhost "
    "LocalHost ⓛocalhost １２７.０.０.１ 127。0。0。1",
}


@pytest.mark.parametrize("host", " ".join(FORBIDDEN.values()).split())
def test_addresses_that_are_not_public_are_refused(monkeypatch, host):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was dialled"))
    assert reason_of(f"http://{host}/a.jpg", allow_private=False) == LOCAL


AROUND_THEM = (
    "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 "
    "169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 223.255.255.255 "
    "2001:200::1 2003::1 2606:4700::1111 64:ff9b::8.8.8.8 ::ffff:8.8.8.8"
)


@pytest.mark.parametrize("host", AROUND_THEM.split())
def test_public_addresses_are_fetched(server, names, dialled, host):
    server.answers[:] = [answer()]
    names.answers["photos.example"] = [[host]]
    assert fetch_photo("http://photos.example/") == PHOTO
    assert [ipaddress.ip_address(place) for place, _ in dialled] == [ipaddress.ip_address(host)]


def test_nothing_passes_that_the_standard_library_calls_private():
    numbers = random.Random(1)  # noqa: S311 -- not for cryptography.
    fours = [ipaddress.IPv4Address(numbers.getrandbits(32)) for _ in range(4000)]
    sixes = [ipaddress.IPv6Address(numbers.getrandbits(125) | 1 << 125) for _ in range(4000)]
    for address in (*fours, *sixes):
        if not address.is_global or address.is_multicast or address.is_reserved:
            assert not web._is_public(str(address)), address


def test_name_is_looked_up_once_and_its_checked_address_dialled(server, names, dialled):
    server.answers[:] = [answer()]
    names.answers["photos.example"] = [[PUBLIC], ["127.0.0.1"]]  # A rebinding name server.
    assert fetch_photo("http://Photos.Example:8080/a.jpg") == PHOTO
    assert names.asked == ["photos.example"]
    assert dialled == [(PUBLIC, 8080)]
    assert "Host: photos.example:8080" in server.requests[0]


def test_host_of_the_usual_port_is_named_without_it(server, names, dialled):
    server.answers[:] = [answer()]
    names.answers["xn--mnchen-3ya.example"] = [["2606:4700::1111"]]
    assert fetch_photo("http://münchen.example/") == PHOTO
    assert fetch_photo("http://[2606:4700::1111]/") == PHOTO
    assert dialled == [("2606:4700::1111", 80)] * 2
    assert "Host: xn--mnchen-3ya.example" in server.requests[0]
    assert "Host: [2606:4700::1111]" in server.requests[1]


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "169.254.169.254"])
def test_name_with_one_private_address_among_others_is_refused(names, dialled, private):
    for found in ([PUBLIC, private], [private, PUBLIC]):
        names.answers["mixed.example"] = [found]
        assert reason_of("http://mixed.example/", allow_private=False) == LOCAL
    assert not dialled


def test_next_address_is_dialled_if_the_first_refuses(server, names):
    server.answers[:] = [answer()]
    names.answers["two.example"] = [["::1", "127.0.0.1"]]  # The server listens on one.
    assert fetch_photo(server.url(host="two.example"), allow_private=True) == PHOTO
    assert names.asked == ["two.example"]


def test_redirects_are_followed_and_looked_up_anew(server, names, dialled):
    names.answers.update({"one.example": [[PUBLIC]], "two.example": [["1.1.1.1"]]})
    server.answers[:] = [
        redirect("//two.example:81/b?c"),
        redirect("../ü x", "308 Permanent Redirect"),
        redirect("#part", "301 Moved Permanently"),
        redirect("http://one.example/d", "303 See Other"),
        redirect("/", "307 Temporary Redirect"),
        answer(),
    ]
    assert fetch_photo("http://one.example/a") == PHOTO
    hops = [("one", "/a"), ("two", "/b?c"), ("two", "/%C3%BC%20x"), ("two", "/%C3%BC%20x")]
    hops += [("one", "/d"), ("one", "/")]
    assert names.asked == [f"{name}.example" for name, _ in hops]
    assert [request[0].split()[1] for request in server.requests] == [path for _, path in hops]
    assert dialled == [(PUBLIC, 80), *[("1.1.1.1", 81)] * 3, *[(PUBLIC, 80)] * 2]


def test_redirects_for_ever_end(server):
    assert reason_when(server, redirect("/again")) == "redirects more than 5 times"
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://127.0.0.1/", LOCAL),
        ("http://[::ffff:169.254.169.254]/latest/meta-data", LOCAL),
        ("http://rebinding.example/", LOCAL),
        ("file:///etc/passwd", NO_SCHEME),
        ("http://me:pw@one.example/", WITH_USER),
        ("http://[", NO_ADDRESS),
    ],
)
def test_redirect_to_what_is_not_fetched_is_refused(server, names, dialled, location, reason):
    names.answers["rebinding.example"] = [[PUBLIC], ["10.0.0.1"]]
    server.answers[:] = [redirect(location), answer()]
    assert reason_of("http://rebinding.example/", allow_private=False) == reason
    assert dialled == [(PUBLIC, 80)]


def test_redirect_to_nowhere_ends(server):
    assert reason_when(server, answer(b"", "302 Found")) == "redirects more than 5 times"


def test_photo_of_up_to_the_limit_is_read(server, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", 10_000)
    server.answers[:] = [answer(bytes(9_900)), chunked(bytes(9_000), 500)]
    assert len(fetch_photo(server.url(), allow_private=True)) == 9_900
    assert len(fetch_photo(server.url(), allow_private=True)) == 9_000


def test_too_large_photo_is_refused_before_it_is_read(server, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", 10_000)
    monkeypatch.setattr(web.http.client.HTTPResponse, "read", lambda *_: pytest.fail("it was read"))
    assert reason_when(server, answer(bytes(10_001))) == TOO_LARGE


@pytest.mark.parametrize(
    "content",
    [
        chunked(bytes(20_000), 500),
        chunked(bytes(20_000), 20_000),
        answer(bytes(20_000), length=False),
        answer(bytes(20_000), length=False, Content_Length="-1"),
        answer(b"-1\r\n" + bytes(20_000), length=False, Transfer_Encoding="chunked"),
        answer(
            b"1;" + b"x" * 9_000 + b"\r\n" + bytes(20_000),
            length=False,
            Transfer_Encoding="chunked",
        ),
        answer(Filler="\r\nFiller: ".join(["x" * 400] * 50)),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000,
        b"x" * 20_000,
    ],
)
def test_too_large_answer_is_refused_while_it_is_read(server, monkeypatch, content):
    monkeypatch.setattr(web, "MOST_BYTES", 10_000)
    assert reason_when(server, content) == TOO_LARGE


DRIP = bytes(500)  # Five seconds of it.


def left_at_the_deadline(address):
    start = time.monotonic()
    reason = reason_of(address)
    return reason == "took longer than 0.15 s" and 0.15 <= time.monotonic() - start < 2


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize(
    "content",
    [
        (b"", DRIP),
        (b"HTTP/1.1 200 OK\r\nFiller: ", b"x" * 500),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
        (answer(DRIP)[: -len(DRIP)], DRIP),
        (answer(b"", length=False), DRIP),
        (answer(b"", length=False, Transfer_Encoding="chunked"), b"1\r\nx\r\n" * 80),
    ],
)
def test_server_that_drips_is_left_at_the_deadline(server, content):
    server.answers[:] = [content]
    assert left_at_the_deadline(server.url())


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_server_that_says_nothing_is_left_at_the_deadline(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert left_at_the_deadline(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.usefixtures("short_deadline")
def test_all_redirects_together_have_one_deadline(server):
    there = redirect("/")
    server.answers[:] = [(there[:-8], there[-8:])]  # 0.08 seconds each.
    assert left_at_the_deadline(server.url())


@pytest.mark.usefixtures("short_deadline")
def test_name_service_that_hangs_is_left_at_the_deadline(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(5) and [])
    assert left_at_the_deadline("http://slow.example/")
    over.set()


def test_addresses_that_hang_share_the_time(names, monkeypatch):
    names.answers["three.example"] = [["::1", "127.0.0.1", "127.0.0.2"]]
    dialled = {}

    def create_connection(place, timeout):
        dialled[place[0]] = timeout
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr(web, "MOST_SECONDS", 60)
    assert reason_of("http://three.example/") == "took longer than 60 s"
    assert list(dialled) == ["::1", "127.0.0.1", "127.0.0.2"]
    assert list(dialled.values()) == pytest.approx([20, 30, 60], abs=3)


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
def test_what_is_declared_a_web_page_is_not_read(server, monkeypatch, kind):
    monkeypatch.setattr(web.http.client.HTTPResponse, "read", lambda *_: pytest.fail("it was read"))
    assert reason_when(server, answer(Content_Type=kind)) == IS_PAGE


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><p>", b"\xef\xbb\xbf\r\n <HTML lang=en>", b"<head>", b"<script>x"]
)
def test_what_starts_like_a_web_page_is_called_one(server, content):
    assert reason_when(server, answer(content, Content_Type="image/jpeg")) == IS_PAGE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 \x1b[31mGone fishing", "answered 404 Not Found"),
        ("500 Oops", "answered 500 Internal Server Error"),
        ("204 No Content", "answered 204 No Content"),
        ("206 Partial Content", "answered 206 Partial Content"),
        ("300 Multiple Choices", "answered 300 Multiple Choices"),
        ("304 Not Modified", "answered 304 Not Modified"),
        ("799 Odd", "answered 799"),
    ],
)
def test_other_status_is_told_in_words_of_our_own(server, status, reason):
    assert reason_when(server, answer(b"<html>", status, Content_Type="text/html")) == reason


def test_compressed_answer_is_refused(server):
    reason = reason_when(server, answer(Content_Encoding="gzip"))
    assert reason == "came compressed, though it was asked for as it is"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broke the connection off"),
        (answer()[:-1], "broke the connection off"),
        (chunked(PHOTO)[:-9], "broke the connection off"),
        (b"SSH-2.0-OpenSSH\r\n", NO_SERVER),
        (b"HTTP/2.0 200 OK\r\n\r\n", NO_SERVER),
        (answer(b"-5\r\n", length=False, Transfer_Encoding="chunked"), NO_SERVER),
        (answer(b"-%x\r\n" % 2**70, length=False, Transfer_Encoding="chunked"), NO_SERVER),
        (answer(Filler="\r\nFiller: ".join("x" * 101)), NO_SERVER),
    ],
)
def test_answer_that_is_none_tells_why(server, content, reason):
    assert reason_when(server, content) == reason


def test_closed_port_refuses():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert reason_of(f"http://127.0.0.1:{free.getsockname()[1]}/") == "refuses connections"


def test_unknown_name_is_told(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert reason_of("http://no.example/") == "its host's name cannot be looked up"


def test_other_trouble_of_the_network_is_told_in_the_systems_words(monkeypatch):
    def fail(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", fail)
    assert reason_of("http://127.0.0.1/") == "cannot be reached: Network is unreachable"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return the file of a new certificate, with its key, for photos.example and 127.0.0.1."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("no openssl program to make a certificate with")
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test"
    names = ["-addext", "subjectAltName=DNS:photos.example,IP:127.0.0.1"]
    command = [openssl, *options.split(), *names, "-keyout", file, "-out", "-"]
    made = subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + made.stdout)
    return file


@pytest.fixture
def secure_server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as running:
        running.answers[:] = [answer()]
        yield running


@pytest.fixture
def trusted(certificate, monkeypatch):
    """Make the test's certificate one of those that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    web._tls.cache_clear()
    yield
    web._tls.cache_clear()


@pytest.mark.usefixtures("trusted")
def test_secure_server_is_asked_by_its_name(secure_server, names):
    names.answers["photos.example"] = names.answers["photos.example."] = [["127.0.0.1"]]
    for host in ("photos.example", "photos.example.", "127.0.0.1"):
        assert fetch_photo(secure_server.url("/", host, "https"), allow_private=True) == PHOTO
        assert f"Host: {host}:{secure_server.port}" in secure_server.requests[-1]
    assert secure_server.server_names == ["photos.example", "photos.example", None]


@pytest.mark.usefixtures("trusted")
def test_certificate_for_another_name_is_refused(secure_server, names):
    names.answers["other.example"] = [["127.0.0.1"]]
    reason = reason_of(secure_server.url("/", "other.example", "https"))
    assert reason.startswith("bad certificate: Hostname mismatch")
    assert not secure_server.requests


def test_certificate_that_nobody_vouches_for_is_refused(secure_server):
    reason = reason_of(secure_server.url(scheme="https"))
    assert reason == "bad certificate: self-signed certificate"
    assert not secure_server.requests


def test_server_without_encryption_is_no_secure_one(rude_server):
    rude_server.answers[:] = [answer()]
    assert reason_of(rude_server.url(scheme="https")) == "no secure connection can be made"


@pytest.mark.usefixtures("trusted")
def test_redirects_lead_to_https_but_not_back(server, secure_server):
    server.answers[:] = [redirect(secure_server.url("/", scheme="https"))]
    assert fetch_photo(server.url(), allow_private=True) == PHOTO
    secure_server.answers[:] = [redirect(server.url())]
    assert reason_of(server.url()) == "redirects from https to http, which is not safe"
    assert len(server.requests) == 2


@pytest.mark.usefixtures("trusted", "short_deadline")
def test_secure_server_that_drips_is_left_at_the_deadline(secure_server):
    secure_server.answers[:] = [(answer(DRIP)[: -len(DRIP)], DRIP)]
    assert left_at_the_deadline(secure_server.url(scheme="https"))


@pytest.mark.usefixtures("short_deadline")
def test_handshake_that_drips_is_left_at_the_deadline(rude_server):
    rude_server.answers[:] = [(b"\x16\x03\x03\x40\x00", DRIP)]  # The start of a long record.
    assert left_at_the_deadline(rude_server.url(scheme="https"))
