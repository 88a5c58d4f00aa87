"""Tests of the evaluate command: what it counts, what it writes, what it refuses."""

import itertools
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from fashion_keras.artifacts import sha256_of
from fashion_keras.backend import keras
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import prepare
from fashion_keras.data.review import write_review
from fashion_keras.data.sample import LABELS
from fashion_keras.evaluate import cross_validate, headline, labelled_photos, main
from fashion_keras.metrics import scores
from fashion_keras.model import build_head
from fashion_keras.saving import save_classifier
from tests.builders import never_near, opened, rows_of


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


def test_every_readable_photo_counts_once_and_the_others_are_named(model, photos, tmp_path, capsys):
    files = sorted(photos.glob("*/*.jpg"))
    (photos / "hat" / "broken.jpg").write_text("no photo")
    with pytest.raises(SystemExit, match="^3$"):
        main([str(model), str(photos), "--results", str(tmp_path / "found")])
    metrics = json.loads((tmp_path / "found" / "metrics.json").read_text())
    predicted = [row.category for row in load_classifier(model).predict(files)]
    correct = sum(label == file.parent.name for label, file in zip(predicted, files, strict=True))
    assert (metrics["photos"], metrics["correct"]) == (20, correct)
    assert metrics["model_sha256"] == sha256_of(model)
    shown = capsys.readouterr().out
    assert f"accuracy {correct / 20:.4f} ({correct} of 20), 95 % interval" in shown
    assert "cannot be read, not counted: hat/broken.jpg: " in shown
    assert len(metrics["unreadable"]) == 1
    rows = rows_of(tmp_path / "found" / "predictions.csv")
    assert [row["file"] for row in rows] == [f.relative_to(photos).as_posix() for f in files]
    assert [row["predicted"] for row in rows] == predicted
    assert (tmp_path / "found" / "confusion.png").stat().st_size > 1000
    (photos / "hat" / "broken.jpg").unlink()
    main([str(model), str(photos), "--results", str(tmp_path / "found")])  # Without an exit code.


def test_photos_in_other_count_apart(model, photos, tmp_path, monkeypatch, capsys):
    shutil.copytree(photos / "hat", photos / "Other")
    (photos / "Other" / "bad.jpg").write_text("no photo")
    write_review(review := tmp_path / "a b.csv", {})
    words = [str(model), str(photos), "--review", str(review), "--results", str(tmp_path / "found")]
    loaded = load_classifier(model)
    for one, none in ((loaded, 0), (never_near(loaded), 2)):
        monkeypatch.setattr("fashion_keras.classifier.load_classifier", Mock(return_value=one))
        with pytest.raises(SystemExit, match="^3$"):
            main(words)
        metrics = json.loads((tmp_path / "found" / "metrics.json").read_text())
        assert metrics["other"] == {"photos": 2, "none_of_these": none}
        assert [line.split(":")[0] for line in metrics["unreadable"]] == ["Other/bad.jpg"]
        assert (metrics["photos"], metrics.get("none_of_these", 0)) == (20, 10 * none)
        shown = capsys.readouterr().out
        assert f"other: {none} of 2 answered `none of these`\n" in shown
    assert "answered `none of these`: 20 of 20; with these, 0 are answered correctly" in shown
    assert shown.endswith(f"fashion_keras.report {model} {photos} --review '{review}'\n")


def test_an_accuracy_below_the_least_ends_with_1(model, photos, tmp_path, capsys):
    words = [str(model), str(photos), "--results", str(tmp_path / "found"), "--at-least"]
    with pytest.raises(SystemExit, match="^1$"):
        main([*words, "1"])
    assert "the accuracy is below 1" in capsys.readouterr().err
    main([*words, "0"])


def test_classes_without_photos_are_named_not_scored(model, photos, tmp_path, capsys):
    shutil.rmtree(photos / "hat")
    main([str(model), str(photos), "--results", str(tmp_path / "found")])
    lines = capsys.readouterr().out.splitlines()
    assert "without photos: hat" in lines
    assert not [line for line in lines if line.startswith("hat ")]


def test_balanced_accuracy_is_shown_where_classes_are_uneven():
    true, found = np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 0]]
    assert ", balanced accuracy 0.5000, macro F1" in headline(scores(true, found, ["a", "b"]))
    assert "balanced" not in headline(scores(true[2:], found[2:], ["a", "b"]))


class Remembering:
    """A model that asserts that it predicts nothing that it was trained on."""

    def fit(self, batches, epochs, steps_per_epoch, **options):  # noqa: D102
        seen = [batch[0] for batch in itertools.islice(batches, epochs * steps_per_epoch)]
        self.seen = {row.tobytes() for row in np.concatenate(seen)}

    def predict_on_batch(self, rows):
        """Predict the first class."""
        assert len(self.seen) > 30
        assert not self.seen & {row.tobytes() for row in rows}
        return np.eye(10)[np.zeros(len(rows), int)]


def test_no_photo_is_predicted_by_a_head_that_saw_it_or_a_copy(
    sample_folder, tiny_backbone, tmp_path, monkeypatch
):
    folder = shutil.copytree(sample_folder, tmp_path / "photos")
    for label in LABELS:  # A photo for validation is one for training.
        copied = min((folder / "train" / label).iterdir())
        shutil.copy(copied, min((folder / "validation" / label).iterdir()))
    config = Config(data=str(folder), image_size=71, batch_size=8, augmented_copies=0)
    prepared = prepare(Config(data=str(folder)), tmp_path)
    datasets = opened(prepared, tiny_backbone, tmp_path, config)
    monkeypatch.setattr("fashion_keras.training.build_compiled_head", lambda *_: Remembering())
    true, predicted = cross_validate(config, datasets, 1)
    assert np.bincount(true).tolist() == [6] * 10  # Of 4 and 2: nothing of the test split.
    assert predicted.tolist() == [0] * 60


def test_the_engine_is_the_best_for_that_many_photos(model, photos, tmp_path, engine_asked):
    main([str(model), str(photos), "--results", str(tmp_path / "found")])
    assert engine_asked == [(20, 71, Path(os.environ["FASHION_KERAS_CACHE"]))]


def test_photos_are_those_in_class_folders_at_any_depth(photos: Path) -> None:
    shutil.rmtree(photos / "hat")
    (photos / "notes.txt").write_text("hello")
    (photos / "shirt" / ".hidden").write_text("hello")
    (photos / "shirt" / "more").mkdir()
    shutil.move(next(photos.glob("shirt/*.jpg")), photos / "shirt" / "more" / "caf\udce9.jpg")
    found = labelled_photos(photos, list(LABELS))
    assert len(found) == 18
    assert {photo.label for photo in found} == set(LABELS) - {"hat"}
    assert all(photo.name.startswith(f"{photo.label}/") for photo in found)
    named = {photo.name: photo.file for photo in found}
    assert named["shirt/more/caf\\udce9.jpg"] == photos / "shirt" / "more" / "caf\udce9.jpg"


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("photos", "Received: sock."),
        ("photos/hat", "Received: no folder."),
        ("gone", "No folder "),
        ("empty", "No photos in the class folders of"),
        ("broken", "No photo can be read. First: hat/broken.jpg"),
    ],
)
def test_folder_of_another_kind_is_refused(folder, message, model, photos, tmp_path):
    (photos / "sock").mkdir()
    (tmp_path / "empty" / "hat").mkdir(parents=True)
    (tmp_path / "broken" / "hat").mkdir(parents=True)
    (tmp_path / "broken" / "hat" / "broken.jpg").write_text("no photo")
    with pytest.raises(InputError, match=message):
        main([str(model), str(tmp_path / folder), "--results", str(tmp_path)])
