"""A worker of a search: ends with its chief, and finds what a search alone finds."""

import argparse
import contextlib
import signal
import threading
import time

import pytest

from fashion_keras.config import Config, InputError
from fashion_keras.ending import raise_when_told
from fashion_keras.features import FeatureStore
from fashion_keras.training import Datasets
from tuning import chief as chief_module
from tuning import line, worker
from tuning.chief import serving
from tuning.hyperband import open_hyperband
from tuning.hypermodel import FashionHyperModel
from tuning.line import LOOPBACK, Address, SearchOverError, address
from tuning.task import Task
from tuning.worker import work

CONFIG = Config(image_size=71, augmented_copies=1, batch_size=8)


@pytest.fixture
def task(prepared, tiny_backbone, tmp_path):
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "cache")
    return Task(CONFIG, 2, 2, Datasets(prepared, tiny_backbone, store), tmp_path / "many")


@pytest.fixture
def _ended_by_sigterm():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    raise_when_told()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def chief_of(task, monkeypatch):
    """Yield the address of a chief, and the search that it runs in a thread until it is over."""
    monkeypatch.setattr(chief_module, "BEAT", 0.2)
    tuner = open_hyperband(*task.arguments())
    tuner.start_clock()
    with serving(Address(LOOPBACK, 0)) as chief:
        thread = threading.Thread(target=chief.run_trials, args=[tuner], daemon=True)
        thread.start()
        # TensorFlow runs in this thread alone.
        yield Address(LOOPBACK, chief.port), tuner
        thread.join(10)
    assert [trial.status for trial in tuner.finished()] == ["COMPLETED"] * tuner.plan.trials


def test_a_worker_runs_all_trials_and_leaves_their_weights_to_the_chief(task, monkeypatch):
    # One of them goes on from the weights of another: without these it would fail.
    with chief_of(task, monkeypatch) as (address, tuner):
        work(address, task.folder.name, task)
    assert len(list(task.folder.glob("trial_*/checkpoint.weights.h5"))) == tuner.plan.trials
    assert not list(task.folder.glob("trial_*/*/"))


def test_a_worker_that_is_ended_gives_its_trial_back(task, monkeypatch):
    def end(*args, **kwargs):
        raise KeyboardInterrupt

    with chief_of(task, monkeypatch) as (address, tuner):
        with monkeypatch.context() as patch:
            patch.setattr(FashionHyperModel, "fit", end)
            with pytest.raises(KeyboardInterrupt):
                work(address, task.folder.name, task)
        assert not tuner.oracle.ongoing_trials
        work(address, task.folder.name, task)


def test_a_worker_does_not_read_what_the_chief_may_be_writing(task):
    task.folder.mkdir()
    for name in ("oracle.json", "tuner0.json"):
        (task.folder / name).write_text('{"trials":')
    runner = worker.RemoteRunner(*task.arguments())
    assert runner.oracle.trials == {}


def test_a_worker_with_other_settings_is_refused(task):
    with pytest.raises(InputError, match="with other photos, weights, settings or versions"):
        work(Address(LOOPBACK, 1), "another", task)


@pytest.mark.usefixtures("_ended_by_sigterm")
@pytest.mark.parametrize("error", [InputError("the chief has not answered"), SearchOverError()])
def test_what_a_worker_is_at_ends_with_its_chief(error, monkeypatch):
    class Broken:
        def call(self, *request):
            raise error

    monkeypatch.setattr(line, "BEAT", 0.01)
    with pytest.raises(type(error)), worker._heartbeat(Broken()):  # type: ignore[arg-type]
        time.sleep(10)


@pytest.mark.usefixtures("_ended_by_sigterm")
def test_a_worker_that_is_ended_is_not_said_to_have_lost_its_chief(monkeypatch):
    monkeypatch.setattr(line, "BEAT", 60)
    with pytest.raises(KeyboardInterrupt), worker._heartbeat(None):  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("7000", "127.0.0.1:7000"),
        (":7000", "127.0.0.1:7000"),
        ("chief-0.search:7000", "chief-0.search:7000"),
        ("[::1]:7000", "[::1]:7000"),
    ],
)
def test_addresses(text, shown):
    assert str(address(text)) == shown


@pytest.mark.parametrize("text", ["", "chief", "chief:0", "chief:65536", "chief:x"])
def test_no_addresses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected HOST:PORT, or PORT"):
        address(text)
