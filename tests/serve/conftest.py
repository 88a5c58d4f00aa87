"""Fixtures of the service's tests: a small saved model, loaded."""

import dataclasses
from pathlib import Path

import pytest

from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.model import ServedModel, load_model
from tests.builders import save_strong
from tests.serve.running import LABELS, Gate, with_predict


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small classifier once."""
    return save_strong(tmp_path_factory.mktemp("model") / "small.keras", LABELS)


@pytest.fixture(scope="session")
def loaded(model_file: Path) -> ServedModel:
    """Load the small classifier once."""
    return load_model(model_file, 2, lambda photos, seconds: None)


@pytest.fixture
def model(loaded: ServedModel) -> ServedModel:
    """Return the small classifier with a queue of its own, as services close theirs."""
    queue = ModelQueue(loaded.classifier.model.predict_on_batch, [1, 2])
    return dataclasses.replace(loaded, queue=queue)


@pytest.fixture
def gate() -> Gate:
    """Return a closed gate."""
    return Gate()


@pytest.fixture
def gated(model: ServedModel, gate: Gate) -> ServedModel:
    """Return a model that answers when the gate is open."""
    return with_predict(model, gate)
