"""Connections that are too many or too slow are closed, whatever they claim to be about to send."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fashion_keras.service.limits import Limits

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 33\r\n\r\n"
    b'{"reason":"too many connections"}'
)


class GuardedProtocol(H11Protocol):
    """What uvicorn speaks on one connection, with limits of ours.

    Uvicorn itself waits for ever for the rest of a request's head, and reads for ever what is sent
    after the answer.
    """

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Turn the connection away if there are too many."""
        super().connection_made(transport)
        self.access_log = False  # Uvicorn's own, which would hold queries.
        if len(self.connections) > self.limits.connections:
            transport.write(_FULL)
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """Let the time run while no request is being answered: a whole head must come in it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.limits.seconds_to_send, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()


def guarded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol of connections with these limits."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
