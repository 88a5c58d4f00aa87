"""A small service on a real port, with a model that answers at once or when it may."""

import contextlib
import dataclasses
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.serve.__main__ import listen
from fashion_keras.serve.app import build_app
from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.model import ServedModel
from fashion_keras.serve.server import configuration
from fashion_keras.serve.service import Service
from fashion_keras.serve.settings import Settings
from tests.builders import ROOT, encoded

LABELS = ["cap", "hat", "sock"]
RAW = {"Content-Type": "application/octet-stream"}
SETTINGS = Settings(Path("small.keras"), threshold=0.0)


def photo(level: int = 120, kind: str = "JPEG", side: int = 90) -> bytes:
    """Return the bytes of a photo: noise around a grey."""
    noise = np.random.default_rng(level).integers(0, 100, (side, side, 3), dtype="uint8")
    return encoded(Image.fromarray(noise + np.uint8(level)), kind)


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form with files."""
    head = b'--xyz\r\nContent-Disposition: form-data; name="photos"; filename="%s"\r\n\r\n%s\r\n'
    body = b"".join(head % (name.encode(), content) for name, content in files)
    return body + b"--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


class Gate:
    """A model that answers when it is open: each photo is a sock for certain."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Wait, then answer."""
        self.batches.append(len(pixels))
        assert self.open.wait(20)
        return np.tile(np.array([0, 0, 1], "float32"), (len(pixels), 1))


def with_predict(model: ServedModel, predict: Callable[[np.ndarray], np.ndarray]) -> ServedModel:
    """Return a model that predicts with a function."""
    return dataclasses.replace(model, queue=ModelQueue(predict, [1, 2]), version="replaced")


class Reply(NamedTuple):
    """An answer of the service."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as values."""
        return json.loads(self.body)


@dataclasses.dataclass
class Running:
    """A running service."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict | None = None) -> Reply:
        """Send one request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 60)) as line:
            line.request(method, path, body, headers or {})
            response = line.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())

    def predict(self, content: bytes = photo()) -> Reply:
        """Send one photo as raw bytes."""
        return self.ask("POST", "/predict", content, RAW)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def running(model: ServedModel | None, settings: Settings = SETTINGS) -> Iterator[Running]:
    """Run a service in a thread until the end of the block; without a model it stays unready."""
    ended = threading.Event()

    def load(*_: Any) -> ServedModel:
        if model is None:
            ended.wait()
            raise InputError("the test is over")
        return model

    app = build_app(Service(load, settings), lambda error: None)
    listener = listen("127.0.0.1", 0)
    service = Running(listener.getsockname()[1])
    server = uvicorn.Server(configuration(app, settings))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started)
        until(lambda: model is None or service.ask("GET", "/ready").status == 200)
        yield service
    finally:
        ended.set()
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def command(
    file: Path, *options: str, python: Sequence[str] = (sys.executable, "-m")
) -> Iterator[tuple[Running, subprocess.Popen]]:
    """Run the command until the end of the block, ready to answer; it must end well."""
    words = [*python, "fashion_keras.serve", str(file.resolve()), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": log}
        with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as process:
            try:
                assert process.stdout is not None
                found = re.search(r"http://\S+:(\d+)", process.stdout.readline())
                assert found, (log.seek(0), log.read())
                service = Running(int(found[1]))
                until(lambda: service.ask("GET", "/ready").status == 200, 60)
                yield service, process
                process.terminate()
                assert process.wait(30) == 0
            finally:
                process.kill()
