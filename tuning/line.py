"""The line between a worker and its chief: addresses, patience, calls that are made again."""

import argparse
import contextlib
import functools
import time
from typing import Any, NamedTuple

import grpc
from keras_tuner.src import protos

from fashion_keras.config import InputError

SERVICE: Any = protos.get_service()  # Its messages.
STUBS: Any = protos.get_service_grpc()
LOOPBACK = "127.0.0.1"
CHILD = "FASHION_KERAS_WORKER"  # Tells a worker its name, and that the chief's command started it.
BEAT = 5.0  # Seconds between two signs of life of a worker.
SILENCE = 60.0  # After so many seconds without one its trial is given to another worker.
PATIENCE = 300.0  # So many seconds a worker waits for a chief that does not answer,
CHILD_PATIENCE = 4.0  # and so many for the command that started it.
ANSWER = 30.0  # So many seconds it waits for one answer, then it asks again.
_HASTE = 3.0  # So many when it ends.
_PAUSE = 1.0  # Seconds between two attempts.
PREPARING = "the chief is not ready yet"
_OPTIONS = (
    # A line that was cut is never used again, and a new one is tried often.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),  # A proxy is for the web, not for machines beside this one.
)


class SearchOverError(Exception):
    """The chief has no work any more."""


class Address(NamedTuple):
    """Where a chief listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is given."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """Return the address that an option gives: `HOST:PORT`, or a port of this computer alone."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(
            f"expected HOST:PORT, or PORT for {LOOPBACK}. Received: {text}"
        )
    return Address(host.strip("[]") or LOOPBACK, int(port))


class Line:
    """A worker's calls to its chief; one that does not get through is made again.

    Stands in for the stub of Keras Tuner's client.

    Args:
        chief: Where it listens.
        worker: The worker's name.
        patience: Seconds that it waits for a chief that does not answer.
        search: Key of the search that the worker takes part in; None while it does not know.
    """

    def __init__(
        self, chief: Address, worker: str, patience: float, search: str | None = None
    ) -> None:
        self._chief = chief
        self._patience = patience
        self._known = (("worker", worker), *([("search", search)] if search else []))
        self._channel: Any = None
        self.told: dict[str, str] = {}  # What the chief said beside its last answer.

    def __getattr__(self, method: str) -> Any:
        """Return the call of this name, as Keras Tuner's client makes it."""
        return functools.partial(self.call, method)

    def call(self, method: str, request: Any, *beside: tuple[str, Any], **_: Any) -> Any:
        """Return the chief's answer.

        Args:
            method: Of Keras Tuner's service.
            request: As it takes it.
            beside: Said beside the request: pairs of a name and a value.

        Raises:
            InputError: If the chief does not answer for long, or does not want this worker.
            SearchOverError: If there is nothing to do any more.
        """
        broken: float | None = None  # Since when it has been so.
        while True:
            try:
                return self._try(method, request, *beside)
            except grpc.RpcError as error:
                broken = None if self._is_waiting(error) else broken or time.monotonic()
            if broken and time.monotonic() - broken > self._patience:
                raise InputError(
                    f"The chief at {self._chief} has not answered for {self._patience:.0f} s. "
                    "Start it, or look whether this is its address and can be reached."
                )
            time.sleep(_PAUSE)

    def call_once(self, method: str, request: Any) -> None:
        """Tell the chief something; if that does not get through, it does without it."""
        with contextlib.suppress(grpc.RpcError):
            self._try(method, request, timeout=_HASTE)

    def _try(
        self, method: str, request: Any, *beside: tuple[str, Any], timeout: float = ANSWER
    ) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(str(self._chief), options=_OPTIONS)
        stub = STUBS.OracleStub(self._channel)
        known = (*self._known, *beside)
        answer, call = getattr(stub, method).with_call(request, timeout=timeout, metadata=known)
        self.told = dict(call.trailing_metadata())
        return answer

    def _is_waiting(self, error: Any) -> bool:
        """Tell whether the chief asks to wait; if it cannot be reached, hang up."""
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.ABORTED:
            raise SearchOverError(details) from None
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            raise InputError(details) from None
        if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise error
        if details == PREPARING:
            return True
        self.hang_up()
        return False

    def hang_up(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
