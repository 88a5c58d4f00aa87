"""Tests of going on in smaller parts: what counts as out of memory, and that nothing changes."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fashion_keras import devices, fine_tuning, headroom
from fashion_keras.backbone import BACKBONE, VECTOR_SIZE
from fashion_keras.classifier import Classifier
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.ensemble import Ensemble, train_ensemble
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuning import fine_tune
from fashion_keras.memory import Fitting, in_parts
from fashion_keras.model import build_classifier, build_head
from fashion_keras.optimizer import PartwiseAdam
from fashion_keras.training import Material, open_material
from tuning.hyperband import open_hyperband
from tuning.hypermodel import FashionHyperModel

CONFIG = Config(
    image_size=71,
    batch_size=16,
    inner_size=0,
    droprate=0.0,
    fine_tuning_copies=0,
    fine_tuning_epochs=2,
    fine_tuning_learning_rate=0.01,
    fine_tune_from="block13",
)
FULL = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@keras.saving.register_keras_serializable()
class Narrow(keras.layers.Layer):
    """Has memory for so many photos only."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self.most = most

    def get_config(self) -> dict:
        """Return what makes the layer anew."""
        return super().get_config() | {"most": self.most}

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""

        def check(count: int) -> int:
            if count > self.most:
                raise MemoryError
            return count

        with tf.control_dependencies([tf.numpy_function(check, [tf.shape(inputs)[0]], tf.int32)]):
            return tf.identity(inputs)


def narrow_backbone(most: int) -> keras.Model:
    """Return a small backbone that has memory for so many photos at once."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 5, strides=16)(inputs)
    maps = Narrow(most, name="block13_narrow")(maps)
    maps = keras.layers.Conv2D(VECTOR_SIZE, 1, name="block13_conv")(maps)
    narrow = keras.Model(inputs, maps, name=BACKBONE)
    narrow.trainable = False
    return narrow


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        MemoryError(),
        tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
        tf.errors.UnknownError(None, None, "CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_batches_get_smaller_until_they_fit(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_parts(failing_below(4, error), 32, "work") == ("done", 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"out of memory: work goes on with {size} instead of 32 photos" for size in (16, 8)
    ]


def failing_below(parts: int, error: Exception) -> Callable[[int], str]:
    def work(given: int) -> str:
        if given < parts:
            raise error
        return "done"

    return work


@pytest.mark.parametrize(("photos", "tried"), [(6, [1, 2, 6]), (7, [1, 7]), (12, [1, 2, 4, 12])])
def test_parts_are_equal_down_to_one_photo(photos: int, tried: list[int]) -> None:
    seen = []

    def work(parts: int) -> None:
        seen.append(parts)
        raise FULL

    with pytest.raises(InputError, match=r"Out of memory: work .* a smaller `--image-size`"):
        in_parts(work, photos, "work")
    assert seen == tried


def test_other_errors_go_through() -> None:
    with pytest.raises(tf.errors.InternalError, match="a bug"):
        in_parts(failing_below(2, tf.errors.InternalError(None, None, "a bug")), 32, "work")


@pytest.mark.parametrize(("photos", "parts"), [(16, 4), (5, 2), (1, 4)])
def test_parts_of_a_batch_have_the_mean_of_the_whole(photos: int, parts: int) -> None:
    values = np.arange(1, photos + 1, dtype="float32")[:, None]
    batches = tf.data.Dataset.from_tensors((values, values))
    pieces = list(devices.shared(batches, parts).as_numpy_iterator())
    assert len(pieces) == parts
    means = [float((weights * inputs[:, 0]).mean()) for inputs, _, weights in pieces]
    assert np.mean(means) == pytest.approx(values.mean(), rel=1e-6)


def test_rate_and_steps_are_those_of_whole_batches() -> None:
    schedule: Any = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25])
    weight = keras.Variable([0.0, 0.0])
    partwise = PartwiseAdam(schedule, 2)
    partwise.build([weight])
    seen = []
    for gradient in (1.0, 3.0, -1.0, -1.0, 2.0, 2.0):
        partwise.apply([keras.ops.full((2,), gradient)], [weight])
        seen.append(float(weight[0]))
    whole, expected = keras.optimizers.Adam(schedule), []
    reference = keras.Variable([0.0, 0.0])
    for gradient in (2.0, -1.0, 2.0):
        expected.append(float(reference[0]))
        whole.apply([keras.ops.full((2,), gradient)], [reference])
        expected.append(float(reference[0]))
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    assert len(partwise.variables) == len(whole.variables)  # The sums are not saved.


def test_vectors_and_maps_are_made_in_parts(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for most in (16, 4):
        store = FeatureStore(prepared, CONFIG, narrow_backbone(most), tmp_path / str(most))
        found[most] = store.maps("train", 1, "block13"), store.vectors("train", 1)
    for one, other in zip(found[16], found[4], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert capsys.readouterr().err.count("out of memory: the backbone goes on with") == 2


def tuned(most: int, prepared: Prepared, cache: Path, config: Config = CONFIG) -> Ensemble:
    """Fine-tune a backbone with so much memory."""
    backbone = narrow_backbone(most)
    material = Material(prepared, backbone, FeatureStore(prepared, config, backbone, cache))
    keras.utils.set_random_seed(3)
    head = build_head(config, 10)
    return fine_tune(config, material, Ensemble(backbone, head, [], {}), cache)


def test_fine_tuning_in_parts_ends_as_in_whole_batches(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, fine_tune_from="pixels")
    whole, parts = (tuned(most, prepared, tmp_path / str(most), config) for most in (16, 8))
    assert "fine-tuning goes on with 8 instead of 16 photos" in capsys.readouterr().err
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    for one, other in zip(whole.backbone.get_weights(), parts.backbone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


class KilledError(Exception):
    """Stands for a process that ends."""


def test_run_goes_on_with_more_or_less_memory_than_before(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = fine_tuning._Passes._save

    def kill_after_one(passes: fine_tuning._Passes) -> None:
        save(passes)
        if len(passes._rows) == 1:
            raise KilledError

    found = []
    for first, then in ((8, 16), (16, 8)):
        with monkeypatch.context() as patch:
            patch.setattr(fine_tuning._Passes, "_save", kill_after_one)
            with pytest.raises(KilledError):
                tuned(first, prepared, tmp_path / str(first))
        found.append(tuned(then, prepared, tmp_path / str(first)).history)
    for one, other in zip(*found, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)


def predicted(most: int) -> list[np.ndarray]:
    """Predict 21 photos, 8 at a time, with memory for so many."""
    keras.utils.set_random_seed(2)
    model = build_classifier(narrow_backbone(most), build_head(CONFIG, 10), 71)
    generator = np.random.default_rng(1)
    photos = generator.integers(0, 256, (21, 80, 80, 3), "uint8")
    classifier = Classifier(model, {"labels": [str(one) for one in range(10)], "image_size": 71})
    return [found.probabilities for found in classifier.predict(photos, batch_size=8)]


def test_photos_are_predicted_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    whole = predicted(8)
    assert capsys.readouterr() == ("", "")
    parts = predicted(3)
    told = capsys.readouterr()
    assert told.out == ""  # There rows may stand.
    assert told.err.splitlines() == [
        f"out of memory: prediction goes on with {size} instead of 8 photos" for size in (4, 2)
    ]
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_single_photos_do_not_decide_how_later_batches_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(headroom, "memory_left", lambda: 500)
    fitting = Fitting("work", lambda: 100.0)
    lengths = [
        [len(range(photos)[part]) for part in fitting(photos, lambda part: part)]
        for photos in (1, 8, 1, 7)
    ]
    assert lengths == [[1], [4, 4], [1], [4, 3]]


def test_what_fits_is_asked_again_for_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "memory_left", lambda: 500)
    fitting = Fitting("work", lambda: 100.0)
    assert [len(fitting(photos, lambda part: part)) for photos in (2, 3, 31, 32)] == [1, 1, 8, 8]


@pytest.mark.parametrize("what", ["prediction", "the backbone", "training"])
def test_batches_are_cut_before_memory_is_short(
    what: str,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random_backbones(16, monkeypatch)
    monkeypatch.setattr(headroom, "memory_left", lambda: 2_000_000)
    if what == "prediction":
        predicted(8)
    elif what == "the backbone":
        FeatureStore(prepared, CONFIG, narrow_backbone(16), tmp_path).vectors("train")
    else:
        config = dataclasses.replace(CONFIG, weights="none", epochs=1, augmented_copies=0)
        train_ensemble(config, open_material(config, prepared, tmp_path))
    told = capsys.readouterr().err
    assert re.search(rf"^{what}: \d+ photos at once take about .* going on with \d", told)
    assert "out of memory" not in told


def random_backbones(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each new backbone have memory for so many photos."""

    def build(weights: str) -> keras.Model:
        backbone = narrow_backbone(most)
        backbone.trainable = True
        return backbone

    for room in ("training", "memory"):
        monkeypatch.setattr(f"fashion_keras.{room}.build_backbone", build)


def test_random_backbone_is_trained_in_parts(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random_backbones(8, monkeypatch)
    config = dataclasses.replace(CONFIG, weights="none", epochs=1, augmented_copies=0)
    trained = train_ensemble(config, open_material(config, prepared, tmp_path))
    assert [row["epoch"] for row in trained.history] == [1]
    assert "training goes on with 8 instead of 16 photos" in capsys.readouterr().err


def test_trials_train_random_backbones_in_parts(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random_backbones(8, monkeypatch)
    config = dataclasses.replace(CONFIG, weights="none", augmented_copies=0)
    hypermodel = FashionHyperModel(config, open_material(config, prepared, tmp_path))
    tuner = open_hyperband(hypermodel, tmp_path / "search", 1, 2, 1)
    trial = tuner.oracle.create_trial("tuner0")
    (history,) = tuner.run_trial(trial)
    assert len(history.history["val_accuracy"]) == 1
    assert int(history.model.optimizer.iterations) == 3  # 40 photos in batches of 16.
    assert "training goes on with 8 instead of 16 photos" in capsys.readouterr().err
