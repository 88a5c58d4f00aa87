"""Tests of the check command: every fault is found, and each option changes the outcome."""

import functools
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras import cli
from fashion_keras.backend import keras
from fashion_keras.check.__main__ import main, options
from fashion_keras.check.findings import KINDS, Finding, as_json
from fashion_keras.check.photos import CheckedPhoto, photo_findings
from fashion_keras.config import Config
from fashion_keras.data.review import Decision, write_review
from fashion_keras.data.sample import draw_photo
from fashion_keras.figures import Tile
from tests.builders import options_of
from tests.conftest import small_backbone

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


def save_pixels(rows: Sequence[Sequence[Tile]], title: str, file: Path) -> None:
    file.write_bytes(b"".join(tile.pixels.tobytes() for row in rows for tile in row))


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Let the command save the pixels of a batch without drawing them, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_keras.figures.draw_sheet", save_pixels)
        yield


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


def test_clean_photos_are_ready(clean, tmp_path, capsys):
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
    Image.new("RGB", (100, 100), "white").save(train / "hat/flat.png")
    (train / "hat/broken.jpg").write_bytes(b"no photo")
    shutil.copy(train / "hat/05.jpg", folder / "outside.jpg")
    for number in range(12):
        (train / f"dress/{number:02}.jpg").unlink()
    for number in range(7):
        (test / f"pants/{number:02}.jpg").unlink()
    for number in range(60):
        draw("dress", test / f"dress/more{number}.jpg")


def test_photos_that_training_enlarges_are_named_and_a_size_is_proposed():
    checked = functools.partial(CheckedPhoto, split="", label="", path=Path(), reason="")
    photos = [checked(f"{side}.jpg", size=(side, 30)) for side in (100, 150, 155, 299)]
    [found] = [one for one in photo_findings(photos, 299) if one.kind == "enlarged"]
    assert found.items == [
        *("100.jpg: 100 pixels, enlarged 3.0 times", "150.jpg: 150 pixels, enlarged 2.0 times"),
        "155.jpg: 155 pixels, enlarged 1.9 times",
    ]
    assert "`--image-size 250` is enough for nine of ten photos" in found.text
    [found] = [one for one in photo_findings(photos, 100) if one.kind == "enlarged"]
    assert found.items == []


def test_every_fault_of_spoiled_photos_is_found(spoiled, tmp_path, capsys):
    spoil(spoiled)
    with pytest.raises(SystemExit) as stop:
        run(spoiled, tmp_path, "--strict")
    assert stop.value.code == 1
    found = report(tmp_path)
    assert found["verdict"] == "fix"
    leaks = items(found, "leak")
    assert "train/hat/00.jpg = test/hat/exact.jpg (the same file)" in leaks
    assert "train/hat/01.jpg = test/hat/again.jpg (nearly the same)" in leaks
    assert "train/hat/02.jpg = test/hat/upended.jpg (nearly the same after rotate 180)" in leaks
    assert items(found, "contradiction") == (
        "train/dress/mirrored.jpg = train/pants/03.jpg (nearly the same after flip left right)"
    )
    assert items(found, "duplicates").startswith("train/pants/05.jpg = train/pants/twice.jpg")
    assert items(found, "turned") == "train/pants/04.jpg: orientation 6"
    assert items(found, "narrow") == "train/hat/narrow.png: 30 x 90 pixels"
    assert items(found, "flat") == "train/hat/flat.png"
    assert items(found, "unreadable").startswith("train/hat/broken.jpg: not a photo")
    assert items(found, "unused") == "outside.jpg"
    assert items(found, "too small to learn") == "dress: 9"
    assert items(found, "too small to measure") == "pants: 3"
    assert "of train but 81.4% of test" in items(found, "priors")
    ranks = [finding["harm"] for finding in found["findings"]]
    assert ranks == sorted(ranks)
    printed = capsys.readouterr().out
    assert "1. photos that are in more than one split: 3." in printed
    assert printed.index("good to know:") < printed.index("verdict: 7 things to fix")
    assert (tmp_path / "results" / "check" / "duplicates.png").exists()


def test_folders_that_training_refuses_are_examined_all_the_same(spoiled, tmp_path, capsys):
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


def test_refusal_that_nothing_else_explains_is_a_finding(clean, tmp_path):
    folder = tmp_path / "few"
    for label in ("dress", "hat"):
        shutil.copytree(clean / "test" / label, folder / label)
    for number in range(2, 10):
        (folder / "hat" / f"{number:02}.jpg").unlink()
    assert "'hat' has 2 different photos" in items(run(folder, tmp_path), "layout")


def test_class_whose_name_cannot_be_shown_is_a_finding(spoiled, tmp_path):
    try:
        (spoiled / "train" / "hat").rename(spoiled / "train" / "caf\udce9")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    found = run(spoiled, tmp_path)
    assert "caf\\udce9' cannot be shown" in items(found, "layout")
    assert found["photos"]["counts"]["train"]["caf\\udce9"] == COUNTS["train"]


@pytest.mark.slow
def test_features_reveal_swapped_labels(spoiled, tmp_path):
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


def test_findings_without_items_are_left_out_and_the_others_ordered():
    values = {"least": 1, "split": "test", "ratio": 1, "statistic": 1, "p_value": 1}
    values |= {"side": 299, "proposed": 80}
    made = [Finding(kind, [kind], **values) for kind in reversed(KINDS)]
    found = as_json([*made, Finding("leak", [])])["findings"]
    assert [finding["kind"] for finding in found] == [*KINDS]
    assert [finding["harm"] for finding in found] == [*range(1, len(KINDS) + 1)]


@pytest.mark.parametrize("places", [None, [], ["hat", "shoes"], ["train/hat", "validation/hat"]])
def test_folders_without_photos_are_an_error(places, tmp_path, capsys):
    for place in [] if places is None else ["photos", *(f"photos/{place}" for place in places)]:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda: main(words(tmp_path / "photos", tmp_path)))
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert str(tmp_path / "photos") in printed.err


def test_photos_in_no_class_folder_are_a_finding(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "loose.jpg").touch()
    assert items(run(tmp_path / "photos", tmp_path), "unused") == "loose.jpg"


def backbone_of(config: Config) -> keras.Model:
    """Return a small backbone in place of a real one, another one for other weights."""
    backbone = small_backbone(config.backbone)
    if config.backbone == "xception" and config.weights != "released":
        backbone.set_weights([values[::-1] for values in backbone.get_weights()])
    return backbone


def save_points(points: np.ndarray, *others: Any) -> None:
    others[-1].write_bytes(points.tobytes())


@pytest.fixture(scope="module")
def cheap() -> Iterator[None]:
    """Let the command use a small backbone, and save points without drawing a map of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_keras.training.build_backbone", backbone_of)
        patch.setattr("fashion_keras.check.embeddings.draw_map", save_points)
        yield


def test_copies_of_one_photo_reveal_nothing_of_labels(tmp_path, cheap):
    draw("hat", tmp_path / "a.jpg")
    for place in ("train/hat", "train/dress", "validation/hat", "validation/dress"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        shutil.copy(tmp_path / "a.jpg", tmp_path / "photos" / place)
    found = run(tmp_path / "photos", tmp_path, "--features", "--weights", "released")
    assert items(found, "labels unseen") == "too few different photos to compare"


# The changed options, and what they change; `*` stands for the test's own folder.
CHANGES = {
    "data": ("", "report"),
    "--features": ("--features --weights released", "map.png"),
    "--strict": ("--strict", "code"),
    "--image-size": ("--image-size 72", "show_batch.png"),
    "--rotation": ("--rotation 0.4", "show_batch.png"),
    "--no-mirror": ("--no-mirror", "show_batch.png"),
    "--zoom": ("--zoom 0.6", "show_batch.png"),
    "--label-pattern": ("--label-pattern /([0-9])", "report"),
    "--split-seed": ("--split-seed 2", "show_batch.png"),
    "--seed": ("--seed 2", "show_batch.png"),
    "--backbone": ("--features --weights imagenet --backbone convnext-tiny", "map.png"),
    "--weights": ("--features --weights imagenet", "map.png"),
    "--feature-batch-size": ("--features --weights released --feature-batch-size 5", "cache"),
    "--review": ("--review */a.csv", "report"),
    "--results": ("--results */elsewhere", "results"),
    "--cache": ("--cache */other_cache", "cache"),
}


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw class folders of eight photos."""
    folder = tmp_path_factory.mktemp("photos")
    for label in ("hat", "pants"):
        for number in range(8):
            draw(label, folder / label / f"{number}.jpg")
    return folder


def outcome(photos: Path, place: Path, arguments: str) -> dict[str, Any]:
    """Run the command; return its exit code, files and report."""
    code: Any = 0
    try:
        main(words(photos, place, *arguments.replace("*", str(place)).split()))
    except SystemExit as stop:
        code = stop.code
    results = next(place.glob("*/check"))
    found = json.loads((results / "check.json").read_text())
    del found["run"]
    pictures = {file.name: file.read_bytes() for file in results.glob("*.png")}
    cache = {str(path.relative_to(place)) for path in place.rglob("*") if "check" not in path.parts}
    facts = {"code": code, "results": results.parent.name, "cache": cache, "report": found}
    return {"map.png": b"", **pictures, **facts}


@pytest.fixture(scope="module")
def bases(unsplit: Path, tmp_path_factory: pytest.TempPathFactory, cheap: None) -> list[dict]:
    """Return the outcomes without options, and with features."""
    given = ("", "--features --weights released")
    return [outcome(unsplit, tmp_path_factory.mktemp("base"), words) for words in given]


# The others are in tests/data/test_listed.py and tests/check/test_review.py.
ELSEWHERE = {"--label-column", "--no-browser"}


@pytest.mark.parametrize("option", sorted({*options_of(options())} - ELSEWHERE))
def test_option_changes_the_outcome(option, unsplit, bases, tmp_path):
    arguments, changed = CHANGES[option]
    base = bases[option in ("--backbone", "--weights", "--feature-batch-size")]
    if option == "data":
        unsplit = shutil.copytree(unsplit, tmp_path / "more")
        shutil.copy(unsplit / "hat" / "1.jpg", unsplit / "pants" / "copy.jpg")
    write_review(tmp_path / "a.csv", {"hat/1.jpg": Decision("drop")})
    found = outcome(unsplit, tmp_path, arguments)
    assert found[changed] != base[changed]
    if changed == "show_batch.png":
        assert found["report"] == base["report"]
