"""The command that serves: what it refuses, how it ends, reloads, and keeps its workers."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.serve import __main__ as serve
from tests.serve.running import photo, save_model, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "small.keras")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["--body-megabytes", "301"], "must not be more than `--held-megabytes`"),
        (["--photos", "129"], "must not be more than `--waiting`"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1, port 8000"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    options: list[str], advice: str, model_file: Path
) -> None:
    words = options if options[0].endswith(".keras") else [str(model_file), *options]
    with pytest.raises(InputError, match=re.escape(advice)):
        serve.main(words)


@pytest.mark.parametrize(
    "words", [["--workers", "0"], ["--threshold", "2"], ["--port", "70000"], ["--top", "x"]]
)
def test_numbers_out_of_range_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        serve.main(words)
    assert raised.value.code == 2


def test_without_the_extra_it_is_named(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_NEEDED", ("json", "no_such_package"))
    with pytest.raises(InputError, match=r"no_such_package: pip install 'fashion_keras\[serve"):
        serve.main([str(model_file)])


@contextlib.contextmanager
def serving(model: Path, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run the command; yield its process and address when it is ready."""
    words = [sys.executable, "-m", "fashion_keras.serve", str(model), "--port", "0", *options]
    with log.open("w") as written:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=written, text=True
        )
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+:\d+", process.stdout.readline())
            assert found, log.read_text()
            until(lambda: process.poll() is not None or ask(f"{found[0]}/ready"), 60)
            yield process, found[0]
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def ask(address: str, content: bytes | None = None) -> dict:
    """Return what is answered; nothing if nothing is, or not with 200."""
    kind = {"Content-Type": "image/jpeg"}
    request = urllib.request.Request(address, content, kind)  # noqa: S310 (our own)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
            return json.load(response)
    except (urllib.error.URLError, ConnectionError):
        return {}


def test_it_reloads_on_demand_and_ends_well(model_file: Path, tmp_path: Path) -> None:
    model, log = tmp_path / "served.keras", tmp_path / "log"
    model.write_bytes(model_file.read_bytes())
    with serving(model, log, "--batch-size", "2") as (process, address):
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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in Linux's /proc")
def test_workers_share_a_port_and_are_replaced_when_they_die(
    model_file: Path, tmp_path: Path
) -> None:
    log, model = tmp_path / "log", tmp_path / "served.keras"
    model.write_bytes(model_file.read_bytes())
    with serving(model, log, "--workers", "2", "--batch-size", "1") as (process, address):
        until(lambda: log.read_text().count("answering with") == 2, 60)
        assert ask(f"{address}/predict", photo())["photos"][0]["category"]
        (victim, other) = children(process.pid)
        model.write_bytes(b"half a file")  # Those that answer go on; there is no other before
        os.kill(victim, signal.SIGKILL)  # the file is whole.
        until(lambda: "error:" in log.read_text(), 60)
        assert ask(f"{address}/predict", photo())["photos"][0]["category"]
        model.write_bytes(model_file.read_bytes())
        until(lambda: log.read_text().count("answering with") == 3, 60)
        assert ask(f"{address}/predict", photo())["photos"][0]["category"]
        assert other in children(process.pid)
        assert b'fashion_keras_photos_total{was="predicted"} 3.0' in metrics(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()


def children(parent: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))


def metrics(address: str) -> bytes:
    with urllib.request.urlopen(f"{address}/metrics") as response:  # noqa: S310 (our own)
        return response.read()
