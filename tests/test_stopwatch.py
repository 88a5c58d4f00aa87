"""Tests of the stopwatch: each moment is counted once, and what is counted is told."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_keras import stopwatch
from fashion_keras.config import InputError
from fashion_keras.stopwatch import profiled, spent, stage, waited


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock that stands still in place of that of the computer."""
    clock = Clock()
    monkeypatch.setattr("fashion_keras.stopwatch.time", clock)
    return clock


def told(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_inner_time_is_taken_off_the_outer(clock: Clock, tmp_path: Path) -> None:
    with profiled(tmp_path / "profile.json"):
        clock.now += 1
        with stage("vectors"):
            clock.now += 2
            with spent("forward"):
                clock.now += 4
                with spent("decode"):
                    clock.now += 8
                with stage("weights"):
                    clock.now += 16
                clock.now += 32
            clock.now += 64
        with spent("I/O"):
            clock.now += 128
    assert told(tmp_path / "profile.json")["stages"] == {
        "other": {"other": 1, "I/O": 128},
        "vectors": {"other": 66, "forward": 36, "decode": 8},
        "weights": {"other": 16},
    }


def test_waiting_for_items_counts_and_working_on_them_does_not(
    clock: Clock, tmp_path: Path
) -> None:
    def photos() -> Iterator[int]:
        for number in range(3):
            clock.now += 10
            yield number
        clock.now += 1

    with profiled(tmp_path / "profile.json"):
        seen = []
        for item in waited("decode", photos()):
            clock.now += 100
            seen.append(item)
    assert seen == [0, 1, 2]
    assert told(tmp_path / "profile.json")["stages"] == {"other": {"other": 300, "decode": 31}}


def test_other_threads_are_told_apart(clock: Clock, tmp_path: Path) -> None:
    @spent("I/O")
    def read() -> None:
        clock.now += 5

    with profiled(tmp_path / "profile.json"), spent("head"):
        for _ in range(2):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
    found = told(tmp_path / "profile.json")
    assert (found["stages"]["other"]["head"], found["beside"]) == (10, {"I/O": 10})


def test_parts_are_shown_and_add_up(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with profiled(tmp_path / "new" / "profile.json"), stage("vectors"):
        clock.now += 1
        with spent("forward"):
            clock.now += 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split() for line in shown.err.splitlines()] == [
        ["stage", "seconds", "share"],
        ["other", "0.0", "0.0%"],
        ["other", "0.0", "0.0%"],
        ["vectors", "4.0", "100.0%"],
        ["forward", "3.0", "75.0%"],
        ["other", "1.0", "25.0%"],
        ["all", "4.0", "100.0%"],
        ["profile:", str(tmp_path / "new" / "profile.json")],
    ]


def test_what_was_measured_is_written_if_the_run_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    with pytest.raises(KeyboardInterrupt):
        with profiled(file), stage("trials"), spent("head"):
            raise KeyboardInterrupt
    assert list(told(file)["stages"]) == ["other", "trials"]
    with spent("head"):  # Nobody looks any more.
        pass
    assert stopwatch._watches == []


def test_nothing_is_measured_if_nobody_looks(tmp_path: Path) -> None:
    with profiled(None), stage("vectors"), spent("forward"):
        assert stopwatch._watches == []
    assert list(waited("decode", [1, 2])) == [1, 2]
    start = time.monotonic()
    for _ in range(10_000):
        with spent("forward"):
            pass
    assert time.monotonic() - start < 1  # A tenth of a millisecond each, on a slow computer.


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`--profile` takes a file that can be written. Received"):
        with profiled(tmp_path):
            raise AssertionError("it began all the same")
