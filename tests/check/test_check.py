"""Tests of the check command: a clean data set is ready, each fault of a spoiled one is found."""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras import cli
from fashion_keras.check.__main__ import main
from fashion_keras.check.findings import KINDS, Finding, as_json
from fashion_keras.data.sample import draw_photo

COUNTS = {"train": 20, "validation": 10, "test": 10}
LABELS = ("dress", "hat", "pants")


def draw(label: str, file: Path) -> None:
    """Draw a photo that no other resembles."""
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32("/".join(file.parts[-3:]).encode()))
    draw_photo(label, generator, 60, 80).save(file, quality=95)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a data set with nothing wrong."""
    folder = tmp_path_factory.mktemp("clean") / "photos"
    for split, count in COUNTS.items():
        for label in LABELS:
            for number in range(count):
                draw(label, folder / split / label / f"{number:02}.jpg")
    return folder


@pytest.fixture
def spoiled(clean: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean, tmp_path / "spoiled")


def words(folder: Path, tmp_path: Path, *options: str) -> list[str]:
    """Return the arguments of the command."""
    places = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
    return [str(folder), *places, "--image-size", "71", *options]


def run(folder: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run the command; return what it wrote."""
    main(words(folder, tmp_path, *options))
    return report(tmp_path)


def report(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "results" / "check" / "check.json").read_text(encoding="utf-8"))


def items(report: dict[str, Any], kind: str) -> str:
    """Return the items of all findings of a kind, joined."""
    found = [finding["items"] for finding in report["findings"] if finding["kind"] == kind]
    return "\n".join(item for several in found for item in several)


def test_clean_photos_are_ready(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "check"
    folder.mkdir(parents=True)
    (folder / "map.png").write_bytes(b"of an earlier run")
    report = run(clean, tmp_path, "--strict")
    assert (report["verdict"], report["findings"]) == ("ready", [])
    assert "verdict: ready" in capsys.readouterr().out
    assert report["photos"]["counts"]["test"] == {"dress": 10, "hat": 10, "pants": 10}
    assert report["photos"]["width"] == [60, 60, 60]
    assert {path.name for path in folder.iterdir()} == {"check.json", "show_batch.png"}


def spoil(folder: Path) -> None:
    """Add every fault that training accepts all the same."""
    train, test = folder / "train", folder / "test"
    shutil.copy(train / "hat/00.jpg", test / "hat/exact.jpg")
    with Image.open(train / "hat/01.jpg") as photo:
        photo.save(test / "hat/again.jpg", quality=70)
    with Image.open(train / "hat/02.jpg") as photo:
        photo.transpose(Image.Transpose.ROTATE_180).save(test / "hat/upended.jpg")
    with Image.open(train / "pants/03.jpg") as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(train / "dress/mirrored.jpg")
    with Image.open(train / "pants/04.jpg") as photo:
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(train / "pants/04.jpg", exif=exif)
    shutil.copy(train / "pants/05.jpg", train / "pants/twice.jpg")
    Image.linear_gradient("L").resize((30, 90)).save(train / "hat/narrow.png")
    (train / "hat/broken.jpg").write_bytes(b"no photo")
    shutil.copy(train / "hat/05.jpg", folder / "outside.jpg")
    for number in range(12):
        (train / f"dress/{number:02}.jpg").unlink()
    for number in range(7):
        (test / f"pants/{number:02}.jpg").unlink()
    for number in range(60):
        draw("dress", test / f"dress/more{number}.jpg")


def test_every_fault_of_spoiled_photos_is_found(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(spoiled)
    with pytest.raises(SystemExit) as stop:
        run(spoiled, tmp_path, "--strict")
    assert stop.value.code == 1
    found = report(tmp_path)
    assert found["verdict"] == "fix"
    leaks = items(found, "leak")
    assert "train/hat/00.jpg = test/hat/exact.jpg (the same file)" in leaks
    assert "train/hat/01.jpg = test/hat/again.jpg (nearly the same)" in leaks
    assert "train/hat/02.jpg = test/hat/upended.jpg (nearly the same, turned by 180 deg" in leaks
    assert items(found, "contradiction") == (
        "train/dress/mirrored.jpg = train/pants/03.jpg (nearly the same, mirrored)"
    )
    assert items(found, "duplicates").startswith("train/pants/05.jpg = train/pants/twice.jpg")
    assert items(found, "turned") == "train/pants/04.jpg: on its left side"
    assert items(found, "narrow") == "train/hat/narrow.png: 30 x 90 pixels"
    assert items(found, "unreadable").startswith("train/hat/broken.jpg: not a photo")
    assert items(found, "unused") == "outside.jpg"
    assert items(found, "too small to learn") == "dress: 9"
    assert items(found, "too small to measure").startswith("pants: 3; if 3 of them are correct")
    assert "of train but 81.4% of test" in items(found, "priors")
    ranks = [finding["harm"] for finding in found["findings"]]
    assert ranks == sorted(ranks)
    printed = capsys.readouterr().out
    assert "1. photos that are in more than one split: 3." in printed
    assert printed.index("good to know:") < printed.index("verdict: 7 things to fix")
    assert (tmp_path / "results" / "check" / "duplicates.png").exists()


def test_folders_that_training_refuses_are_examined_all_the_same(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(spoiled / "train/hat/00.jpg", spoiled / "test/hat/exact.jpg")
    (spoiled / "train" / "skirt").mkdir()
    shutil.rmtree(spoiled / "validation" / "pants")
    for path in (spoiled / "test" / "pants").iterdir():
        path.write_bytes(b"")
    found = run(spoiled, tmp_path, "--features")
    assert items(found, "empty class").splitlines() == [
        "train/skirt: empty",
        "test/pants: none of its files can be read",
    ]
    assert items(found, "missing class").splitlines() == [
        "pants has no folder in validation",
        "skirt has no folder in validation",
        "skirt has no folder in test",
    ]
    assert "test/hat/exact.jpg" in items(found, "leak")
    assert items(found, "unreadable").count("test/pants") == COUNTS["test"]
    assert "skirt is empty" in items(found, "labels unseen")
    printed = capsys.readouterr().out
    assert "training refuses these photos" in printed
    assert "`--features` was given, but labels were not examined" in printed


def test_refusal_that_nothing_else_explains_is_a_finding(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    for label in ("dress", "hat"):
        shutil.copytree(clean / "test" / label, folder / label)
    for number in range(2, 10):
        (folder / "hat" / f"{number:02}.jpg").unlink()
    assert "'hat' has 2 different photos" in items(run(folder, tmp_path), "layout")


def test_class_whose_name_cannot_be_shown_is_a_finding(spoiled: Path, tmp_path: Path) -> None:
    try:
        (spoiled / "train" / "hat").rename(spoiled / "train" / "caf\udce9")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    found = run(spoiled, tmp_path)
    assert "caf\\udce9' cannot be shown" in items(found, "layout")
    assert found["photos"]["counts"]["train"]["caf\\udce9"] == COUNTS["train"]


@pytest.mark.slow
def test_features_reveal_swapped_labels(spoiled: Path, tmp_path: Path) -> None:
    swapped = ("train/hat/07.jpg", "train/pants/07.jpg")
    (spoiled / swapped[0]).rename(tmp_path / "between.jpg")
    (spoiled / swapped[1]).rename(spoiled / swapped[0])
    (tmp_path / "between.jpg").rename(spoiled / swapped[1])
    found = run(spoiled, tmp_path, "--features", "--weights", "released", "--strict")
    assert found["verdict"] == "ready"
    lines = items(found, "label errors").splitlines()
    assert set(swapped) <= {line.partition(":")[0] for line in lines}
    assert lines[0].startswith(swapped)
    assert len(lines) < 20
    made = {path.name for path in (tmp_path / "results" / "check").glob("*.png")}
    assert made == {"show_batch.png", "label_errors.png", "map.png"}


@pytest.mark.slow
def test_copies_of_one_photo_reveal_nothing_of_labels(tmp_path: Path) -> None:
    draw("hat", tmp_path / "a.jpg")
    for place in ("train/hat", "train/dress", "validation/hat", "validation/dress"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        shutil.copy(tmp_path / "a.jpg", tmp_path / "photos" / place)
    found = run(tmp_path / "photos", tmp_path, "--features", "--weights", "released")
    assert items(found, "labels unseen") == "too few different photos to compare"


def test_findings_without_items_are_left_out_and_the_others_ordered() -> None:
    values = {"least": 1, "split": "test", "ratio": 1, "statistic": 1, "p_value": 1}
    made = [Finding(kind, [kind], **values) for kind in reversed(KINDS)]
    found = as_json([*made, Finding("leak", [])])["findings"]
    assert [finding["kind"] for finding in found] == [*KINDS]
    assert [finding["harm"] for finding in found] == [*range(1, len(KINDS) + 1)]


def test_no_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda: main(words(tmp_path / "nowhere", tmp_path)))
    assert capsys.readouterr().err.startswith("error: No folder ")


@pytest.mark.parametrize("places", [[], ["hat", "shoes"], ["train/hat", "validation/hat"]])
def test_folders_without_photos_are_an_error(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ["photos", *(f"photos/{place}" for place in places)]:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda: main(words(tmp_path / "photos", tmp_path)))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert str(tmp_path / "photos") in printed.err


def test_photos_in_no_class_folder_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "loose.jpg").touch()
    assert items(run(tmp_path / "photos", tmp_path), "unused") == "loose.jpg"
