"""What workers make is what this process makes, to the last bit."""

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import Config
from fashion_keras.features import FeatureStore
from fashion_keras.parallel import pool
from tests.builders import needs_openvino, random_features
from tests.test_parallel import check_workers
from tests.tuning.test_trials import Shuffled, outcomes_of, play, search
from tuning.trials import train_trial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes():
    """Start two workers for several tests: to start one and import Keras in it takes seconds."""
    with pool(2) as running:
        yield running


@pytest.fixture
def on_ray(ray, monkeypatch):
    """Let the variable name Ray as a cluster, and start two workers there."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    with pool(2) as running:
        yield running


@pytest.mark.kills
def test_ray_survives_a_killed_worker_and_passes_errors_on(on_ray, tmp_path):
    check_workers(on_ray, tmp_path / "mark")


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_features_are_the_same_bytes(
    engine, request, prepared, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr("fashion_keras.features._PHOTOS", 15)
    if engine == "keras":
        request.getfixturevalue("on_ray")
    else:  # In processes on this machine.
        needs_openvino()
        monkeypatch.setattr("fashion_keras.engine._WORTH_CONVERTING", 0)
    config = Config(image_size=71, feature_batch_size=5)

    def made(number, arrays):
        cache = tmp_path / str(number)
        store = FeatureStore(prepared, config, tiny_backbone, cache, number)
        assert store.engine.startswith(engine)
        store.make(arrays, "block13")
        return {file.name: file.read_bytes() for file in cache.rglob("*.npy")}

    arrays = [("train", 1), ("validation", 0)]
    found = made(2, arrays)
    assert len(found) == 2 * (3 + 2)
    assert found == made(1, arrays)
    if engine == "keras":  # Ray's workers keep the model, but not for other weights.
        tiny_backbone.set_weights([weight + 0.01 for weight in tiny_backbone.get_weights()])
        assert made(2, arrays[1:]) == made(1, arrays[1:])


def test_heads_and_their_states_are_the_same_to_the_last_bit(processes):
    data = random_features()
    base = Config(augmented_copies=1, batch_size=8, ema_epochs=0.0)
    values = {"learning_rate": 0.01, "inner_size": 16, "droprate": 0.3, "augmented": True}
    expected = [parent := train_trial(data, base, values, [2], None, True)]
    expected += [train_trial(data, base, values, [2, 3], parent[1], True)]
    shared = processes.share(data)
    processes.submit(0, train_trial, shared, base, values, [2], None, True)
    processes.submit(1, train_trial, shared, base, values, [2, 3], parent[1], True)
    found = dict(processes.next_done() for _ in range(2))
    for number, (outcome, state) in enumerate(expected):
        assert (found[number][0].rows, found[number][1]) == (outcome.rows, state)


def unsteady(mark: Path, data: Any, base: Config, values: dict, rounds: Any, *others: Any) -> Any:
    time.sleep(values["droprate"] * 0.3)
    if values["droprate"] > 0.4 and rounds[-1] == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return play(data, base, values, rounds, *others)


@pytest.mark.kills
@pytest.mark.parametrize("place", ["processes", "on_ray"])
def test_trials_are_the_same_though_a_worker_is_killed(place, request, tmp_path):
    workers = request.getfixturevalue(place)
    _, _, expected = search(tmp_path / "alone", Shuffled(1))
    mark = tmp_path / "killed"
    _, _, found = search(tmp_path / "others", workers, functools.partial(unsteady, mark))
    assert mark.exists()
    assert outcomes_of(found) == outcomes_of(expected)
