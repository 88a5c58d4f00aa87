"""The service as its clients see it, on a real port."""

import base64
import dataclasses
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.limits import Limits
from fashion_keras.serve.served import Served
from tests.serve.running import KIND, LABELS, Reply, Running, photo, running, until

SECRET = "s3cret"  # noqa: S105 (none)


@pytest.fixture
def service(served: Served) -> Iterator[Running]:
    with running(served, Limits(photos=4, photo_bytes=50_000, body_bytes=200_000)) as one:
        yield one


def multipart(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--xyz\r\nContent-Disposition: form-data; name="photos"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


def test_every_way_of_sending_a_photo_gives_the_same_answer(service: Running) -> None:
    content = photo()
    ways = [
        service.ask("POST", "/predict", *multipart(("a", content))),
        service.ask("POST", "/predict", content, {"Content-Type": "image/jpeg"}),
        service.ask(
            "POST",
            "/predict",
            json.dumps({"base64": base64.b64encode(content).decode()}),
            {"Content-Type": "application/json"},
        ),
    ]
    assert [reply.status for reply in ways] == [200] * 3
    rows = [reply.json["photos"][0] | {"file": ""} for reply in ways]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["category"] in LABELS
    assert sum(one["probability"] for one in rows[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert ways[0].json["model"].startswith("small.keras@")
    assert 0 < ways[0].json["seconds"] < 20


def test_a_bad_photo_among_good_ones_has_its_reason(service: Running) -> None:
    reply = service.ask(
        "POST", "/predict", *multipart(("a", photo()), ("b", b"no"), ("c", photo(90, "PNG")))
    )
    assert reply.status == 200
    assert [bool(row["reason"]) for row in reply.json["photos"]] == [False, True, False]
    assert [row["file"] for row in reply.json["photos"]] == ["a", "b", "c"]


def test_photos_that_cannot_be_read_are_the_senders_mistake(service: Running) -> None:
    for content, reason in (
        (b"no photo", "not a photo"),
        (photo()[:300], "damaged"),
        (photo(side=5), "too small"),
        (b"", "no photo"),
    ):
        reply = service.ask("POST", "/predict", content, KIND)
        assert reply.status == 422
        assert reason in reply.json["reason"]
    both = service.ask("POST", "/predict", *multipart(("a", b"no"), ("b", b"neither")))
    assert (both.status, both.json["reason"]) == (422, "no photo can be read")
    assert len(both.json["photos"]) == 2


def test_refusals_are_json_with_a_reason(service: Running) -> None:
    for status, reply in (
        (404, service.ask("GET", "/nothing")),
        (405, service.ask("GET", "/predict")),
        (413, service.ask("POST", "/predict", b"x" * 60_000, KIND)),
        (413, service.ask("POST", "/predict", *multipart(*[("a", b"x")] * 5))),
        (415, service.ask("POST", "/predict", b"x", {"Content-Type": "text/plain"})),
        (403, service.ask("POST", "/predict", '{"url": "http://example.org"}',
                          {"Content-Type": "application/json"})),
        (422, service.ask("POST", "/explain?category=car", photo(), KIND)),
    ):  # fmt: skip
        assert reply.status == status
        assert reply.json["reason"]
    assert service.ask("GET", "/predict").headers["allow"] == "POST"


def test_too_large_a_body_is_refused_before_it_is_read(service: Running) -> None:
    with service.connect() as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert line.recv(4000).startswith(b"HTTP/1.1 413")


def test_a_body_of_unknown_length_is_refused_when_it_grows_too_large(service: Running) -> None:
    with service.connect() as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(4):
            line.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert line.recv(4000).startswith(b"HTTP/1.1 413")


def test_the_state_is_told(service: Running) -> None:
    assert service.ask("GET", "/health").json["status"] == "alive"
    ready = service.ask("GET", "/ready").json
    assert ready["status"] == "ready"
    labels = service.ask("GET", "/labels").json
    assert labels["labels"] == LABELS
    assert labels["model"] == ready["model"]
    assert (labels["most_photos"], labels["most_photo_bytes"]) == (4, 50_000)


def test_it_is_alive_but_not_ready_before_the_model_is_loaded() -> None:
    with running(None) as service:
        assert service.ask("GET", "/health").status == 200
        for reply in (service.ask("GET", "/ready"), service.ask("POST", "/predict", photo(), KIND)):
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")


def test_figures_count_what_happened(service: Running) -> None:
    service.ask("POST", "/predict", *multipart(("a", photo()), ("b", b"no")))
    service.ask("GET", f"/{SECRET}")
    told = service.ask("GET", "/metrics").body.decode().splitlines()
    for line in (
        'fashion_keras_requests_total{path="/predict",status="200"} 1.0',
        'fashion_keras_requests_total{path="other",status="404"} 1.0',
        'fashion_keras_photos_total{was="predicted"} 1.0',
        'fashion_keras_photos_total{was="unreadable"} 1.0',
        'fashion_keras_model_loads_total{was="loaded"} 1.0',
        "fashion_keras_waiting_photos 0.0",
    ):
        assert line in told


def test_log_lines_hold_no_secrets(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    body, kind = multipart((f"{SECRET}.jpg", photo()))
    service.ask("POST", f"/predict?key={SECRET}", body, kind | {"Authorization": SECRET})
    service.ask("GET", f"/{SECRET}")
    until(lambda: sum(record.name == "fashion_keras.access" for record in caplog.records) >= 2)
    assert SECRET not in caplog.text
    lines = [json.loads(one.message) for one in caplog.records if one.name.endswith("access")]
    told = next(line for line in lines if line["path"] == "/predict")
    assert (told["status"], told["photos"], told["method"]) == (200, 1, "POST")


def test_heads_are_answered_without_a_body(service: Running) -> None:
    for path in ("/", "/health", "/ready"):
        reply = service.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.headers["content-length"]) > 0


def test_browsers_are_told_to_load_nothing_from_elsewhere(service: Running) -> None:
    for path in ("/", "/docs", "/static/page.js", "/swagger/swagger-ui.css", "/nothing"):
        reply = service.ask("GET", path)
        assert reply.headers["content-security-policy"].startswith("default-src 'self'")
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert b"<h1>What category is it?</h1>" in service.ask("GET", "/").body


def test_a_photo_is_explained(service: Running) -> None:
    reply = service.ask("POST", f"/explain?category={LABELS[0]}", photo(), KIND)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.body.startswith(b"\xff\xd8")


def test_its_description_tells_all_answers(service: Running) -> None:
    paths = service.ask("GET", "/openapi.json").json["paths"]
    assert set(paths) == {"/health", "/ready", "/labels", "/metrics", "/predict", "/explain"}
    told = paths["/predict"]["post"]
    assert set(told["responses"]) == {
        "200", "400", "403", "408", "413", "415", "422", "503", "504",
    }  # fmt: skip
    assert "image/*" in told["requestBody"]["content"]


def test_requests_that_come_together_are_answered_each_with_its_own(service: Running) -> None:
    contents = [photo(level) for level in range(0, 150, 6)]
    alone = [service.ask("POST", "/predict", one, KIND).json["photos"] for one in contents]

    def ask(content: bytes) -> Reply:
        return service.ask("POST", "/predict", content, KIND)

    with ThreadPoolExecutor(25) as pool:
        together = [reply.json["photos"] for reply in pool.map(ask, contents)]
    for (one,), (other,) in zip(alone, together, strict=True):
        assert one["category"] == other["category"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def ended(line: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    received = b""
    try:
        while more := line.recv(4000):
            received += more
    except ConnectionResetError:
        pass
    return received


def test_slow_senders_lose_their_connection(served: Served) -> None:
    with running(served, Limits(seconds_to_send=0.5)) as service:
        start = time.monotonic()
        with service.connect() as silent, service.connect() as half, service.connect() as slow:
            half.sendall(b"GET /health HTTP/1.1\r\nHost: ")
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: 1000\r\n\r\nabc"
            )
            assert ended(silent) == b""
            assert ended(half) == b""
            assert ended(slow).startswith(b"HTTP/1.1 408")
        assert 0.4 < time.monotonic() - start < 10


def test_what_comes_after_the_answer_is_not_read_for_ever(served: Served) -> None:
    with running(served, Limits(seconds_to_send=0.5)) as service, service.connect() as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert line.recv(4000).startswith(b"HTTP/1.1 415")
        until(lambda: not _takes_more(line))


def _takes_more(line: socket.socket) -> bool:
    try:
        line.sendall(b"x" * 1000)
    except ConnectionError:
        return False
    return True


def test_who_does_not_read_the_answer_loses_the_connection(served: Served) -> None:
    with running(served, Limits(seconds_to_send=0.5, connections=1)) as service:
        with service.connect() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            until(lambda: _alive(service))


def test_clients_that_leave_make_room_for_others(served: Served) -> None:
    gate = threading.Event()

    def predict(pixels: np.ndarray) -> np.ndarray:
        assert gate.wait(20)
        return np.full((len(pixels), 3), 1 / 3, "float32")

    served.queue.close()
    slow = dataclasses.replace(served, queue=ModelQueue(predict, [1]))
    with running(slow, Limits(photos=2, waiting=4)) as service:
        body, kind = multipart(("a", photo()), ("b", photo()))
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {kind['Content-Type']}\r\n\r\n"
        for _ in range(5):
            with service.connect() as line:
                line.sendall(head.encode() + body)
                until(lambda: waiting(service) == 2)
            until(lambda: waiting(service) == 0)
        gate.set()
        assert service.ask("POST", "/predict", body, kind).status == 200


def waiting(service: Running) -> float:
    told = service.ask("GET", "/metrics").body.decode()
    return float(told.split("\nfashion_keras_waiting_photos ")[1].split("\n")[0])


def test_connections_over_the_limit_are_turned_away(served: Served) -> None:
    with running(served, Limits(connections=3)) as service:
        lines = [service.connect() for _ in range(3)]
        until(lambda: b"too many connections" in _told(service))
        for line in lines:
            line.close()
        until(lambda: _alive(service))
        told = service.ask("GET", "/metrics").body.decode()
        assert 'fashion_keras_requests_total{path="connection",status="503"}' in told


def _told(service: Running) -> bytes:
    with service.connect() as line:
        return ended(line)


def _alive(service: Running) -> bool:
    try:
        return service.ask("GET", "/health").status == 200
    except ConnectionError:
        return False
