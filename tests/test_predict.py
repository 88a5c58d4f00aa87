"""Tests of predictions: order, laziness, files, output, and parity with every other way."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras import command
from fashion_keras.artifact import Classifier, load_classifier, save_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.evaluate import Labelled, _predict_all
from fashion_keras.model import build_classifier, build_head
from fashion_keras.photo import read_photo
from fashion_keras.predict import Prediction, describe, find_files, main, predict
from fashion_keras.prepare import Prepared, prepare

LABELS = ["cap", "hat", "sock", "tie"]


@pytest.fixture
def classifier(tiny_backbone: keras.Model) -> Classifier:
    """Build a classifier whose answers differ strongly from photo to photo."""
    head = build_head(Config(inner_size=16), 4)
    head.set_weights([weight * 4 for weight in head.get_weights()])
    model = build_classifier(tiny_backbone, head, 71)
    return Classifier(model, LABELS, 71)


@pytest.fixture
def model_file(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier."""
    head = build_head(Config(inner_size=16), 4)
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")
    return tmp_path / "our.keras"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Write seven photos of different sizes and colours."""
    files = []
    for number in range(7):
        noise = np.random.default_rng(number).integers(0, 80, (60 + number, 110 - number, 3))
        files.append(tmp_path / f"{number}.png")
        Image.fromarray((noise + 25 * number).astype("uint8")).save(files[-1])
    return files


def alone(classifier: Classifier, file: Path) -> np.ndarray:
    """Return what the bare model says about one photo."""
    model: Any = classifier.model
    return np.asarray(model(read_photo(file).pixels[None]))[0]


@pytest.mark.parametrize("batch", [1, 3, 7, 32])
def test_order_is_kept_over_batches_of_mixed_sizes(
    batch: int, classifier: Classifier, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.predict._BATCH", batch)
    predictions = list(predict(classifier, photos))
    assert [prediction.file for prediction in predictions] == photos
    assert {prediction.reason for prediction in predictions} == {""}
    expected = [alone(classifier, file) for file in photos]
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-4
    found = [prediction.probabilities for prediction in predictions]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_unreadable_photo_has_its_reason_in_its_place(
    batch: int, classifier: Classifier, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.predict._BATCH", batch)
    photos[1].write_bytes(b"")
    photos[4].unlink()
    predictions = list(predict(classifier, photos))
    reasons = ["", "empty file", "", "", "cannot be opened: No such file or directory", "", ""]
    assert [prediction.reason for prediction in predictions] == reasons
    assert [len(prediction.probabilities) for prediction in predictions] == [4, 0, 4, 4, 0, 4, 4]
    np.testing.assert_allclose(
        predictions[5].probabilities, alone(classifier, photos[5]), atol=1e-5
    )


def test_no_photos_give_no_predictions(classifier: Classifier) -> None:
    assert list(predict(classifier, [])) == []


def test_photos_are_read_as_predictions_are_asked_for(
    classifier: Classifier, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.predict._BATCH", 4)
    taken = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(photos[len(taken) % 7])
            yield taken[-1]

    predictions = predict(classifier, endless())
    assert taken == []
    assert next(predictions).file == photos[0]
    assert len(taken) <= 3 * 4 + 1


def test_files_are_found_in_folders_and_below(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "b/deep/3.png", "b/.hidden/4.jpg", "b/.5.jpg", "a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_files([tmp_path / "b", tmp_path / "a.jpg"])
    names = [file.relative_to(tmp_path).as_posix() for file in found]
    assert names == ["b/1.jpg", "b/2.jpg", "b/deep/3.png", "a.jpg"]


def test_files_below_a_hidden_folder_are_found_if_it_is_named(tmp_path: Path) -> None:
    (tmp_path / ".photos").mkdir()
    (tmp_path / ".photos" / "1.jpg").touch()
    assert find_files([tmp_path / ".photos"]) == [tmp_path / ".photos" / "1.jpg"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No file or folder .*gone\.jpg\."):
        find_files([tmp_path, tmp_path / "gone.jpg"])


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".hidden.jpg").touch()
    with pytest.raises(InputError, match="No photos in the folders given"):
        find_files([tmp_path])


def test_description_names_the_three_best() -> None:
    prediction = Prediction(Path("a/hat.jpg"), np.array([0.05, 0.7, 0.2451, 0.0049]), "")
    assert describe(prediction, LABELS) == "a/hat.jpg  hat 0.700  (sock 0.245, cap 0.050)"
    assert describe(prediction, LABELS, top=1) == "a/hat.jpg  hat 0.700"


def test_description_of_an_unreadable_photo_gives_the_reason() -> None:
    prediction = Prediction(Path("a/hat.jpg"), np.empty(0), "empty file")
    assert describe(prediction, LABELS) == "a/hat.jpg  cannot be read: empty file"


def test_command_prints_a_line_for_each_photo(
    model_file: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(model_file), *map(str, photos[:2])])
    expected = predict(load_classifier(model_file), photos[:2])
    lines = [describe(prediction, LABELS) for prediction in expected]
    assert capsys.readouterr().out.splitlines() == lines


def test_command_ends_with_3_if_a_photo_is_unreadable(
    model_file: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos[0].write_text("no photo")
    with pytest.raises(SystemExit, match="^3$"):
        main([str(model_file), *map(str, photos[:2])])
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith(f"{photos[0]}  cannot be read: not a photo in one of the formats JPEG")
    assert good.startswith(f"{photos[1]}  ")


def test_command_ends_with_2_without_a_model(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        command.run(lambda: main(["gone.keras", str(photos[0])]))
    error = "error: No model file gone.keras; `python -m fashion_keras.final` makes one.\n"
    assert capsys.readouterr().err == error


def smooth_picture() -> Image.Image:
    """Draw a picture that looks different in every position."""
    rows, columns = np.mgrid[0:130, 0:90]
    waves = [rows * 1.9, columns * 2.7, 127 + 120 * np.sin(rows / 9 + columns / 5)]
    return Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype("uint8"))


def turned_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees clockwise.
    return exif


FORMS: dict[str, Callable[[Path], None]] = {
    "photo.jpg": lambda file: smooth_picture().save(file, quality=92),
    "photo.png": lambda file: smooth_picture().save(file),
    "turned.jpg": lambda file: smooth_picture().save(file, quality=92, exif=turned_exif()),
}


@pytest.fixture
def forms(tmp_path: Path) -> Prepared:
    """Prepare the same picture as JPEG, as PNG and with an EXIF turn."""
    for place in ("train/hat", "train/tie", "validation/hat"):
        (tmp_path / "source" / place).mkdir(parents=True)
        for name, write in FORMS.items():
            write(tmp_path / "source" / place / name)
    return prepare(str(tmp_path / "source"), tmp_path / "cache")


def test_probabilities_are_the_same_every_way(
    forms: Prepared, classifier: Classifier, tmp_path: Path
) -> None:
    photos = forms.split("validation")
    files = [tmp_path / "source" / photo.file for photo in photos]
    assert [file.name for file in files] == sorted(FORMS)
    by_command = [prediction.probabilities for prediction in predict(classifier, files)]
    labelled = [Labelled(forms.folder / photo.prepared, photo.file, "hat") for photo in photos]
    _, by_test, _ = _predict_all(classifier, labelled)
    by_model = [alone(classifier, file) for file in files]
    np.testing.assert_allclose(by_command, by_model, atol=1e-5)
    np.testing.assert_allclose(by_test, by_model, atol=1e-5)
    upright, _, turned = by_model
    assert np.abs(upright - turned).max() > 1e-3


def test_without_a_model_the_released_one_is_used(
    model_file: Path,
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main([str(model_file), str(photos[0])])
    named = capsys.readouterr().out
    monkeypatch.setattr("fashion_keras.predict.RELEASED", model_file)
    main([str(photos[0])])
    assert capsys.readouterr().out == named


def test_a_model_without_photos_is_refused(model_file: Path) -> None:
    with pytest.raises(InputError, match="Expected photos or folders after the model. Received: "):
        main([str(model_file)])
