"""Tests that each option of the check command changes its outcome."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.backend import keras
from fashion_keras.check.__main__ import main, options
from fashion_keras.data.sample import draw_photo
from tests.builders import options_of

# The changed options, and what they change; `*` stands for a file in the test's own folder.
CHANGES: dict[str, tuple[list[str], str]] = {
    "data": ([], "report"),
    "--features": (["--features", "--weights", "released"], "map.png"),
    "--strict": (["--strict"], "code"),
    "--image-size": (["--image-size", "72"], "show_batch.png"),
    "--rotation": (["--rotation", "0.4"], "show_batch.png"),
    "--zoom": (["--zoom", "0.6"], "show_batch.png"),
    "--split-seed": (["--split-seed", "2"], "show_batch.png"),
    "--seed": (["--seed", "2"], "show_batch.png"),
    "--weights": (["--features", "--weights", "*random.weights.h5"], "map.png"),
    "--feature-batch-size": (
        ["--features", "--weights", "released", "--feature-batch-size", "5"],
        "cache",
    ),
    "--results": (["--results", "*elsewhere"], "results"),
    "--cache": (["--cache", "*other_cache"], "cache"),
}
WITH_FEATURES = ("--weights", "--feature-batch-size")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw class folders."""
    folder = tmp_path_factory.mktemp("photos")
    for label in ("hat", "pants"):
        (folder / label).mkdir()
        for number in range(8):
            photo = draw_photo(label, np.random.default_rng(number), 60, 80)
            photo.save(folder / label / f"{number}.png")
    return folder


def outcome(photos: Path, place: Path, arguments: list[str]) -> dict[str, Any]:
    """Run the command; return its exit code, files and report."""
    given = ["--results", str(place / "results"), "--cache", str(place / "cache")]
    code: Any = 0
    try:
        main([str(photos), *given, "--image-size", "71", *arguments])
    except SystemExit as stop:
        code = stop.code
    results = next(place.glob("*/check"))
    report = json.loads((results / "check.json").read_text())
    del report["run"]
    pictures = {file.name: file.read_bytes() for file in results.glob("*.png")}
    cache = {str(path.relative_to(place)) for path in place.rglob("*") if "check" not in path.parts}
    facts = {"code": code, "results": results.parent.name, "cache": cache, "report": report}
    return {"map.png": b"", **pictures, **facts}


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(photos, tmp_path_factory.mktemp("plain"), [])


@pytest.fixture(scope="module")
def with_features(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    given = ["--features", "--weights", "released"]
    return outcome(photos, tmp_path_factory.mktemp("features"), given)


@pytest.mark.slow
@pytest.mark.parametrize("option", options_of(options()))
def test_option_changes_the_outcome(
    option: str, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    arguments, changed = CHANGES[option]
    base = request.getfixturevalue("with_features" if option in WITH_FEATURES else "plain")
    if option == "--weights":
        xception: Any = keras.applications.Xception(include_top=False, weights=None)  # pyright: ignore
        xception.save_weights(tmp_path / "random.weights.h5")
    if option == "data":
        photos = shutil.copytree(photos, tmp_path / "more")
        shutil.copy(photos / "hat" / "1.png", photos / "pants" / "copy.png")
    arguments = [word.replace("*", f"{tmp_path}/") for word in arguments]
    found = outcome(photos, tmp_path, arguments)
    assert found[changed] != base[changed]
    if changed == "show_batch.png":
        assert found["report"] == base["report"]


def test_a_small_data_set_is_not_ready(plain: dict[str, Any]) -> None:
    assert plain["report"]["verdict"] == "fix"
