"""A small service on a real port, with a model that answers at once."""

import contextlib
import dataclasses
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import uvicorn
from PIL import Image

from fashion_keras.config import Config, InputError
from fashion_keras.model import build_head
from fashion_keras.saving import save_classifier
from fashion_keras.serve.app import build_app
from fashion_keras.serve.desk import Desk, Manner
from fashion_keras.serve.limits import Limits
from fashion_keras.serve.observation import Figures
from fashion_keras.serve.process import configuration
from fashion_keras.serve.served import Served
from fashion_keras.serve.workers import listen
from tests.conftest import normalised_backbone

LABELS = ["cap", "hat", "sock"]
KIND = {"Content-Type": "application/octet-stream"}


def photo(level: int = 120, kind: str = "JPEG", side: int = 90) -> bytes:
    """Return the bytes of a photo: noise around a grey."""
    noise = np.random.default_rng(level).integers(0, 100, (side, side, 3), dtype="uint8")
    content = io.BytesIO()
    Image.fromarray(noise + np.uint8(level)).save(content, kind)
    return content.getvalue()


def save_model(file: Path, seed: int = 1) -> Path:
    """Save a small classifier; another seed gives other answers."""
    backbone = normalised_backbone()
    keras.utils.set_random_seed(seed)
    head = build_head(Config(inner_size=8), len(LABELS))
    head.set_weights([weight * 4 for weight in head.get_weights()])
    save_classifier(backbone, head, LABELS, 71, file)
    return file


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as values."""
        return json.loads(self.body)


@dataclasses.dataclass
class Running:
    """A running service: where it listens, and what answers in it."""

    port: int
    desk: Desk

    def ask(self, method: str, path: str, body: Any = None, headers: dict | None = None) -> Reply:
        """Send one request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 20)) as line:
            line.request(method, path, body, headers or {})
            response = line.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())

    def connect(self) -> socket.socket:
        """Open a connection to send anything on."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


@contextlib.contextmanager
def running(served: Served | None, limits: Limits | None = None, **more: Any) -> Iterator[Running]:
    """Run a service in a thread until the end of the block.

    Args:
        served: What it answers with; its queue is closed at the end. None: it is never loaded.
        limits: What is taken.
        more: Other values of `Manner`.
    """
    limits, ended = limits or Limits(), threading.Event()

    def load() -> Served:
        if served is None:
            ended.wait()
            raise InputError("the test is over")
        return served

    usual = {"load": load, "limits": limits, "top": 3, "threshold": 0.0, "addresses": False}
    desk = Desk(Manner(**(usual | more)), Figures())
    listener = listen("127.0.0.1", 0)
    service = Running(listener.getsockname()[1], desk)
    server = uvicorn.Server(
        configuration(build_app(desk, lambda error: None), limits, desk.figures.turned_away)
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started)
        until(lambda: served is None or service.ask("GET", "/ready").status == 200)
        yield service
    finally:
        ended.set()
        server.should_exit = True
        thread.join()
