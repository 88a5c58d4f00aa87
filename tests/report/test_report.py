"""Tests of the report command: what it writes, what it takes, what it refuses."""

import json
import shutil
from pathlib import Path

import keras
import pytest

from fashion_keras import cli
from fashion_keras.config import Config, InputError
from fashion_keras.data.sample import LABELS
from fashion_keras.model import build_head
from fashion_keras.report.__main__ import main, photos_named, warning_of
from fashion_keras.saving import add_metadata, save_classifier


@pytest.fixture
def model(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier that was not trained."""
    file = tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=0), 10), list(LABELS), 71, file)
    return file


def test_page_of_any_saved_file_and_folder(
    model: Path, sample_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "found"
    main([str(model), str(sample_folder / "test"), "--results", str(results)])
    names = {file.name for file in results.iterdir()}
    assert names == {"confusion.png", "metrics.json", "predictions.csv", "report.html"}
    page = (results / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((results / "metrics.json").read_text())
    assert f"{metrics['correct']} of 20, 95 % interval" in page
    assert f"{sample_folder.name}/test" in page
    assert "No history of the training lies beside our.keras." in page
    assert page.count("data:image/jpeg;base64,") > 20
    assert f"saved {results / 'report.html'} (0." in capsys.readouterr().out


def test_photos_are_those_of_the_test_split(sample_folder: Path, tmp_path: Path) -> None:
    direct = photos_named(str(sample_folder / "test"), LABELS, tmp_path)
    assert len(direct) == 20
    assert photos_named(str(sample_folder), LABELS, tmp_path) == direct
    shutil.copytree(sample_folder / "train", tmp_path / "photos" / "train")
    with pytest.raises(InputError, match=r"Received: train\."):
        photos_named(str(tmp_path / "photos"), LABELS, tmp_path)


@pytest.mark.parametrize("name", ["Test", "TEST"])
def test_the_test_folder_is_known_in_any_letters(
    name: str, sample_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample_folder / "test", tmp_path / "photos" / name)
    assert len(photos_named(str(tmp_path / "photos"), LABELS, tmp_path)) == 20


@pytest.mark.parametrize(
    ("data", "warned"),
    [("photos", True), ("photos/train", True), ("split", False), ("split/test", False)],
)
def test_photos_of_the_training_are_warned_of(data: str, warned: bool, tmp_path: Path) -> None:
    (tmp_path / "photos" / "train" / "hat").mkdir(parents=True)
    (tmp_path / "split" / "test" / "hat").mkdir(parents=True)
    card = {"data": {"name": data.partition("/")[0], "photos": {"train": 9}}}
    warning = warning_of(str(tmp_path / data), card)
    assert ("may be among these" in warning) == warned
    assert warning_of("sample", {"data": {"name": "sample"}}) == ""
    assert warning_of(str(tmp_path / data), {}) == ""


def test_the_warning_stands_on_the_page(
    model: Path, sample_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = shutil.copytree(sample_folder / "test", tmp_path / "photos")
    shutil.rmtree(photos / "hat")
    add_metadata(model, {"data": {"name": "photos", "photos": {"train": 9}, "fingerprint": "a"}})
    main([str(model), str(photos), "--results", str(tmp_path / "found")])
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert "may be among these" in page
    assert "may be among these" in capsys.readouterr().out
    row = next(line for line in page.splitlines() if "<bdi>hat</bdi></th><td>0</td>" in line)
    cells = row.partition("<bdi>hat</bdi>")[2].partition("</tr>")[0]
    assert cells.count("<td>none</td>") == 4


def test_a_named_source_gives_its_test_photos(tmp_path: Path) -> None:
    photos = photos_named("sample", LABELS, tmp_path)
    assert photos
    assert all(photo.name.startswith(f"test/{photo.label}/") for photo in photos)
    assert all(photo.file.is_file() for photo in photos)
    with pytest.raises(InputError, match="Received: .*hat"):
        photos_named("sample", ["shoe"], tmp_path)


def test_a_photo_that_cannot_be_read_is_told(
    model: Path, sample_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = shutil.copytree(sample_folder / "test", tmp_path / "photos")
    (photos / "hat" / "broken.jpg").write_text("no photo")
    with pytest.raises(SystemExit, match="^3$"):
        main([str(model), str(photos), "--results", str(tmp_path / "found")])
    assert "cannot be read, not counted: hat/broken.jpg" in capsys.readouterr().out
    assert "hat/broken.jpg: not a photo" in (tmp_path / "found" / "report.html").read_text()


def test_unusable_files_end_the_command_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main([str(tmp_path / "gone.keras"), str(tmp_path)]))
    assert "No model file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_photo_whose_name_is_no_text_is_on_the_page(
    model: Path, sample_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos" / "hat").mkdir(parents=True)
    try:
        shutil.copy(
            next((sample_folder / "test" / "hat").iterdir()),
            tmp_path / "photos" / "hat" / "caf\udce9.jpg",
        )
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names that are text")
    main([str(model), str(tmp_path / "photos"), "--results", str(tmp_path / "found")])
    assert "hat/caf\\udce9.jpg" in (tmp_path / "found" / "report.html").read_text("utf-8")
