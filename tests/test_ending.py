"""Tests of commands that are told to end: at once while they start, cleanly later."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fashion_keras import ending

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def started(folder: Path, *words: str) -> subprocess.Popen:
    """Start Python with a Keras that does nothing but say that it is there, and wait."""
    (folder / "keras.py").write_text(
        f"import pathlib, time; pathlib.Path({str(folder)!r}, 'there').touch(); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    while not (folder / "there").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    return process


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_imports_keras_ends_at_once_in_one_line(
    number: int, code: int, tmp_path: Path
) -> None:
    process = started(tmp_path, "-m", "fashion_keras.final")
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert (process.returncode, told) == (code, "interrupted before anything was done\n")


@posix
def test_a_program_that_imports_the_package_keeps_its_own_handlers(tmp_path: Path) -> None:
    process = started(tmp_path, "-c", "import fashion_keras")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in told


@pytest.mark.parametrize(
    ("argv", "words", "starting"),
    [
        (["-m"], ["python", "-u", "-m", "tuning.search", "--seed", "1"], True),
        (["-m"], ["python", "-m", "shop.program"], False),  # Its package may import ours.
        (["/x/final.py"], ["python", "-m", "fashion_keras.final"], False),  # It runs already.
        (["program.py"], ["python", "program.py", "-m"], False),
        ([], ["python"], False),
    ],
)
def test_only_commands_of_ours_are_told_apart(argv, words, starting, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", words)
    assert ending._is_starting() is starting


@posix
def test_the_first_signal_raises_and_the_second_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    try:
        ending.raise_when_told()
        with pytest.raises(ending.EndedError) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (ended.value.code, codes) == (143, [130])


@posix
def test_a_signal_that_the_garbage_collector_drops_comes_again(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, signal, time, weakref
from fashion_keras import cli

class Thing:
    pass

def main():
    thing = Thing()
    known = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing  # What the callback raises, Python drops.
    print("goes on", flush=True)
    time.sleep(30)

cli.run(main)
"""
    )
    ended = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (ended.returncode, ended.stdout) == (143, "goes on\n")
    assert ended.stderr.startswith("interrupted; what was finished is kept")


@posix
def test_signals_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ending.raise_when_told()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
