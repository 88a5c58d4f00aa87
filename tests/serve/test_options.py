"""Every option of the command changes the service."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.serve import server
from fashion_keras.serve.__main__ import main, options
from fashion_keras.serve.model import ServedModel
from fashion_keras.serve.settings import Settings, settings_of
from tests.builders import options_of
from tests.serve.running import Gate, Running, form, photo, running, until, with_predict

EFFECTS: dict[str, Callable[[ServedModel], None]] = {}


def effect_of(option: str) -> Callable[[Callable[[ServedModel], None]], None]:
    return lambda test: EFFECTS.__setitem__(option, test)


def settings(*words: str) -> Settings:
    return settings_of(options().parse_args(words))


@contextlib.contextmanager
def serving(model: ServedModel, *words: str) -> Iterator[Running]:
    with running(model, settings(*words)) as service:
        yield service


@pytest.mark.parametrize("option", options_of(options()))
def test_an_option_has_its_effect(
    option: str, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert option in EFFECTS, "say here what the new option changes"
    EFFECTS[option](model)


@effect_of("model")
def _(model: ServedModel) -> None:
    assert settings("other.keras").model == Path("other.keras")


def started(*words: str) -> tuple[Any, ...]:
    """Return the address that the command listens on, and the number of workers."""
    found: list[tuple[Any, ...]] = []

    def serve(settings: Settings, listener: socket.socket, count: int = 1) -> None:
        found.append((*listener.getsockname()[:2], count))
        listener.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "serve", serve)
        patch.setattr(server, "serve_with_workers", serve)
        patch.setattr("signal.signal", lambda number, handler: None)
        main(list(words))
    return found[0]


@effect_of("--host")
def _(model: ServedModel) -> None:
    assert started("--port", "0", "--host", "127.0.0.2")[0] == "127.0.0.2"


@effect_of("--port")
def _(model: ServedModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert started("--port", str(port))[1] == port


@effect_of("--workers")
def _(model: ServedModel) -> None:
    assert started("--port", "0", "--workers", "3")[2] == 3


@effect_of("--top")
def _(model: ServedModel) -> None:
    with serving(model, "--top", "1") as service:
        assert len(service.predict().json["photos"][0]["top"]) == 1


@effect_of("--threshold")
def _(model: ServedModel) -> None:
    with serving(model, "--threshold", "1") as service:
        (row,) = service.predict().json["photos"]
        assert row["category"] == "uncertain"
        assert row["top"][0]["category"] in model.classifier.labels
        assert service.ask("GET", "/labels").json["threshold"] == 1


@effect_of("--batch-size")
def _(model: ServedModel) -> None:
    assert settings("--batch-size", "2").batch_size == 2  # See test_model.py for what it does.


@effect_of("--photos")
def _(model: ServedModel) -> None:
    with serving(model, "--photos", "1") as service:
        assert service.ask("POST", "/predict", *form(("a", b"x"), ("b", b"x"))).status == 413
        assert service.ask("GET", "/labels").json["most_photos"] == 1


@effect_of("--photo-megabytes")
def _(model: ServedModel) -> None:
    with serving(model, "--photo-megabytes", "1") as service:
        reply = service.ask("POST", "/predict", *form(("hat.jpg", b"x" * 1_000_001)))
        assert (reply.status, reply.json["reason"][:8]) == (413, "hat.jpg:")
        assert service.predict(b"x" * 1_000_001).status == 413
        assert service.ask("GET", "/labels").json["most_photo_bytes"] == 1_000_000


@effect_of("--photo-megapixels")
def _(model: ServedModel) -> None:
    with serving(model, "--photo-megapixels", "1") as service:
        reason = service.predict(photo(side=1001)).json["reason"]
    assert reason == "too large: 1001 x 1001 pixels, at most 1000000 are read"


@effect_of("--body-megabytes")
def _(model: ServedModel) -> None:
    with serving(model, "--body-megabytes", "1") as service:
        reply = service.ask("POST", "/predict", *form(("a", b"x" * 600_000), ("b", b"x" * 600_000)))
    assert (reply.status, reply.json["reason"]) == (413, "a request may have 1 MB at most")


@effect_of("--held-megabytes")
def _(model: ServedModel) -> None:
    words = ("--held-megabytes", "1", "--body-megabytes", "1")
    with serving(model, *words) as service, service.connect() as slow:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        slow.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + b"x" * 600_000)
        until(lambda: service.predict(b"x" * 600_000).status == 503)
        reply = service.predict(b"x" * 600_000)
    assert (reply.headers["retry-after"], reply.json["reason"][:8]) == ("1", "too much")


@effect_of("--waiting")
def _(model: ServedModel) -> None:
    gate = Gate()
    with serving(with_predict(model, gate), "--waiting", "1", "--photos", "1") as service:
        first = threading.Thread(target=service.predict)
        first.start()
        until(lambda: gate.batches)
        reply = service.predict()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert service.ask("GET", "/health").status == 200
        gate.open.set()
        first.join()
        assert service.predict().status == 200


@effect_of("--seconds-to-send")
def _(model: ServedModel) -> None:
    with serving(model, "--seconds-to-send", "1") as service, service.connect() as slow:
        start = time.monotonic()
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
        assert slow.recv(4000).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - start >= 1


@effect_of("--deadline")
def _(model: ServedModel) -> None:
    gate = Gate()
    with serving(with_predict(model, gate), "--deadline", "1") as service:
        reply = service.predict()
        gate.open.set()
    assert (reply.status, reply.json["reason"][:20]) == (504, "no answer within 1 s")


@pytest.mark.parametrize(
    "words", [["--workers", "0"], ["--threshold", "2"], ["--port", "70000"], ["--top", "x"]]
)
def test_a_number_out_of_range_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        options().parse_args(words)
    assert raised.value.code == 2
