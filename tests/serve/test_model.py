"""Loading a model to serve: it must answer with probabilities in every batch size."""

from pathlib import Path

import numpy as np
import pytest

from fashion_keras.classifier import load_classifier
from fashion_keras.config import InputError
from fashion_keras.engine import OpenVINO
from fashion_keras.serve.model import batch_sizes, load_model
from tests.builders import needs_openvino
from tests.serve.running import LABELS


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_batch_sizes_are_powers_of_two_up_to_the_largest(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


def test_it_answers_as_the_classifier_does_and_reports_its_batches(model_file: Path) -> None:
    batches: list[tuple[int, float]] = []
    model = load_model(model_file, 1, lambda photos, seconds: batches.append((photos, seconds)))
    pixels = np.random.default_rng(1).integers(0, 256, (120, 90, 3), dtype="uint8")
    row = model.queue.submit(model.classifier.resize(pixels)).result(10)
    (expected,) = load_classifier(model_file).predict(pixels)
    np.testing.assert_allclose(row[: len(LABELS)], expected.probabilities, atol=1e-5)
    assert model.classifier.labels == LABELS
    assert model.version.startswith("small.keras@")
    ((photos, seconds),) = batches  # Not those that warm the model.
    assert photos == 1
    assert seconds > 0


@pytest.mark.slow
def test_it_runs_on_openvino_where_that_is_installed(model_file: Path) -> None:
    needs_openvino()
    model = load_model(model_file, 1, lambda photos, seconds: None)
    assert isinstance(model.classifier.engine, OpenVINO)


def test_a_model_without_probabilities_is_not_served(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load_classifier(model_file)
    layer = classifier.model.get_layer("head")
    layer.set_weights([weight * np.nan for weight in layer.get_weights()])
    monkeypatch.setattr("fashion_keras.serve.model.load_classifier", lambda file: classifier)
    monkeypatch.setattr("fashion_keras.engine.engines", lambda photos, side: ["keras"])
    with pytest.raises(InputError, match="does not answer with probabilities"):
        load_model(model_file, 1, lambda photos, seconds: None)
