"""Loading a model to serve: it must answer before it may."""

from pathlib import Path

import numpy as np
import pytest

from fashion_keras.classifier import load_classifier
from fashion_keras.config import InputError
from fashion_keras.serve import served as served_module
from fashion_keras.serve.served import Served, batch_sizes, load_served
from tests.serve.running import LABELS


def ignore(photos: int, seconds: float) -> None:
    pass


def test_sizes_of_batches_are_powers_of_two_up_to_the_largest() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(8) == [1, 2, 4, 8]
    assert batch_sizes(12) == [1, 2, 4, 8, 12]


def test_it_answers_as_the_classifier_does(model_file: Path, served: Served) -> None:
    classifier = load_classifier(model_file)
    pixels = np.random.default_rng(1).integers(0, 256, (120, 90, 3), dtype="uint8")
    row = served.queue.submit(served.classifier.resize(pixels)).result(10)
    (expected,) = classifier.predict(pixels)
    np.testing.assert_allclose(row, expected.probabilities, atol=1e-6)
    assert served.classifier.labels == LABELS
    assert served.version.startswith("small.keras@")


def test_batches_are_observed(model_file: Path) -> None:
    seen = []
    served = load_served(model_file, [1], lambda photos, seconds: seen.append((photos, seconds)))
    served.queue.submit(np.zeros((71, 71, 3), "float32")).result(10)
    assert [photos for photos, _ in seen] == [1]  # What warmed it does not count.
    assert seen[0][1] > 0
    served.queue.close()


def test_a_file_that_changes_meanwhile_is_not_served(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.keras"
    copy.write_bytes(model_file.read_bytes())

    def load(file: Path) -> object:
        classifier = load_classifier(file)
        copy.write_bytes(b"another")
        return classifier

    monkeypatch.setattr(served_module, "load_classifier", load)
    with pytest.raises(InputError, match="changed while it was being loaded"):
        load_served(copy, [1], ignore)


def test_a_model_that_gives_no_probabilities_is_not_served(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load_classifier(model_file)
    layer = classifier.model.get_layer("head")
    layer.set_weights([weight * np.nan for weight in layer.get_weights()])
    monkeypatch.setattr(served_module, "load_classifier", lambda file: classifier)
    with pytest.raises(InputError, match="does not answer with probabilities of 3 classes"):
        load_served(model_file, [1], ignore)
