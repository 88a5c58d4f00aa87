"""A worker of a search: asks the chief for trials, runs them, and reports them."""

import contextlib
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial
from keras_tuner.src.distribute.oracle_client import OracleClient

from fashion_keras.config import InputError
from fashion_keras.ending import signal_main_thread
from tuning import line as limits
from tuning.chief import OTHER_CACHE, REASON, SESSION
from tuning.hyperband import TrialRunner
from tuning.line import CHILD, SERVICE, Address, Line, SearchOverError
from tuning.task import Task
from tuning.trials import number, reason

_NAME = os.environ.get(CHILD) or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
_IDLE = 1.0  # Seconds until a worker without work asks again.


class Client(OracleClient):
    """Keras Tuner's client, over a line that is mended when it breaks.

    Args:
        oracle: Tells what needs no question.
        line: See `Line`.
    """

    def __init__(self, oracle: Any, line: Line) -> None:
        # Not Keras Tuner's own start, which reads variables of the environment.
        self._oracle = oracle
        self.stub = line
        self.tuner_id = _NAME
        self.multi_worker = False
        self.should_report = True

    def create_trial(self, tuner_id: str) -> Trial:
        """Return a trial to run, or one that says to stop; wait while there is none."""
        while True:
            trial = super().create_trial(tuner_id)
            if trial.status != "IDLE":
                return trial
            time.sleep(_IDLE)

    def get_trial(self, trial_id: str) -> Trial:
        """Return a trial; an empty one if it is not this worker's any more."""
        with _unless_late():
            return super().get_trial(trial_id)
        return Trial(self.get_space())

    def update_trial(self, trial_id: str, metrics: Any, step: int = 0) -> Trial:
        """Report metrics, unless the trial is not this worker's any more."""
        with _unless_late():
            return super().update_trial(trial_id, metrics, step)
        return Trial(self.get_space())

    def end_trial(self, trial: Trial) -> None:
        """Report a trial, and why it failed, unless another worker has got it meanwhile."""
        request = SERVICE.EndTrialRequest(trial=trial.to_proto())
        why = reason(trial).encode()[:2000]  # There is little room beside a request.
        told = "is not this worker's any more: its result is dropped"
        with _unless_late():
            self.stub.call("EndTrial", request, (REASON, why))
            told = trial.status.lower()
        print(f"trial {number(trial)} {told}", flush=True)

    def give_back(self, trial_id: str) -> None:
        """Let another worker run a trial at once: this one ends."""
        trial = Trial(HyperParameters(), trial_id, "STOPPED")
        self.stub.call_once("EndTrial", SERVICE.EndTrialRequest(trial=trial.to_proto()))


@contextlib.contextmanager
def _unless_late() -> Iterator[None]:
    """Pass over it if the chief says that a trial is not this worker's any more."""
    try:
        yield
    except grpc.RpcError as error:
        if getattr(error, "code", lambda: None)() != grpc.StatusCode.NOT_FOUND:
            raise


class RemoteRunner(TrialRunner):
    """Runs the trials that a chief hands out.

    What a trial leaves is written to a folder of this worker's own, from which the chief takes it:
    another worker may run the same trial, if this one could not be heard for long.
    """

    _under_way = ""

    def on_trial_begin(self, trial: Trial) -> None:
        """Say what is run."""
        super().on_trial_begin(trial)
        self._under_way = trial.trial_id
        print(f"trial {number(trial)} begins", flush=True)

    def on_trial_end(self, trial: Trial) -> None:
        """Report the trial; the chief keeps the state."""
        self.oracle.end_trial(trial)
        self._under_way = ""

    def give_back(self) -> None:
        """Give the trial under way, if there is one, to another worker."""
        if self._under_way:
            self.oracle.give_back(self._under_way)

    def reload(self) -> None:
        """Read nothing: the state is the chief's, who may be writing it just now."""
        self._populate_initial_space()

    def get_trial_dir(self, trial_id: str) -> str:
        """Return where a trial's weights are: of the one under way, in this worker's folder."""
        folder = Path(super().get_trial_dir(trial_id))
        if trial_id == self._under_way:
            folder = folder / self.tuner_id
            folder.mkdir(exist_ok=True)
        return str(folder)


def join(chief: Address, cache: Path) -> str:
    """Wait until the chief of a search is ready; return the search's key, or "" if it is over.

    Raises:
        InputError: If there is no chief, or its state is not in `cache`.
    """
    told = f"it gives up after {limits.PATIENCE:.0f} s without an answer"
    print(f"worker {_NAME}, waiting for the chief at {chief}; {told}", flush=True)
    line = _line(chief)
    try:
        line.call("GetSpace", SERVICE.GetSpaceRequest())
    except SearchOverError:
        return ""
    finally:
        line.hang_up()
    file = cache / "search" / line.told["search"] / SESSION
    if not file.exists() or file.read_text(encoding="utf-8") != line.told["session"]:
        raise InputError(OTHER_CACHE)
    return line.told["search"]


def work(chief: Address, key: str, task: Task, board: Path | None = None) -> None:
    """Run trials of a search until there are none left.

    Args:
        chief: Where the search's chief listens.
        key: See `join`.
        task: The search, as this worker knows it.
        board: Folder to write epochs to for TensorBoard; None for nothing.

    Raises:
        InputError: If the chief does not answer for long, or runs another search.
    """
    if task.folder.name != key:
        raise InputError(
            "The chief searches with other photos, weights, settings or versions. Give the worker "
            "the chief's command with `--worker` in place of `--chief`, from the same environment."
        )
    runner = RemoteRunner(*task.arguments())
    runner.tuner_id = _NAME
    runner.board = task.run_of(board)
    runner.oracle = Client(runner.oracle, _line(chief, key))
    try:
        with contextlib.suppress(SearchOverError), _heartbeat(_line(chief, key)):
            runner.search(verbose=0)
    except KeyboardInterrupt:
        runner.give_back()
        raise


def _line(chief: Address, key: str | None = None) -> Line:
    patience = limits.CHILD_PATIENCE if CHILD in os.environ else limits.PATIENCE
    return Line(chief, _NAME, patience, key)


@contextlib.contextmanager
def _heartbeat(line: Line) -> Iterator[None]:
    """Tell the chief now and then that this worker lives; without a chief, end what it does.

    Raises:
        InputError: If the chief does not answer for long.
        SearchOverError: If the chief says that the search is over.
    """
    ending: list[Exception] = []
    stopped, lock = threading.Event(), threading.Lock()

    def beat() -> None:
        try:
            while not stopped.wait(limits.BEAT):
                line.call("GetSpace", SERVICE.GetSpaceRequest())
        except Exception as error:
            with lock:
                if not stopped.is_set():
                    ending.append(error)
                    # To the thread that trains: nothing else gets it out of what it does.
                    signal_main_thread(signal.SIGTERM)

    try:
        try:
            threading.Thread(target=beat, daemon=True).start()
            yield
        finally:
            with lock:
                stopped.set()
    except KeyboardInterrupt:
        if not ending:
            raise
        raise ending[0] from None
