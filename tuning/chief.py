"""The chief of a search: hands trials out to workers over Keras Tuner's own service."""

import collections
import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from keras_tuner.engine.trial import Trial
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from fashion_keras.config import InputError
from fashion_keras.files import whole_file
from tuning.hyperband import Hyperband
from tuning.line import BEAT, PREPARING, SERVICE, SILENCE, STUBS, Address
from tuning.trials import number

SESSION = "chief"  # A file in the folder of the state; it shows a worker that it is the same one.
REASON = "reason-bin"  # Why a trial failed: Keras Tuner's own messages do not tell it.
LATE = "this trial is not this worker's any more"
OTHER_CACHE = "The chief keeps its state elsewhere: `--cache` must be the same shared folder."
_LOOK = 0.2  # Seconds between two looks for workers that are gone.
_NAME = re.compile(r"\w[\w.-]{0,99}")  # Of a worker, and of its folder in that of a trial.
_METHODS = ("GetSpace", "CreateTrial", "GetTrial", "UpdateTrial", "EndTrial")


class _RefusedError(Exception):
    """A call that is not answered: a status of gRPC, and why."""


class Chief(OracleServicer):
    """Answers workers one after the other, and notices which of them are gone.

    Attributes:
        port: Where it listens.
        ended: Number of trials that each worker has ended.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.port = 0
        self.ended: collections.Counter[str] = collections.Counter()
        self._tuner: Any = None  # Before it is known, workers are asked to wait.
        self._session = secrets.token_hex(8)
        self._silent: dict[str, float] = {}  # Seconds since each worker was heard.
        self._over = False
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def run_trials(self, tuner: Hyperband, look: Callable[[], None] = lambda: None) -> None:
        """Let workers run all trials that are left.

        Args:
            tuner: The search.
            look: Called again and again meanwhile.

        Raises:
            InputError: If too many trials failed one after the other.
        """
        with whole_file(tuner.folder / SESSION) as unfinished:
            unfinished.write_text(self._session, encoding="utf-8")
        with self._lock:
            self._tuner, self.oracle = tuner, tuner.oracle
        now = time.monotonic()
        try:
            while not self._done(now):
                now = time.monotonic()
                look()
                time.sleep(_LOOK)
        except Exception:
            self._over = True
            raise
        self._over = True

    def _done(self, before: float) -> bool:
        # Only so much: nobody can be heard by a chief that was itself held up.
        seconds = min(time.monotonic() - before, 2 * _LOOK)
        with self._lock:
            if self._failure:
                raise self._failure
            for worker in list(self._silent):
                self._silent[worker] += seconds
                if self._silent[worker] > SILENCE:
                    del self._silent[worker]
                    self._give_back(worker, f"has not been heard of for {SILENCE:.0f} s")
            return self.oracle.over()

    def give_back(self, worker: str, reason: str) -> None:
        """Let the next worker that asks run the trial of one that is gone."""
        with self._lock:
            self._silent.pop(worker, None)
            self._give_back(worker, reason)

    def _give_back(self, worker: str, reason: str) -> None:
        trial = self.oracle.give_back(worker)
        if trial:
            shutil.rmtree(self._folder(trial) / worker, ignore_errors=True)
            reason += f"; trial {number(trial)} will be run again"
        print(f"worker {worker} {reason}", flush=True)

    def _folder(self, trial: Trial) -> Path:
        return Path(self._tuner.get_trial_dir(trial.trial_id))

    def answer(self, call: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        """Answer one call, or say why not; an error ends the search, and with it the command."""
        told = dict(context.invocation_metadata())
        try:
            with self._lock:
                self._admit(told.get("worker", ""), told.get("search"), request)
                context.set_trailing_metadata(
                    (("search", self._tuner.folder.name), ("session", self._session))
                )
                return call(request, context)
        except _RefusedError as refused:
            return context.abort(*refused.args)
        except Exception as error:
            self._failure, self._over = error, True
            return context.abort(grpc.StatusCode.ABORTED, "the search has ended with an error")

    def _admit(self, worker: str, search: str | None, request: Any) -> None:
        """Note that a worker was heard.

        Raises:
            _RefusedError: If its call is not to be answered.
        """
        if self._over:
            self._silent.pop(worker, None)
            raise _RefusedError(grpc.StatusCode.ABORTED, "the search is over")
        if self._tuner is None:
            raise _RefusedError(grpc.StatusCode.UNAVAILABLE, PREPARING)
        if not _NAME.fullmatch(worker):
            raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "no name of a worker")
        if search is None and isinstance(request, SERVICE.GetSpaceRequest):
            return  # It asks which search this is.
        if search != self._tuner.folder.name:
            raise _RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION, "The chief runs another search by now."
            )
        if worker not in self._silent:
            print(f"worker {worker} is there", flush=True)
        self._silent[worker] = 0.0
        trial = _trial_of(request)
        if trial and getattr(self.oracle.ongoing_trials.get(worker), "trial_id", "") != trial:
            raise _RefusedError(grpc.StatusCode.NOT_FOUND, LATE)

    def CreateTrial(self, request: Any, context: Any) -> Any:  # noqa: N802 (Keras Tuner's name)
        """Hand out a trial, or say that there is none for the moment, or none any more."""
        trial = self.oracle.create_trial(_worker(context))
        if trial.status == "RUNNING":
            self._tuner.on_trial_begin(trial)
        return SERVICE.CreateTrialResponse(trial=trial.to_proto())

    def EndTrial(self, request: Any, context: Any) -> Any:  # noqa: N802 (Keras Tuner's name)
        """Take in how a trial ended, and the weights that it left; or take it back unfinished."""
        worker, trial = _worker(context), Trial.from_proto(request.trial)
        if trial.status == "STOPPED":
            self._silent.pop(worker, None)
            self._give_back(worker, "was told to end")
            return SERVICE.EndTrialResponse()
        own = self._folder(trial) / worker
        left = list(own.iterdir()) if own.exists() else []
        if trial.status == "COMPLETED" and not left:
            raise _RefusedError(grpc.StatusCode.FAILED_PRECONDITION, OTHER_CACHE)
        for file in left:
            os.replace(file, own.parent / file.name)
        shutil.rmtree(own, ignore_errors=True)
        trial.hyperparameters = self.oracle.get_trial(trial.trial_id).hyperparameters
        reason = dict(context.invocation_metadata()).get(REASON, b"")
        trial.message = reason.decode(errors="replace")
        self._tuner.on_trial_end(trial)
        self.ended[worker] += 1
        return SERVICE.EndTrialResponse()

    def tell_workers(self) -> None:
        """If the search is over, wait until all workers that were just heard know it."""
        until = time.monotonic() + 2 * BEAT
        while self._over and time.monotonic() < until and self._silent:
            time.sleep(_LOOK)


def _worker(context: Any) -> str:
    return dict(context.invocation_metadata())["worker"]


def _trial_of(request: Any) -> str:
    """Return the trial that a request is about; empty if it is about none."""
    return getattr(request, "trial_id", "") or getattr(
        getattr(request, "trial", None), "trial_id", ""
    )


class _Gate(grpc.ServerInterceptor):
    """Leads all calls through `Chief.answer`."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.rpartition("/")[2] not in _METHODS:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._chief.answer(handler.unary_unary, request, context),
            handler.request_deserializer,
            handler.response_serializer,
        )


@contextlib.contextmanager
def serving(address: Address) -> Iterator[Chief]:
    """Yield a chief that listens; workers are asked to wait until it runs trials.

    Args:
        address: Where; port 0 for any that is free.

    Raises:
        InputError: If the port is taken, or the host is none of this computer.
    """
    chief = Chief()
    # One thread: calls are answered one after the other. Without the option two chiefs could
    # listen on one port.
    pool = futures.ThreadPoolExecutor(max_workers=1)
    server = grpc.server(pool, interceptors=[_Gate(chief)], options=[("grpc.so_reuseport", 0)])
    STUBS.add_OracleServicer_to_server(chief, server)
    try:
        chief.port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise InputError(
            f"Cannot listen on {address}: the port is taken, or the host is none of this computer."
        ) from error
    server.start()
    try:
        yield chief
        chief.tell_workers()
    except Exception:
        chief.tell_workers()
        raise
    finally:
        server.stop(None)
