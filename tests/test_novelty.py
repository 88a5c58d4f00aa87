"""Tests of `none of these`: what is learnt from which photos, and what a saved file answers."""

import dataclasses
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fashion_keras.backend import keras
from fashion_keras.classifier import NONE, Classifier, distances, load_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.evaluate import labelled, predict_photos
from fashion_keras.model import build_head
from fashion_keras.novelty import class_means, in_words, learn_novelty, learnt, threshold, to_bytes
from fashion_keras.saving import add_metadata, save_classifier
from tests.builders import members_of, noise, picture, rows_of, save_tiny_onnx
from tests.conftest import small_backbone


def test_class_means_are_directions_and_each_photo_counts_the_same():
    features, half = np.array([[9, 0], [0, 0.1], [0, -3]]), np.float16(np.sqrt(0.5))
    means = class_means(features, np.array([0, 0, 1]), 2)
    assert (means.dtype, means.tolist()) == (np.float16, [[half, half], [0, -1]])


def test_the_distance_is_that_to_the_nearest_mean_whatever_the_lengths():
    features = np.array([[5, 0], [0, 0.1], [-1, 0], [-2, -2], [3, 4], [0, 0]], "float32")
    found = distances(features, np.eye(2, dtype="float16"))
    assert found == pytest.approx([0, 0, 1, 1 + np.sqrt(0.5), 0.2, 1])


@pytest.mark.parametrize(
    ("own", "others", "limit"),
    [
        (range(20), [], 18),  # 19 of 20.
        (range(21), [], 19),
        ([2, 1], [], 2),  # Of few photos all pass.
        ([2, 1], [9, 4], 3),  # Half way.
        ([1, 2, 3, 4], [3.5, 5, 6, 7], 4.5),  # As good as 3.25, and more of the own ones pass.
        ([1] * 9 + [9], [4, 5, 6, 7], 2.5),
        ([1] * 8 + [9, 9], [4, 5, 6, 7], 9),  # 90 % pass at least.
        ([2, 2, 2], [2, 3], 2.5),
        ([1, 2], [0.5, 0.75], 2),  # Others are nearer.
    ],
)
def test_the_threshold_lets_own_photos_pass_and_refuses_others(own, others, limit):
    own, others = np.array(own, "float32"), np.array(others, "float32")
    assert threshold(own, others) == limit


def test_what_is_learnt_is_said_in_words():
    own, others = np.array([*range(-5, 4), 9]), np.array([2.5, 6, 7, 8])
    known = {"threshold": 4.5, "passed": 0.9, "photos": 10, "refused": 0.75, "others": 4}
    assert learnt(own, others) == known
    line = "`none of these`: photos farther than 4.500 from each class; 90.0% of 10 validation "
    guess = "; with so few photos this is little more than a guess"
    assert in_words(known) == f"{line}photos are not, 75.0% of 4 others are{guess}"
    alone = learnt(own, others[:0])
    assert (alone["threshold"], alone["refused"], alone["others"]) == (9, None, 0)
    assert in_words(alone).endswith(f"; 100.0% of 10 validation photos are not{guess}")
    assert in_words(known | {"photos": 50}).endswith("others are")


class Saved(NamedTuple):
    """A saved file before and after it learnt what is none of its categories."""

    file: Path
    before: Path
    table: Path
    prepared: Prepared

    @property
    def classifier(self) -> Classifier:
        """The file, loaded."""
        return load_classifier(self.file)

    def with_means(self, content: bytes, target: Path) -> Path:
        """Write the file with another member in place of the class means."""
        members = members_of(self.file) | {"class_means": content}
        with zipfile.ZipFile(target, "w") as archive:
            for name in members:
                archive.writestr(name, members[name])
        return target


@pytest.fixture(scope="module")
def saved(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Save a classifier that was not trained; three photos of noise are none of its categories."""
    folder = tmp_path_factory.mktemp("novelty")
    photos = shutil.copytree(sample_folder, folder / "photos")
    (photos / "Other").mkdir()
    for number, pixels in enumerate(noise(3, 90, 80)):
        Image.fromarray(pixels).save(photos / "Other" / f"{number}.png")
    prepared = prepare(Config(data=str(photos)), folder / "cache")
    file, before = folder / "our.keras", folder / "before.keras"
    head = build_head(Config(inner_size=0), 10)
    save_classifier(small_backbone(), head, prepared.labels, 71, before)
    shutil.copy(before, file)
    photos = labelled(prepared, "validation")
    validation, _ = predict_photos(load_classifier(before), photos, "validation")
    learn_novelty(file, prepared, validation, folder / "distances.csv", folder / "cache")
    return Saved(file, before, folder / "distances.csv", prepared)


def test_the_file_stays_one_model_that_keras_loads(saved):
    before, after = members_of(saved.before), members_of(saved.file)
    assert after.keys() - before.keys() == {"class_means"}
    assert after["model.weights.h5"] == before["model.weights.h5"]
    bare: Any = keras.saving.load_model(saved.file)
    earlier: Any = keras.saving.load_model(saved.before)
    pixels = noise(2, 71, 71)
    assert len(bare.outputs) == 1
    np.testing.assert_array_equal(bare.predict(pixels), earlier.predict(pixels))


def test_the_threshold_comes_from_validation_and_other_photos(saved):
    rows, classifier = rows_of(saved.table), saved.classifier
    photos = [one for split in ("validation", "other") for one in labelled(saved.prepared, split)]
    assert [row["file"] for row in rows] == [photo.name for photo in photos]
    assert [row["split"] for row in rows] == ["validation"] * 20 + ["other"] * 3
    features = [one.features for one in classifier.predict(photo.file for photo in photos)]
    far = distances(np.stack(features), classifier.class_means)
    assert [float(row["distance"]) for row in rows] == pytest.approx(far.tolist(), abs=1e-5)
    known = classifier.metadata["novelty"]
    assert known == pytest.approx(learnt(far[:20], far[20:]), abs=1e-5)
    assert (known["photos"], known["others"], classifier.class_means.shape[0]) == (20, 3, 10)


@pytest.mark.parametrize("farther", [True, False])
def test_a_photo_beyond_the_threshold_is_none_of_these(farther, saved):
    (found,) = saved.classifier.predict(picture())
    (far,) = distances(found.features[None], saved.classifier.class_means)
    known = saved.classifier.metadata | {"novelty": {"threshold": far - 1e-4 * (farther or -1)}}
    (answered,) = dataclasses.replace(saved.classifier, metadata=known).predict(picture())
    best = saved.classifier.labels[found.probabilities.argmax()]
    assert answered.category == (NONE if farther else best)
    assert answered.probability == found.probabilities.max()
    np.testing.assert_array_equal(answered.probabilities, found.probabilities)


def test_a_file_that_keras_saved_again_or_of_an_earlier_version_always_names_a_category(
    saved, tmp_path
):
    bare: Any = keras.saving.load_model(saved.file)
    bare.save(tmp_path / "again.keras")
    for file in (tmp_path / "again.keras", saved.before):
        classifier = load_classifier(file)
        assert classifier.class_means is None
        assert all(one.category in classifier.labels for one in classifier.predict(noise(9, 8, 9)))


MEANS = np.eye(10, 2048)


@pytest.mark.parametrize(
    "content",
    [b"no array", to_bytes(MEANS.astype("float16"))[:-9], to_bytes(MEANS), to_bytes(MEANS[:3])],
)
def test_damaged_class_means_are_refused_in_one_line(content, saved, tmp_path):
    with pytest.raises(InputError, match=r"bad.keras is damaged \(copy or download it again\)"):
        load_classifier(saved.with_means(content, tmp_path / "bad.keras"))


def test_other_damage_is_refused_too(saved, tmp_path):
    file = saved.with_means(b"means" * 9, tmp_path / "bad.keras")
    file.write_bytes(file.read_bytes().replace(b"means" * 9, b"snaem" * 9))
    with pytest.raises(InputError, match=r"bad.keras is cut off or damaged"):
        load_classifier(file)
    shutil.copy(saved.file, file)
    add_metadata(file, {"novelty": {}})
    with pytest.raises(InputError, match=r"bad.keras is damaged .*threshold"):
        load_classifier(file)
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    known = {"format": 1, "labels": ["a"], "image_size": 71, "novelty": {"threshold": 1}}
    save_tiny_onnx(tmp_path / "bad.onnx", known, class_means="abc")
    with pytest.raises(InputError, match=r"bad.onnx is damaged"):
        load_classifier(tmp_path / "bad.onnx")
