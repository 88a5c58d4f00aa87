"""Tests of the vectors command: shards that others use, what it refuses, what comes next."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import prepare
from fashion_keras.training import open_material, training_batches
from fashion_keras.vectors import main

KNOBS: dict[str, Any] = {"image_size": 71, "batch_size": 8}


@pytest.fixture
def words(
    sample_folder: Path, tmp_path: Path, tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return the common words of a command; the backbone is tiny."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    data = ["--data", str(sample_folder), "--cache", str(tmp_path)]
    return [*data, "--image-size", "71", "--batch-size", "8"]


def test_a_search_finds_all_shards_and_makes_nothing(
    words: list[str],
    sample_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in (2, 3, 1):
        main([*words, "--shard", f"{number}/3"])
    assert "shard 1 of 3 is done; when all 3 are:\nnow run: python -m tuning.search --data" in (
        capsys.readouterr().out
    )
    config = Config(data=str(sample_folder), **KNOBS)
    prepared = prepare(config.data, tmp_path)

    def forbid(*_: object) -> None:
        raise AssertionError("photos were read again")

    monkeypatch.setattr("fashion_keras.features.load_split", forbid)
    train, _ = training_batches(config, open_material(config, prepared, tmp_path))
    assert sum(len(vectors) for vectors, _ in train) == 40


def test_without_a_shard_it_makes_whole_files_and_no_vectors_of_the_test(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.json"
    maps = ["--maps", "--fine-tune-from", "block13", "--fine-tuning-copies", "0"]
    main([*words, *maps, "--profile", str(profile)])
    told = json.loads(profile.read_text(encoding="utf-8"))
    assert told["stages"]["vectors"].keys() == {"decode", "augment", "forward", "I/O", "other"}
    parts = sum(sum(stage.values()) for stage in told["stages"].values())
    assert parts == pytest.approx(told["run"]["seconds"], abs=0.1)
    shapes = [np.load(file, mmap_mode="r").shape for file in (tmp_path / "vectors-1").iterdir()]
    # Vectors of both copies, maps of the photos themselves.
    assert sorted(shapes, key=lambda shape: (len(shape), shape)) == [
        (20, 2048),
        (40, 2048),
        (40, 2048),
        (20, 5, 5, 2048),
        (40, 5, 5, 2048),
    ]
    assert "now run: python -m fashion_keras.final" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0/8", "9/8", "x", "1", "1/", "-1/2", "1/0", "1/2/3"])
def test_a_shard_that_does_not_exist_ends_with_2(
    text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main([*words, f"--shard={text}"])
    assert f"from 1/8 to 8/8 for eight. Received: {text}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (["--weights", "none"], "Vectors need a trained backbone. Received: `--weights none`"),
        (
            ["--maps", "--fine-tune-from", "pixels"],
            "Give a block, such as `--fine-tune-from block11`",
        ),
        (
            ["--maps", "--fine-tune-from", "block1"],
            "`fine_tune_from` must be `auto`, `pixels` or one of",
        ),
        (["--weights", "no.h5"], "No weights file no.h5"),
    ],
)
def test_what_makes_no_vectors_is_refused_before_photos_are_looked_for(
    more: list[str], advice: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=advice):
        main(["--data", "nowhere", "--cache", str(tmp_path), *more])
