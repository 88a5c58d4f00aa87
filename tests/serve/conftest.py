"""Fixtures of the service's tests: a small saved model, loaded."""

import dataclasses
from pathlib import Path

import pytest

from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.served import Served, load_served
from tests.serve.running import save_model


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small classifier once."""
    return save_model(tmp_path_factory.mktemp("model") / "small.keras")


@pytest.fixture(scope="session")
def loaded(model_file: Path) -> Served:
    """Load the small classifier once."""
    return load_served(model_file, [1, 2], lambda photos, seconds: None)


@pytest.fixture
def served(loaded: Served) -> Served:
    """Return the small classifier with a queue of its own, as services close theirs."""
    queue = ModelQueue(loaded.classifier.model.predict_on_batch, [1, 2])
    return dataclasses.replace(loaded, queue=queue)
