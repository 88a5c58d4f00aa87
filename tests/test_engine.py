"""Tests of engines: which one runs, and that a converted model gives what Keras gives."""

import importlib.metadata
import importlib.util
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras import engine
from fashion_keras.backend import keras
from fashion_keras.classifier import load_classifier
from fashion_keras.config import InputError
from fashion_keras.engine import KERAS, advise, converted, engines, for_classifier
from fashion_keras.model import build_feature_model, cpu_multiplies_bfloat16
from fashion_keras.saving import add_metadata
from tests.builders import needs_openvino, save_strong, strong_classifier
from tests.conftest import small_backbone

MANY = 400  # Photos of 299 x 299 pixels that are worth converting a model.
PIXELS = np.random.default_rng(1).uniform(0, 255, (3, 71, 71, 3)).astype("float32")


def forbid_converting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(engine, "_convert", refuse)


def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    monkeypatch.setitem(sys.modules, "openvino", None)


def test_openvino_is_best_for_many_photos_on_a_cpu(monkeypatch):
    needs_openvino()
    best = engines(MANY, 299)[0]
    assert best == f"openvino {importlib.metadata.version('openvino')}"
    assert engines(MANY, 299) == [best, KERAS]
    assert engines(100, 299) == engines(MANY, 150) == [KERAS, best]
    assert engines(MANY, 299, "mixed_bfloat16") == [best, KERAS]
    assert engines(MANY, 299, "mixed_float16") == [KERAS]
    monkeypatch.setattr("fashion_keras.backend.cards", lambda: ["a card"])
    assert engines(MANY, 299) == [KERAS]
    monkeypatch.setattr("fashion_keras.backend.cards", list)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    assert engines(MANY, 299) == [KERAS]


def test_a_missing_openvino_is_advised_once_if_many_photos_wait(monkeypatch, capsys):
    without_openvino(monkeypatch)
    engine._advise.cache_clear()
    assert engines(MANY, 299) == [KERAS]
    advise(100, 299)
    advise(MANY, 299, "mixed_float16")
    assert capsys.readouterr() == ("", "")
    for _ in range(2):
        advise(MANY, 299)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith("of the time here: pip install 'fashion_keras[cpu]'\n")
    with pytest.raises(InputError, match=r"not installed on .*: pip install .fashion_keras\[cpu\]"):
        engine.import_openvino()


@pytest.fixture(scope="module")
def feature_model():
    """Return a model to features and feature maps."""
    return build_feature_model(small_backbone(), "block13")


@pytest.fixture(scope="module")
def cache(feature_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert that model."""
    needs_openvino()
    folder = tmp_path_factory.mktemp("cache")
    assert converted(feature_model, 71, folder, {"weights": 1})
    return folder


def test_a_converted_model_gives_what_keras_gives(feature_model, cache, monkeypatch):
    forbid_converting(monkeypatch)  # It is an artifact.
    run: Any = converted(feature_model, 71, cache, {"weights": 1})
    for batch in (PIXELS, PIXELS[:1]):
        found, expected = run(batch), feature_model.predict_on_batch(batch)
        assert found.keys() == expected.keys() == {"features", "feature_maps"}
        for name, values in expected.items():
            assert np.ptp(values) > 0.01
            np.testing.assert_allclose(found[name], values, atol=1e-5)
    before = found["features"].copy()
    run(PIXELS[1:2])
    np.testing.assert_array_equal(found["features"], before)  # No view of what comes next.


def test_bfloat16_is_close_and_other_bits_where_the_cpu_multiplies_it(feature_model, tmp_path):
    needs_openvino()
    run: Any = converted(feature_model, 71, tmp_path, {"precision": "mixed_bfloat16"})
    expected = feature_model.predict_on_batch(PIXELS)
    for sent in (run, pickle.loads(pickle.dumps(run))):  # noqa: S301
        for name, values in sent(PIXELS).items():
            np.testing.assert_allclose(values, expected[name], atol=0.02)
            exact = np.allclose(values, expected[name], atol=1e-5)
            assert (values.dtype, exact) == ("float32", not cpu_multiplies_bfloat16())


def test_one_thread_and_a_pickle_give_the_same_bits(feature_model, cache, monkeypatch):
    run: Any = converted(feature_model, 71, cache, {"weights": 1})
    expected = run(PIXELS)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    sent = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(run))))  # noqa: S301
    for name, values in sent(PIXELS[:2]).items():
        np.testing.assert_array_equal(values, expected[name][:2])
    assert len(sent._one_by_one) == 1
    whole = run._together.infer(PIXELS)  # Photos do not go one by one.
    assert any(np.array_equal(found, expected["features"]) for found in whole.values())


def test_several_threads_may_call_it(feature_model, cache):
    run: Any = converted(feature_model, 71, cache, {"weights": 1})
    batches = [PIXELS[:1], PIXELS[1:]] * 8
    expected = [run(batch)["features"] for batch in batches[:2]] * 8
    with ThreadPoolExecutor(4) as threads:
        for found, rows in zip(threads.map(run, batches), expected, strict=True):
            np.testing.assert_array_equal(found["features"], rows)


@pytest.mark.parametrize("change", ["facts", "side", "version"])
def test_another_model_size_or_version_is_converted_anew(
    change, feature_model, cache, monkeypatch, capsys
):
    forbid_converting(monkeypatch)
    if change == "version":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "2099.1")
    side, weights = 80 if change == "side" else 71, 2 if change == "facts" else 1
    assert converted(feature_model, side, cache, {"weights": weights}) is None
    assert "converted again" in capsys.readouterr().err


def test_a_model_that_cannot_be_converted_is_left_to_keras(tmp_path, capsys, monkeypatch):
    needs_openvino()

    def fail(*arguments: Any, **options: Any) -> None:
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(keras.Model, "export", fail)
    model = build_feature_model(small_backbone())
    assert converted(model, 71, tmp_path, {}) is None
    assert "OpenVINO cannot be used, Keras runs: no such operation" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.xml")) == []


def test_a_classifier_takes_photos_of_any_size_and_the_engine_that_pays(tmp_path, monkeypatch):
    needs_openvino()
    model, wide = strong_classifier().model, np.tile(PIXELS[:, :50], (1, 1, 2, 1))
    assert for_classifier(model, 10, 299, tmp_path) is None
    many: Any = for_classifier(model, MANY, 299, tmp_path)
    for pixels in (PIXELS, wide):
        np.testing.assert_allclose(many(pixels), model.predict_on_batch(pixels), atol=1e-5)
    forbid_converting(monkeypatch)
    few: Any = for_classifier(model, 1, 299, tmp_path)  # It is there.
    np.testing.assert_array_equal(few(PIXELS), many(PIXELS))


def test_a_classifier_is_not_converted_again_for_its_test_score(tmp_path, monkeypatch):
    needs_openvino()
    file, count = tmp_path / "our.keras", 10**6
    save_strong(file)
    assert load_classifier(file).for_photos(count, tmp_path).engine
    forbid_converting(monkeypatch)
    add_metadata(file, {"test": {"accuracy": 0.9}})
    assert load_classifier(file).for_photos(count, tmp_path).engine


def test_a_classifier_without_a_folder_to_write_to_is_left_to_keras(tmp_path, capsys):
    needs_openvino()
    (tmp_path / "file").touch()
    model = strong_classifier().model
    assert for_classifier(model, MANY, 299, tmp_path / "file") is None
    assert "OpenVINO cannot be used, Keras runs: " in capsys.readouterr().err
