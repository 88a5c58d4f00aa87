"""A chief and its workers over a real port: nobody is waited for, nothing is counted twice."""

import contextlib
import csv
import threading
import time

import grpc
import keras_tuner
import pytest

from fashion_keras.config import Config, InputError
from tuning import chief as chief_module
from tuning import line, worker
from tuning.chief import serving
from tuning.hyperband import open_hyperband
from tuning.line import LOOPBACK, SERVICE, Address, Line, SearchOverError
from tuning.space import sample_config
from tuning.worker import Client, join


class Space(keras_tuner.HyperModel):
    """Only draws; nothing is trained."""

    base = Config(augmented_copies=1)

    def build(self, hp):
        """Sample the space, and build nothing."""
        sample_config(hp, self.base)


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    for module, name in ((line, "_PAUSE"), (worker, "_IDLE"), (chief_module, "_LOOK")):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(chief_module, "BEAT", 0.2)


@pytest.fixture
def tuner(tmp_path):
    """Plan three trials of one bracket, the two best of them again, and three of another."""
    tuner = open_hyperband(Space(), tmp_path / "search" / "key", 3, 2, 1)  # type: ignore[arg-type]
    tuner.start_clock()
    return tuner


@contextlib.contextmanager
def running(tuner, raised=None):
    """Yield a chief that runs trials in a thread; `raised` takes what it raises."""

    def run():
        try:
            chief.run_trials(tuner)
        except Exception as error:
            (raised if raised is not None else []).append(error)

    with serving(Address(LOOPBACK, 0)) as chief:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield chief
        thread.join(10)
        assert not thread.is_alive(), "the chief waits for somebody"


def client(chief, name, key="key"):
    return Client(None, Line(Address(LOOPBACK, chief.port), name, 0.3, key))


def end(tuner, own, name, trial, status="COMPLETED", message="", weights=b"weights"):
    """Leave weights as a worker does, and report the trial."""
    folder = tuner.folder / f"trial_{trial.trial_id}" / name
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint.weights.h5").write_bytes(weights)
    x = trial.hyperparameters.values["droprate"]
    with contextlib.suppress(grpc.RpcError):  # As Keras Tuner does: a trial that cannot report.
        own.update_trial(trial.trial_id, {"val_accuracy": 1 - x, "val_loss": x})
    trial.status, trial.message = status, message
    own.end_trial(trial)


def rows_of(tuner):
    with tuner.table.open(newline="") as file:
        return list(csv.DictReader(file))


def finish(tuner, own, name):
    """Run all trials that are left, until the chief says in one of its two ways to stop."""
    with contextlib.suppress(SearchOverError):
        while (trial := own.create_trial("")).status == "RUNNING":
            end(tuner, own, name, trial)
        assert trial.status == "STOPPED"  # The oracle's; the chief has not looked at it yet.


def test_two_workers_share_the_trials_and_hear_of_the_end(tuner):
    with running(tuner) as chief:
        first, second = client(chief, "a"), client(chief, "b")
        trials = [own.create_trial("") for own in (first, second)]
        assert [trial.trial_id for trial in trials] == ["0000", "0001"]
        for own, name, trial in zip((first, second), "ab", trials, strict=True):
            end(tuner, own, name, trial)
        assert not list(tuner.folder.glob("trial_*/*/"))
        assert len(list(tuner.folder.glob("trial_*/checkpoint.weights.h5"))) == 2
        for own, name in ((first, "a"), (second, "b")):
            finish(tuner, own, name)
    assert [row["status"] for row in rows_of(tuner)] == ["COMPLETED"] * 8
    assert chief.ended == {"a": 7, "b": 1}


def test_a_worker_cut_off_loses_its_trial_and_goes_on_with_another(tuner, monkeypatch, capsys):
    monkeypatch.setattr(chief_module, "SILENCE", 0.3)
    with running(tuner) as chief:
        lost, other = client(chief, "lost"), client(chief, "other")
        trial = lost.create_trial("")
        until = time.monotonic() + 10
        while "lost has not been heard" not in capsys.readouterr().out:
            assert time.monotonic() < until
            time.sleep(0.05)
        again = other.create_trial("")
        assert again.trial_id == trial.trial_id
        end(tuner, lost, "lost", trial, weights=b"late")
        assert "is not this worker's any more" in capsys.readouterr().out
        end(tuner, other, "other", again)
        weights = tuner.folder / f"trial_{trial.trial_id}" / "checkpoint.weights.h5"
        assert weights.read_bytes() == b"weights"
        finish(tuner, lost, "lost")
    assert [row["status"] for row in rows_of(tuner)] == ["COMPLETED"] * 8


def test_a_worker_that_ends_gives_its_trial_back_at_once(tuner, capsys):
    with running(tuner) as chief:
        first, second = client(chief, "a"), client(chief, "b")
        trial = first.create_trial("")
        first.give_back(trial.trial_id)
        assert "worker a was told to end; trial 1 will be run again" in capsys.readouterr().out
        assert second.create_trial("").trial_id == trial.trial_id
        first.give_back(trial.trial_id)  # It is another's by now.
        end(tuner, second, "b", trial)
        finish(tuner, second, "b")
    assert [row["status"] for row in rows_of(tuner)] == ["COMPLETED"] * 8


def test_giving_back_to_a_chief_that_is_gone_takes_no_time():
    start = time.monotonic()
    Client(None, Line(Address(LOOPBACK, 1), "a", 300)).give_back("0000")
    assert time.monotonic() - start < 5


def test_a_trial_reported_twice_counts_once(tuner):
    with running(tuner) as chief:
        own = client(chief, "a")
        trial = own.create_trial("")
        for _ in range(2):  # The answer to the first report was lost.
            end(tuner, own, "a", trial)
        finish(tuner, own, "a")
    assert len(rows_of(tuner)) == 8


def test_a_failed_trial_is_told_with_its_reason(tuner):
    with running(tuner) as chief:
        own = client(chief, "a")
        end(tuner, own, "a", own.create_trial(""), "INVALID", "Traceback\nMemoryError: no röom")
        finish(tuner, own, "a")
    assert rows_of(tuner)[0]["status"] == "FAILED"
    assert rows_of(tuner)[0]["reason"] == "MemoryError: no röom"


def test_too_many_failures_end_the_search_and_its_workers(tuner):
    tuner.oracle.max_consecutive_failed_trials = 2
    raised = []
    with running(tuner, raised) as chief:
        own, idle = client(chief, "a"), client(chief, "b")
        for _ in range(2):
            with contextlib.suppress(SearchOverError):
                end(tuner, own, "a", own.create_trial(""), "FAILED", "it broke")
        for each in (own, idle):
            with pytest.raises(SearchOverError):
                each.create_trial("")
    assert str(raised[0]) == "The search stopped: it broke"
    assert len(rows_of(tuner)) == 2


def test_an_error_in_the_chief_ends_the_search(tuner):
    def after_trial():
        raise OSError("No space left on device")

    tuner.after_trial = after_trial
    raised = []
    with running(tuner, raised) as chief:
        own = client(chief, "a")
        with pytest.raises(SearchOverError):
            end(tuner, own, "a", own.create_trial(""))
    assert "No space left" in str(raised[0])


def test_a_worker_of_another_search_or_folder_is_refused(tuner, tmp_path):
    with running(tuner) as chief:
        place = Address(LOOPBACK, chief.port)
        with pytest.raises(InputError, match="another search by now"):
            client(chief, "a", "other").create_trial("")
        with pytest.raises(InputError, match="`--cache` must be the same shared folder"):
            join(place, tmp_path / "elsewhere")
        assert join(place, tmp_path) == "key"
        own = client(chief, "a")
        trial = own.create_trial("")
        trial.status = "COMPLETED"
        with pytest.raises(InputError, match="`--cache` must be the same shared folder"):
            own.end_trial(trial)
        with pytest.raises(grpc.RpcError, match="no name of a worker"):
            client(chief, "../a").create_trial("")
        finish(tuner, own, "a")


def test_only_what_workers_need_is_answered(tuner):
    with running(tuner) as chief:
        own = client(chief, "a")
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            own.get_best_trials(1)
        assert own.get_trial("../0000").trial_id != "../0000"
        finish(tuner, own, "a")


def test_workers_wait_for_a_chief_that_is_not_ready_for_longer_than_for_one_that_is_gone(tuner):
    with serving(Address(LOOPBACK, 0)) as chief:
        own, answers = client(chief, "a"), []
        asking = threading.Thread(target=lambda: answers.append(own.create_trial("")), daemon=True)
        asking.start()
        time.sleep(0.6)  # Twice its patience.
        assert asking.is_alive()
        thread = threading.Thread(target=chief.run_trials, args=[tuner], daemon=True)
        thread.start()
        asking.join(10)
        assert answers[0].trial_id == "0000"
        end(tuner, own, "a", answers[0])
        finish(tuner, own, "a")
        thread.join(10)
    with pytest.raises(InputError, match=r"127.0.0.1:\d+ has not answered for 0 s"):
        own.create_trial("")


def test_a_taken_port_is_refused():
    with serving(Address(LOOPBACK, 0)) as chief:
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1:{chief.port}"):
            with serving(Address(LOOPBACK, chief.port)):
                pass


def test_a_worker_that_comes_late_has_nothing_to_do(tuner, tmp_path):
    with serving(Address(LOOPBACK, 0)) as chief:
        chief._over = True
        assert join(Address(LOOPBACK, chief.port), tmp_path) == ""


def test_a_finished_search_waits_for_no_worker(tuner):
    with running(tuner) as chief:
        finish(tuner, client(chief, "a"), "a")
    with running(tuner):
        pass


def test_the_service_is_that_of_keras_tuner():
    names = [f"{name}Request" for name in chief_module._METHODS]
    assert all(hasattr(SERVICE, name) for name in names)
