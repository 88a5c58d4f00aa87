"""Tests of a loaded classifier: what it accepts, order, laziness, and the same answers everywhere.

Where the model itself does not matter, a stand-in classifies photos by their level.
"""

import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import fashion_keras
from fashion_keras.backend import keras
from fashion_keras.classifier import Classifier, Prediction, load_classifier, read_pixels
from fashion_keras.config import Config, InputError
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import prepare
from fashion_keras.engine import OpenVINO
from fashion_keras.evaluate import Labelled, predict_photos
from fashion_keras.model import build_classifier, build_head
from fashion_keras.saving import save_classifier
from tests.builders import LABELS, alone, encoded, needs_openvino, picture, strong_classifier

METADATA = {"labels": LABELS, "image_size": 71}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return strong_classifier()


class Levels:
    """Stands in for a model: photos of the level 60 are of class 0, those of 61 of class 1 ..."""

    layers = ()

    def __init__(self, wait: Callable[[], Any]) -> None:
        self._wait = wait

    def get_layer(self, name: str) -> Any:
        """Return what resizes pixels."""
        return {"resize": lambda pixels: pixels[:, :8, :8]}[name]

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities of resized pixels."""
        self._wait()
        return np.eye(4, dtype="float32")[batch[:, 0, 0, 0].astype(int) % 4] * 0.75


@pytest.mark.slow
def test_for_many_photos_openvino_gives_the_same_rows(classifier, tmp_path, monkeypatch):
    needs_openvino()
    photos = [np.asarray(picture(number)) for number in range(3)]
    assert classifier.for_photos(len(photos), tmp_path).engine is None
    monkeypatch.setattr("fashion_keras.engine._WORTH_CONVERTING", 0)
    faster = classifier.for_photos(len(photos), tmp_path)
    assert isinstance(faster.engine, OpenVINO)
    monkeypatch.setattr(classifier.model, "predict_on_batch", None)  # It is not called.
    for found, photo in zip(faster.predict(photos), photos, strict=True):
        np.testing.assert_allclose(found.probabilities, alone(classifier, photo), atol=1e-5)


def by_level(wait: Callable[[], Any] = lambda: None) -> Classifier:
    return Classifier(cast(keras.Model, Levels(wait)), METADATA)


def level(number: int) -> np.ndarray:
    return np.full((8, 8, 3), 60 + number, "uint8")


def probabilities(predictions: Iterator[Prediction]) -> np.ndarray:
    return np.stack([prediction.probabilities for prediction in predictions])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a JPEG that has to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "photo.jpg", quality=92, exif=exif)
    return tmp_path / "photo.jpg"


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda file: file,
    "str": str,
    "bytes": lambda file: file.read_bytes(),
    "memoryview": lambda file: memoryview(file.read_bytes()),
    "image": Image.open,
    "array": lambda file: read_photo(file).pixels,
}


@pytest.mark.parametrize("form", FORMS)
def test_one_photo_of_each_kind_gives_the_answer_of_the_bare_model(form, classifier, file):
    photo = FORMS[form](file)
    [prediction] = classifier.predict(photo)
    expected = alone(classifier, read_photo(file).pixels)
    assert prediction.photo is photo
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
    assert prediction.category == LABELS[expected.argmax()]
    assert prediction.probability == pytest.approx(expected.max(), abs=1e-5)
    assert prediction.reason == ""


def test_grey_array_is_one_photo_and_four_dimensions_are_many(classifier: Classifier) -> None:
    grey = np.asarray(picture().convert("L"))
    expected = alone(classifier, np.dstack([grey] * 3))
    np.testing.assert_allclose(probabilities(classifier.predict(grey)), [expected], atol=1e-5)
    photos = np.stack([np.asarray(picture().rotate(90 * turn)) for turn in range(3)])
    expected = [alone(classifier, photo) for photo in photos]
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-3
    np.testing.assert_allclose(probabilities(classifier.predict(photos)), expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_order_is_kept_over_batches_of_mixed_sizes(batch_size: int, classifier: Classifier) -> None:
    photos = [np.asarray(picture(number)) for number in range(7)]
    expected = [alone(classifier, photo) for photo in photos]
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-4
    found = probabilities(classifier.predict(photos, batch_size=batch_size))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_unreadable_photo_has_its_reason_in_its_place(batch_size: int, tmp_path: Path) -> None:
    photos = [level(0), b"", level(1), level(2), tmp_path / "gone.jpg", level(3), level(0) / 255]
    found = list(by_level().predict(photos, batch_size))
    assert [one.category for one in found] == ["cap", "", "hat", "sock", "", "tie", ""]
    reasons = [one.reason for one in found if not one.category]
    assert reasons[:2] == ["empty file", "cannot be opened: No such file or directory"]
    assert "fractions of 1" in reasons[2]
    assert [one.probability for one in found] == [0.75, 0, 0.75, 0.75, 0, 0.75, 0]
    assert [len(one.probabilities) for one in found] == [4, 0, 4, 4, 0, 4, 0]


@pytest.mark.parametrize("photo", [42, ["a list"]])
def test_what_is_no_photo_at_all_is_a_type_error(photo: Any) -> None:
    with pytest.raises(TypeError, match="^expected a photo as path, bytes, image .* Received: "):
        list(by_level().predict([level(0), photo]))
    with pytest.raises(TypeError, match=type(photo).__name__):
        read_pixels(photo)
    with pytest.raises(InputError, match="`batch_size` must be 1 or more. Received: 0"):
        next(by_level().predict([photo], batch_size=0))


def test_photos_are_consumed_as_predictions_are_requested_a_few_batches_ahead() -> None:
    taken = itertools.count()
    predictions = by_level().predict((level(next(taken)) for _ in itertools.count()), 4)
    assert next(taken) == 0
    for requested in range(1, 40):
        assert next(predictions).category
        so_far = next(taken) - requested  # Each reading of the counter counts, too.
        assert requested < so_far <= requested + 3 * 4


def test_photos_are_decoded_at_the_same_time_and_while_the_model_computes() -> None:
    both = threading.Barrier(2, timeout=20)
    later = threading.Event()

    def read(number: int) -> np.ndarray:
        if number < 2:
            both.wait()  # Goes on only when two photos are being decoded.
        if number == 3:
            later.set()
        return level(number)

    def wait() -> None:
        assert later.wait(20), "the second batch is not decoded while the first one is predicted"

    found = list(by_level(wait).predict(range(4), 2, read))
    assert [one.category for one in found] == LABELS


def test_closing_early_leaves_no_thread_and_decodes_no_more() -> None:
    before = threading.active_count()
    read = []

    def slowly(number: int) -> np.ndarray:
        read.append(number)
        time.sleep(0.01)
        return level(number)

    predictions = by_level().predict(itertools.count(), 40, slowly)
    next(predictions)
    assert threading.active_count() > before
    cast(Any, predictions).close()
    assert threading.active_count() == before
    assert len(read) < 3 * 40  # Of those taken ahead, most were not begun.


def test_image_that_is_given_many_times_is_read_by_one_thread_at_a_time() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (600, 600, 3), "uint8")
    image = Image.open(io.BytesIO(encoded(Image.fromarray(noise))))  # Not loaded yet.
    found = {(one.reason, one.category) for one in by_level().predict([image] * 8)}
    assert found == {("", LABELS[int(noise[0, 0, 0]) % 4])}


def test_saved_file_is_loaded_with_labels_size_and_metadata(tiny_backbone, tmp_path):
    file, head = tmp_path / "our.keras", build_head(Config(inner_size=0), 4)
    save_classifier(tiny_backbone, head, LABELS, 71, file, {"data": {"name": "drawn"}})
    expected = Classifier(build_classifier(tiny_backbone, head, 71), METADATA)
    classifier = fashion_keras.load_classifier(str(file))
    assert isinstance(classifier, fashion_keras.Classifier)
    assert (classifier.labels, classifier.image_size) == (LABELS, 71)
    assert classifier.metadata["data"] == {"name": "drawn"}
    [prediction] = classifier.predict(picture())
    assert isinstance(prediction, fashion_keras.Prediction)
    bare = alone(expected, np.asarray(picture()))
    np.testing.assert_allclose(prediction.probabilities, bare, atol=1e-5)
    with pytest.raises(InputError, match=r"No model file .*gone\.keras"):
        load_classifier(tmp_path / "gone.keras")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "turned"])
def test_probabilities_are_the_same_for_the_prepared_photo_and_the_original(
    kind, classifier, tmp_path
):
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    name = "photo.png" if kind == "PNG" else "photo.jpg"
    for place in ("train/hat", "train/tie", "validation/hat"):
        (tmp_path / "source" / place).mkdir(parents=True)
        picture().save(tmp_path / "source" / place / name, exif=exif)
    prepared = prepare(Config(data=str(tmp_path / "source")), tmp_path / "cache")
    [photo] = prepared.split("validation")
    labelled = Labelled(prepared.folder / photo.prepared, photo.file, "hat")
    [(_, predicted)], _ = predict_photos(classifier, [labelled], "testing")
    by_test = [predicted.probabilities]
    original = tmp_path / "source" / photo.file
    expected = alone(classifier, read_photo(original).pixels)
    np.testing.assert_allclose(by_test, [expected], atol=1e-5)
    np.testing.assert_allclose(probabilities(classifier.predict(original)), by_test, atol=1e-5)
    upright = alone(classifier, np.asarray(Image.open(original)))
    assert (np.abs(upright - expected).max() > 1e-3) == (kind == "turned")
