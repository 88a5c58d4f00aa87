"""Connections that are too many or too slow are closed, whatever they claim to be about to send."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fashion_keras.serve.limits import Limits

_LINGER = 1.0  # Seconds.
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
    turned_away = staticmethod(lambda: None)
    _timer: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _too_many = False

    def connection_made(self, transport: Any) -> None:
        """Turn the connection away if there are too many."""
        super().connection_made(transport)
        self.access_log = False  # Uvicorn's own, which would hold queries.
        # An answer is several writes: without this the second waits 40 ms on a kept connection.
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(0)  # `pause_writing` comes as soon as nobody reads.
        self._too_many = len(self.connections) > self.limits.connections
        if self._too_many:
            self._turn_away(transport)
        else:
            self._watch()

    def _turn_away(self, transport: Any) -> None:
        """Say that there are too many; closed at once, most would not get to see it."""
        self.turned_away()
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()
            return
        transport.write(_FULL)
        transport.write_eof()
        self.loop.call_later(_LINGER, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not (self._too_many or self.transport.is_closing()):
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Let the time run while the other side does not read."""
        super().pause_writing()
        if self._reader is None:
            self._reader = self.loop.call_later(self.limits.seconds_to_send, self._give_up)

    def resume_writing(self) -> None:
        """All was read."""
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop()
        if self._reader is not None:
            self._reader.cancel()

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


def guarded_protocol(limits: Limits, turned_away: Callable[[], None]) -> type[asyncio.Protocol]:
    """Return the protocol of connections with these limits; told of those that are too many."""
    values = {"limits": limits, "turned_away": staticmethod(turned_away)}
    return type("GuardedProtocol", (GuardedProtocol,), values)
