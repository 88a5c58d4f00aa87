"""The command: what it refuses, how it ends, reloads, and keeps its workers."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fashion_keras.config import InputError
from fashion_keras.serve.__main__ import listen, main
from fashion_keras.serve.settings import Settings
from tests.builders import LABELS, save_strong, save_tiny_onnx
from tests.serve.running import RAW, Running, photo, until

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into Linux's /proc")
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of Unix")


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pytest's own handlers in place."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)


def test_each_option_reaches_the_service(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple] = []

    def serve(settings: Settings, listener: socket.socket, count: int) -> None:
        found.append((settings, *listener.getsockname()[:2], count))
        listener.close()

    monkeypatch.setattr("fashion_keras.serve.server.serve_with_workers", serve)
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    standard = dataclasses.asdict(Settings(model_file))
    doubled = {name: int(value * 2) for name, value in standard.items() if name != "model"}
    given = doubled | {"host": "127.0.0.2", "port": port, "workers": 3}
    main([str(model_file), *(f"--{name.replace('_', '-')}={given[name]}" for name in given)])
    assert found == [(Settings(model_file, **doubled), "127.0.0.2", port, 3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["nowhere.onnx"], "No model file nowhere.onnx."),
        (["--body-megabytes", "301"], "must not be more than `--held-megabytes`"),
        (["--photos", "129"], "must not be more than `--waiting`"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1, port 8000"),
        (["--port", "70000"], "Cannot listen on 127.0.0.1, port 70000"),
    ],
)
def test_what_cannot_work_is_refused_before_keras_is_imported(
    words: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        main(words)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"needs uvicorn: pip install 'fashion_keras\[serve"):
        main([])


def test_connections_send_without_delay() -> None:
    """Uvicorn does not see to it; the second write of each answer would wait 40 ms."""
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Command(NamedTuple):
    """The running command, which serves a copy of the model."""

    process: subprocess.Popen
    service: Running
    model: Path
    log: Path

    def version(self, method: str = "POST", path: str = "/predict") -> str:
        """Return the version of the model that answers; empty if there is no answer."""
        reply = self.service.ask(method, path, photo(), RAW)
        return reply.json["model"] if reply.status == 200 else ""

    def logged(self, text: str, count: int = 1) -> bool:
        """Return whether a text is so often in the log."""
        return self.log.read_text().count(text) == count


@pytest.fixture
def start(model_file: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Return a function that runs the command until it listens; in the end it must have no bugs."""
    saved, log = tmp_path / "served.keras", tmp_path / "log"
    saved.write_bytes(model_file.read_bytes())
    log.touch()
    with contextlib.ExitStack() as stack:

        def start(*more: str, model: Path = saved) -> Command:
            words = [sys.executable, "-m", "fashion_keras.serve", str(model), "--port", "0"]
            options: dict = {
                "stdout": subprocess.PIPE,
                "stderr": stack.enter_context(log.open("w")),
            }
            process = subprocess.Popen([*words, *more], cwd=ROOT, text=True, **options)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            found = re.search(r"http://\S+:(\d+)", process.stdout.readline())
            assert found, log.read_text()
            return Command(process, Running(int(found[1])), model, log)

        yield start
    assert "Traceback" not in log.read_text()


@UNIX
@pytest.mark.slow
def test_it_reloads_on_sighup_and_ends_on_sigterm(start: Callable[..., Command]) -> None:
    command = start("--batch-size", "2")
    until(command.version, 60)
    first = command.version()
    command.model.write_bytes(b"half a file")
    command.process.send_signal(signal.SIGHUP)
    until(lambda: command.logged("the model was not loaded"))
    assert command.version() == first
    save_strong(command.model, seed=2)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: command.version("GET", "/ready") != first)
    assert command.version() != first
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(30) == 0


@UNIX
@pytest.mark.slow
@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 3.0)])
def test_while_it_starts_a_signal_ends_it_in_one_line(
    number: signal.Signals, seconds: float, start: Callable[..., Command]
) -> None:
    process = start().process
    time.sleep(seconds)
    process.send_signal(number)
    assert (process.wait(30), process.communicate()[0]) == (0, "stopped\n")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_cannot_be_loaded_ends_the_command_with_the_reason(
    workers: str, start: Callable[..., Command]
) -> None:
    command = start("--workers", workers)
    command.model.write_bytes(b"half a file")
    assert command.process.wait(120) == 2
    assert "the model was not loaded: InputError" in command.log.read_text()
    assert command.log.read_text().splitlines()[-1].startswith("error: The model was not loaded")


@pytest.mark.slow
@pytest.mark.kills
@LINUX
def test_workers_share_a_port_are_replaced_when_they_die_and_end_with_their_parent(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    from tests.kills.commands import workers

    file = tmp_path / "served.onnx"  # It needs no Keras, which takes long to start.
    save_tiny_onnx(file)
    command = start("--workers", "2", model=file)
    until(lambda: command.logged("answering with", 2), 120)
    first = command.version()
    victim, other = workers(command.process.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: command.logged("answering with", 3), 120)
    assert other in workers(command.process.pid)
    save_tiny_onnx(file, {"format": 1, "labels": LABELS, "image_size": 72})
    command.process.send_signal(signal.SIGHUP)  # Both load the new file.
    until(lambda: command.logged("answering with", 5), 120)
    assert command.version() != first
    metrics = command.service.ask("GET", "/metrics").body
    assert b'fashion_keras_photos_total{was="predicted"} 2.0' in metrics
    left = workers(command.process.pid)
    command.process.kill()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in left), 60)
