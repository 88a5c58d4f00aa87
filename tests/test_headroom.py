"""Tests of memory: what a batch needs, what is left, and in how many parts it is computed."""

import resource
from pathlib import Path

import keras
import pytest

from fashion_keras import headroom
from fashion_keras.headroom import (
    for_forward,
    for_new_backbone,
    for_training,
    memory_left,
    parts_that_fit,
)
from tests.conftest import small_backbone


@pytest.mark.parametrize(
    ("left", "parts"), [(None, 1), (1000, 1), (749, 2), (400, 2), (130, 6), (10, 12)]
)
def test_batch_is_cut_until_it_fits(
    left: int | None,
    parts: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(headroom, "memory_left", lambda: left)
    assert parts_that_fit(50, 12, "work") == parts  # 600 bytes; of what is left 0.8 are used.
    told = capsys.readouterr().err
    assert (f"going on with {12 // parts}" in told) == (parts > 1)


def test_graphics_cards_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "memory_left", lambda: 1)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"])
    assert parts_that_fit(50, 12, "work") == 1


def test_need_is_counted_from_the_outputs_of_layers() -> None:
    backbone = small_backbone()
    # 71 pixels a side: the photo, 9 x 9 x 32, 7 x 7 x 64 twice, 7 x 7 x 2048.
    outputs = [4 * count for count in (71 * 71 * 3, 9 * 9 * 32, 49 * 64, 49 * 64, 49 * 2048)]
    assert for_forward(backbone, 71) == headroom._FORWARD * outputs[-1]
    assert for_training(backbone, 71, None) == headroom._TRAINING * sum(outputs)
    assert for_new_backbone(backbone, 71) == headroom._NEW * sum(outputs)
    assert for_training(backbone, 71, "block13") == headroom._TRAINING * sum(outputs[2:])


def test_least_of_all_limits_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2500\ninactive_file 400\n")
    monkeypatch.setattr(headroom, "_GROUP", tmp_path)
    assert memory_left() == 2400
    (tmp_path / "memory.max").write_text("max\n")
    left = memory_left()
    assert left is not None
    assert left > 2400


def test_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**50, -1))
    left = memory_left()
    assert left is not None
    assert left < 2**45
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, -1))
    assert memory_left() == 0
