"""Tests of the report command: what it writes, and what its options do."""

import json
import shutil

import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.data.sample import LABELS
from fashion_keras.model import build_head
from fashion_keras.report.__main__ import main, photos_named, warning_of
from fashion_keras.saving import add_metadata, save_classifier


@pytest.fixture
def model(tiny_backbone, tmp_path):
    """Save a classifier that was not trained."""
    file = tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=0), 10), list(LABELS), 71, file)
    return file


def run(*words):
    main([str(word) for word in words])


def test_page_of_any_saved_file_and_folder(model, sample_folder, tmp_path, capsys):
    results = tmp_path / "found"
    run(model, sample_folder / "test", "--results", results)
    names = {file.name for file in results.iterdir()}
    assert names == {"confusion.png", "metrics.json", "predictions.csv", "report.html"}
    page = (results / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((results / "metrics.json").read_text())
    assert f"{metrics['correct']} of 20 photos classified correctly" in page
    assert f"{sample_folder.name}/test" in page
    assert "There is no history of the training next to our.keras." in page
    assert page.count("data:image/jpeg;base64,") > 20
    assert f"saved {results / 'report.html'} (0." in capsys.readouterr().out


def test_photos_are_those_of_the_test_split(sample_folder, tmp_path):
    direct = photos_named(str(sample_folder / "test"), LABELS, tmp_path)
    assert len(direct) == 20
    assert photos_named(str(sample_folder), LABELS, tmp_path) == direct
    shutil.copytree(sample_folder / "train", tmp_path / "photos" / "train")
    with pytest.raises(InputError, match=r"Received: train\."):
        photos_named(str(tmp_path / "photos"), LABELS, tmp_path)
    shutil.copytree(sample_folder / "test", tmp_path / "photos" / "TEST")
    assert len(photos_named(str(tmp_path / "photos"), LABELS, tmp_path)) == 20


@pytest.mark.slow
def test_a_named_source_gives_its_test_photos(tmp_path):
    photos = photos_named("sample", LABELS, tmp_path)
    assert photos
    assert all(photo.name.startswith(f"test/{photo.label}/") for photo in photos)
    with pytest.raises(InputError, match=r"Received: .*hat"):
        photos_named("sample", ["shoe"], tmp_path)


@pytest.mark.parametrize(
    ("data", "warned"),
    [("photos", True), ("photos/train", True), ("split", False), ("split/test", False)],
)
def test_photos_of_the_training_give_a_warning(data, warned, tmp_path):
    (tmp_path / "photos" / "train" / "hat").mkdir(parents=True)
    (tmp_path / "split" / "test" / "hat").mkdir(parents=True)
    metadata = {"data": {"name": data.partition("/")[0], "photos": {"train": 9}}}
    assert ("used for training" in warning_of(str(tmp_path / data), metadata)) == warned
    assert warning_of("sample", {"data": {"name": "sample"}}) == ""
    assert warning_of(str(tmp_path / data), {}) == ""


def test_page_with_a_warning_and_an_unreadable_photo(model, sample_folder, tmp_path, capsys):
    photos = shutil.copytree(sample_folder / "test", tmp_path / "photos")
    shutil.rmtree(photos / "hat")
    (photos / "shoes" / "broken.jpg").write_text("no photo")
    add_metadata(model, {"data": {"name": "photos", "photos": {"train": 9}, "fingerprint": "a"}})
    with pytest.raises(SystemExit, match="^3$"):
        run(model, photos, "--results", tmp_path / "found")
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    output = capsys.readouterr().out
    assert "used for training" in page
    assert "used for training" in output
    assert "cannot be read, not counted: shoes/broken.jpg" in output
    assert "shoes/broken.jpg: not a photo" in page
    row = page.partition("<bdi>hat</bdi></th><td>0</td>")[2].partition("</tr>")[0]
    assert row == 4 * "<td>none</td>"
