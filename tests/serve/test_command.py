"""The command: what it refuses, how it ends, reloads, and keeps its workers."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.serve.__main__ import listen, main, options
from fashion_keras.serve.settings import Settings, settings_of
from tests.serve.running import photo, save_model, until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "fashion_keras.serve"]
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into Linux's /proc")
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of Unix")


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pytest's own handlers in place."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)][1:])
def test_each_setting_has_an_option(name: str) -> None:
    standard = Settings(Path("my.keras"))
    value = int(getattr(standard, name) * 2)
    words = ["my.keras", f"--{name.replace('_', '-')}", str(value)]
    given = settings_of(options().parse_args(words))
    assert given == dataclasses.replace(standard, **{name: value})


def test_host_port_and_workers(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple] = []

    def serve(settings: Settings, listener: socket.socket, count: int) -> None:
        found.append((settings.model, *listener.getsockname()[:2], count))
        listener.close()

    monkeypatch.setattr("fashion_keras.serve.server.serve_with_workers", serve)
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    main([str(model_file), "--host", "127.0.0.2", "--port", str(port), "--workers", "3"])
    assert found == [(model_file, "127.0.0.2", port, 3)]


@pytest.mark.parametrize(
    "words", [["--workers", "0"], ["--threshold", "2"], ["--port", "70000"], ["--top", "x"]]
)
def test_a_number_out_of_range_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        options().parse_args(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["--body-megabytes", "301"], "must not be more than `--held-megabytes`"),
        (["--photos", "129"], "must not be more than `--waiting`"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1, port 8000"),
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


def test_help_is_quick_as_it_imports_neither_keras_nor_fastapi() -> None:
    script = "import sys, fashion_keras.serve.__main__ as m; m.options(); print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"keras", "tensorflow", "fastapi", "uvicorn", "pydantic"} & set(found)


@contextlib.contextmanager
def serving(model: Path, log: Path, *words: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run the command; yield its process and address as soon as it listens."""
    command = [*COMMAND, str(model), "--port", "0", *words]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        assert found, log.read_text()
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(address: str, content: bytes | None = None) -> dict:
    """Return the answer; empty if there is none, or not with 200."""
    headers = {"Content-Type": "image/jpeg"}
    request = urllib.request.Request(address, content, headers)  # noqa: S310 (our own)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
            return json.load(response)
    except (urllib.error.URLError, ConnectionError):
        return {}


@UNIX
@pytest.mark.slow
def test_it_reloads_on_sighup_and_ends_on_sigterm(model_file: Path, tmp_path: Path) -> None:
    model, log = tmp_path / "served.keras", tmp_path / "log"
    model.write_bytes(model_file.read_bytes())
    with serving(model, log, "--batch-size", "2") as (process, address):
        until(lambda: ask(f"{address}/ready"), 60)
        first = ask(f"{address}/predict", photo())["model"]
        model.write_bytes(b"half a file")
        process.send_signal(signal.SIGHUP)
        until(lambda: "the model was not loaded" in log.read_text())
        assert ask(f"{address}/predict", photo())["model"] == first
        save_model(model, seed=2)
        process.send_signal(signal.SIGHUP)
        until(lambda: ask(f"{address}/ready")["model"] != first)
        assert ask(f"{address}/predict", photo())["model"] != first
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()


@UNIX
@pytest.mark.slow
@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 3.0)])
def test_while_it_starts_a_signal_ends_it_in_one_line(
    number: signal.Signals, seconds: float, model_file: Path, tmp_path: Path
) -> None:
    with serving(model_file, tmp_path / "log") as (process, _):
        time.sleep(seconds)
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_cannot_be_loaded_ends_the_command_with_the_reason(
    workers: str, model_file: Path, tmp_path: Path
) -> None:
    log, model = tmp_path / "log", tmp_path / "served.keras"
    model.write_bytes(model_file.read_bytes())
    with serving(model, log, "--workers", workers) as (process, _):
        model.write_bytes(b"half a file")
        assert process.wait(120) == 2
    assert "the model was not loaded: InputError" in log.read_text()
    assert log.read_text().splitlines()[-1].startswith("error: The model was not loaded")


@pytest.mark.slow
@pytest.mark.kills
@LINUX
def test_workers_share_a_port_are_replaced_when_they_die_and_end_with_their_parent(
    model_file: Path, tmp_path: Path
) -> None:
    log, model = tmp_path / "log", tmp_path / "served.keras"
    model.write_bytes(model_file.read_bytes())

    def ready(count: int) -> bool:
        return log.read_text().count("answering with") == count

    with serving(model, log, "--workers", "2", "--batch-size", "1") as (process, address):
        until(lambda: ready(2), 120)
        first = ask(f"{address}/predict", photo())["model"]
        (victim, other) = workers(process.pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: ready(3), 120)
        assert other in workers(process.pid)
        save_model(model, seed=2)
        process.send_signal(signal.SIGHUP)  # Both load the new file.
        until(lambda: ready(5), 120)
        assert ask(f"{address}/predict", photo())["model"] != first
        with urllib.request.urlopen(f"{address}/metrics") as response:  # noqa: S310 (our own)
            assert b'fashion_keras_photos_total{was="predicted"} 2.0' in response.read()
        left = workers(process.pid)
        process.kill()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in left), 60)
    assert "Traceback" not in log.read_text()


def workers(parent: int) -> list[int]:
    """Return the processes that serve; one more only tracks resources for multiprocessing."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return sorted(child for child, command in commands.items() if "spawn_main" in command)
