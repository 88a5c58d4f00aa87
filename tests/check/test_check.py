"""Tests of the check command: a clean data set is ready, a spoiled one is called out in full."""

import json
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from fashion_keras import cli
from fashion_keras.check import __main__ as check_module
from fashion_keras.check import findings, label_errors
from fashion_keras.check.__main__ import FILES, check, main
from fashion_keras.config import Config
from fashion_keras.data.sample import draw_photo

COUNTS = {"train": 20, "validation": 10, "test": 10}
LABELS = ("dress", "hat", "pants")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Draw a data set with nothing wrong."""
    folder = tmp_path_factory.mktemp("clean") / "photos"
    for split, count in COUNTS.items():
        for label in LABELS:
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                place = f"{split}/{label}/{number:02}.jpg"
                generator = np.random.default_rng(zlib.crc32(place.encode()))
                draw_photo(label, generator, 60, 80).save(folder / place, quality=95)
    return folder


@pytest.fixture
def spoiled(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "spoiled")


def run(folder, tmp_path, *options):
    """Run the command; return what it wrote."""
    given = [str(folder), "--results", str(tmp_path / "results"), "--cache", str(tmp_path / "c")]
    main([*given, "--image-size", "71", *options])
    return json.loads((tmp_path / "results" / "check" / "check.json").read_text(encoding="utf-8"))


def items(report, kind):
    """Return the items of all findings of a kind, joined."""
    return "\n".join(
        item
        for finding in report["findings"]
        if finding["kind"] == kind
        for item in finding["items"]
    )


def test_clean_photos_are_ready_and_their_batch_is_drawn(clean, tmp_path, capsys):
    report = run(clean, tmp_path, "--strict")
    assert (report["verdict"], report["findings"]) == ("ready", [])
    assert "verdict: ready" in capsys.readouterr().out
    assert report["photos"]["counts"]["test"] == {"dress": 10, "hat": 10, "pants": 10}
    assert report["photos"]["width"] == [60, 60, 60]
    made = {path.name for path in (tmp_path / "results" / "check").iterdir()}
    assert made == {"check.json", "show_batch.png"} < set(FILES)


def spoil(folder):
    """Do everything to a data set that training accepts all the same."""
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
    (train / "hat/broken.jpg").write_bytes(b"no photo")
    shutil.copy(train / "hat/05.jpg", folder / "beside.jpg")
    for number in range(12):
        (train / f"dress/{number:02}.jpg").unlink()
    for number in range(7):
        (test / f"pants/{number:02}.jpg").unlink()
    for number in range(60):
        generator = np.random.default_rng(number)
        draw_photo("dress", generator, 60, 80).save(test / f"dress/more{number}.jpg", quality=95)


def test_spoiled_photos_are_called_out_in_every_point(spoiled, tmp_path, capsys):
    spoil(spoiled)
    with pytest.raises(SystemExit) as stop:
        run(spoiled, tmp_path, "--strict")
    assert stop.value.code == 1
    file = tmp_path / "results" / "check" / "check.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    leaks = items(report, "leak")
    assert "train/hat/00.jpg = test/hat/exact.jpg (the same file)" in leaks
    assert "train/hat/01.jpg = test/hat/again.jpg (nearly the same)" in leaks
    assert "train/hat/02.jpg = test/hat/upended.jpg (nearly the same, turned by 180 deg" in leaks
    twice = items(report, "contradiction")
    assert "train/dress/mirrored.jpg = train/pants/03.jpg (nearly the same, mirrored)" in twice
    assert items(report, "turned") == "train/pants/04.jpg: on its left side"
    assert items(report, "unreadable").startswith("train/hat/broken.jpg: not a photo")
    assert items(report, "unused") == "beside.jpg"
    assert items(report, "too small to learn") == "dress: 9"
    assert items(report, "too small to measure").startswith("pants: 3; with 3 of them right")
    assert "dress: 18.4% of train but 81.4% of test" in items(report, "priors")
    ranks = [finding["harm"] for finding in report["findings"]]
    assert ranks == sorted(ranks)
    told = capsys.readouterr().out
    assert "1. photos that are in more than one split: 3." in told
    assert (tmp_path / "results" / "check" / "duplicates.png").exists()


def test_folders_that_training_refuses_are_told_with_everything_else(spoiled, tmp_path, capsys):
    shutil.copy(spoiled / "train/hat/00.jpg", spoiled / "test/hat/exact.jpg")
    (spoiled / "train" / "skirt").mkdir()
    shutil.rmtree(spoiled / "validation" / "pants")
    for path in (spoiled / "test" / "pants").iterdir():
        path.write_bytes(b"")
    report = run(spoiled, tmp_path)
    assert items(report, "empty class").splitlines() == [
        "train/skirt: empty",
        "test/pants: none of its files can be read",
    ]
    assert items(report, "missing class").splitlines() == [
        "pants has no folder in validation",
        "skirt has no folder in validation",
        "skirt has no folder in test",
    ]
    assert "test/hat/exact.jpg" in items(report, "leak")
    assert items(report, "unreadable").count("test/pants") == COUNTS["test"]
    assert "training refuses these photos" in capsys.readouterr().out


def test_a_reason_that_nothing_else_tells_is_told(clean, tmp_path):
    folder = tmp_path / "few"
    for label in ("dress", "hat"):
        shutil.copytree(clean / "test" / label, folder / label)
    for number in range(2, 10):
        (folder / "hat" / f"{number:02}.jpg").unlink()
    report = run(folder, tmp_path)
    assert "'hat' has 2 different photos" in items(report, "layout")


def test_swapped_labels_and_strangers_are_found_with_vectors(
    spoiled, tmp_path, monkeypatch, capsys
):
    swapped = ("train/hat/07.jpg", "train/pants/07.jpg")
    (spoiled / swapped[0]).rename(tmp_path / "between.jpg")
    (spoiled / swapped[1]).rename(spoiled / swapped[0])
    (tmp_path / "between.jpg").rename(spoiled / swapped[1])
    monkeypatch.setattr(check_module, "open_material", Separable)
    report = run(spoiled, tmp_path, "--vectors")
    assert {line.split(":")[0] for line in items(report, "label errors").splitlines()} == set(
        swapped
    )
    assert items(report, "outliers").splitlines()[0] == "test/dress/09.jpg (dress)"
    made = {path.name for path in (tmp_path / "results" / "check").iterdir()}
    assert made == set(FILES) - {"duplicates.png"}


def test_labels_that_were_not_looked_at_are_told(spoiled, tmp_path, capsys):
    (spoiled / "train" / "skirt").mkdir()
    report = run(spoiled, tmp_path, "--vectors")
    assert "skirt is empty" in items(report, "labels unseen")
    told = capsys.readouterr().out
    assert "so labels and outliers are not looked at" in told
    assert "`--vectors` was given, but labels were not looked at" in told


def test_copies_of_one_photo_say_nothing_of_labels(tmp_path, monkeypatch):
    photo = draw_photo("hat", np.random.default_rng(1), 60, 80)
    for place in ("train/hat", "train/dress", "validation/hat", "validation/dress"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        photo.save(tmp_path / "photos" / place / "a.png")
    monkeypatch.setattr(check_module, "open_material", Separable)
    report = run(tmp_path / "photos", tmp_path, "--vectors")
    assert items(report, "labels unseen") == "all photos are copies of one"


def test_suspects_do_not_make_a_strict_check_fail(clean, tmp_path, monkeypatch):
    suspect = label_errors.Suspect(0, 0, 1, 0.1, 0.9)
    monkeypatch.setattr(label_errors, "find_suspects", lambda *given: [suspect])
    monkeypatch.setattr(check_module, "open_material", Separable)
    report = run(clean, tmp_path, "--vectors", "--strict")
    assert report["verdict"] == "ready"
    assert "train/dress/00.jpg: labelled dress (10%)" in items(report, "label errors")


def test_a_class_whose_name_is_no_text_is_called_out(spoiled, tmp_path):
    try:
        (spoiled / "train" / "hat").rename(spoiled / "train" / "caf\udce9")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    report = run(spoiled, tmp_path, "--vectors")
    assert "caf\\udce9' cannot be shown" in items(report, "layout")
    assert report["photos"]["counts"]["train"]["caf\\udce9"] == COUNTS["train"]


class Separable:
    """Vectors that tell what a photo shows, whatever its label; one is unlike all others."""

    def __init__(self, config, prepared, cache):
        self._prepared = prepared

    def frozen(self):
        """Return no backbone and these vectors."""
        return None, self

    def vectors(self, split):
        """Return the vectors of a split."""
        rows = []
        for photo in self._prepared.split(split):
            shows = LABELS.index(photo.label)
            if photo.file in ("train/hat/07.jpg", "train/pants/07.jpg"):
                shows = 3 - shows
            noise = np.random.default_rng(zlib.crc32(photo.file.encode())).random(64)
            row = 0.3 * noise + np.eye(64)[shows] * 12
            rows.append(row * 0 + np.eye(64)[9] * 30 if photo.file == "test/dress/09.jpg" else row)
        return np.array(rows, "float32")


def test_a_finding_of_every_kind_has_its_rank():
    made = [findings.Finding(kind, kind, "", [kind]) for kind in reversed(findings.KINDS)]
    assert [findings.harm(one) for one in findings.ordered(made)] == [*range(1, len(made) + 1)]


@pytest.mark.parametrize("options", [["nowhere"], ["sample", "--vectors", "--weights", "none"]])
def test_wrong_usage_ends_with_exit_code_2(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: main([*options, "--cache", str(tmp_path), "--results", str(tmp_path)]))
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("places", [[], ["hat", "shoes"], ["train/hat", "validation/hat"]])
def test_folders_without_photos_are_refused_as_training_does(places, tmp_path, capsys):
    for place in ["photos", *(f"photos/{place}" for place in places)]:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: run(tmp_path / "photos", tmp_path))
    told = capsys.readouterr()
    assert (stop.value.code, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert str(tmp_path / "photos") in told.err


def test_photos_in_no_class_folder_are_told(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "loose.jpg").touch()
    assert items(run(tmp_path / "photos", tmp_path), "unused") == "loose.jpg"
    assert "looking at photos" not in capsys.readouterr().out


def test_options_that_count_for_vectors_only_say_so(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("; counts with --vectors only") == 2


def test_an_earlier_run_does_not_leave_its_pictures_behind(clean, tmp_path):
    (tmp_path / "map.png").write_bytes(b"old")
    check(Config(data=str(clean), image_size=71), tmp_path, tmp_path / "cache", vectors=False)
    assert not (tmp_path / "map.png").exists()
