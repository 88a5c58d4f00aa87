"""Tests of the evaluate command: what it counts, what it writes, what it refuses."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.sample import LABELS
from fashion_keras.evaluate import labelled_photos, main
from fashion_keras.model import build_head
from fashion_keras.report.outcome import read_tested
from fashion_keras.saving import save_classifier


@pytest.fixture
def model(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier that was not trained."""
    file = tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=0), 10), list(LABELS), 71, file)
    return file


@pytest.fixture
def photos(sample_folder: Path, tmp_path: Path) -> Path:
    """Copy the drawn test photos: two of each class."""
    return shutil.copytree(sample_folder / "test", tmp_path / "photos")


def test_every_photo_counts_once(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.json"
    main([str(model), str(photos), "--results", str(tmp_path / "found"), "--profile", str(profile)])
    scoring = json.loads(profile.read_text(encoding="utf-8"))["stages"]["scoring"]
    assert scoring.keys() == {"decode", "forward", "other"}
    metrics = json.loads((tmp_path / "found" / "metrics.json").read_text())
    files = sorted(photos.glob("*/*.jpg"))
    predicted = [row.probabilities.argmax() for row in load_classifier(model).predict(files)]
    correct = sum(
        LABELS[number] == file.parent.name for number, file in zip(predicted, files, strict=True)
    )
    assert (metrics["photos"], metrics["correct"]) == (20, correct)
    assert metrics["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    shown = capsys.readouterr().out
    assert f"accuracy {correct / 20:.4f} ({correct} of 20), 95 % interval" in shown
    with (tmp_path / "found" / "predictions.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert [row["file"] for row in rows] == [f.relative_to(photos).as_posix() for f in files]
    assert (tmp_path / "found" / "confusion.png").stat().st_size > 1000


def test_unreadable_photo_is_named_and_not_counted(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "hat" / "broken.jpg").write_text("no photo")
    with pytest.raises(SystemExit, match="^3$"):
        main([str(model), str(photos), "--results", str(tmp_path / "found")])
    metrics = json.loads((tmp_path / "found" / "metrics.json").read_text())
    assert metrics["photos"] == 20
    assert len(metrics["unreadable"]) == 1
    assert "cannot be read, not counted: hat/broken.jpg: " in capsys.readouterr().out


def test_classes_without_photos_and_loose_files_are_left_out(photos: Path) -> None:
    shutil.rmtree(photos / "hat")
    (photos / "notes.txt").write_text("hello")
    found = labelled_photos(photos, list(LABELS))
    assert len(found) == 18
    assert {photo.label for photo in found} == set(LABELS) - {"hat"}
    assert all(photo.name.startswith(f"{photo.label}/") for photo in found)


@pytest.mark.parametrize("folder", ["photos", "photos/hat", "gone"])
def test_folder_of_another_kind_is_refused(
    folder: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "sock").mkdir()
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main([str(model), str(tmp_path / folder)]))
    expected = {
        "photos": "Received: sock.",
        "photos/hat": "Received: no folder.",
        "gone": "No folder ",
    }
    assert expected[folder] in capsys.readouterr().err


def test_a_folder_without_a_readable_photo_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "hat").mkdir(parents=True)
    (tmp_path / "photos" / "hat" / "broken.jpg").write_text("no photo")
    with pytest.raises(InputError, match=r"No photo can be read\. First: .*broken\.jpg"):
        main([str(model), str(tmp_path / "photos"), "--results", str(tmp_path / "found")])
    assert np.all([not path.is_file() for path in (tmp_path / "found").iterdir()])


def test_a_photo_whose_name_is_no_text_is_scored_and_found_again(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    try:
        (photos / "hat" / "caf\udce9.jpg").symlink_to(next(photos.glob("hat/*.jpg")))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    main([str(model), str(photos), "--results", str(tmp_path / "found")])
    tested = read_tested(tmp_path / "found" / "predictions.csv")
    named = {photo.name: photo.file for photo in labelled_photos(photos, list(LABELS))}
    assert tested is not None
    assert "hat/caf\\udce9.jpg" in tested.names
    assert all(named[name].is_file() for name in tested.names)
