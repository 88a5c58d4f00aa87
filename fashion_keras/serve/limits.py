"""What a service takes from a stranger, and how it says no."""

import dataclasses

MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that is taken; what is more is refused before it is read.

    Attributes:
        photos: Photos in one request.
        photo_bytes: Bytes of one photo.
        photo_pixels: Pixels of one photo.
        fetched: Photos of one request that are given by address, where photos are fetched at all.
        body_bytes: Bytes of one request.
        held_bytes: Bytes of all requests that are being received or answered.
        waiting: Photos that are being decoded, wait for the model or are in it.
        connections: Connections at the same time.
        seconds_to_send: Time for a request's head, and again for its body.
        deadline: Seconds from the end of a request to its answer.
    """

    photos: int = 32
    photo_bytes: int = 15 * MEGABYTE
    photo_pixels: int = 50_000_000
    fetched: int = 4
    body_bytes: int = 60 * MEGABYTE
    held_bytes: int = 300 * MEGABYTE
    waiting: int = 128
    connections: int = 256
    seconds_to_send: float = 30.0
    deadline: float = 30.0


class RefusalError(Exception):
    """A request is answered with a status of HTTP and a reason, and with nothing else.

    Args:
        status: Of HTTP, 400 or more.
        reason: For people; says what to do.
        retry_after: Seconds after which to try again, where that may help.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Room:
    """Counts what is inside; used by the one thread of the event loop alone."""

    def __init__(self, most: int, full: str) -> None:
        """Make an empty room.

        Args:
            most: What fits in.
            full: Said to those for whom there is no place.
        """
        self._most = most
        self.inside = 0
        self._full = full

    def enter(self, count: int, retry_after: int = 1) -> None:
        """Take places.

        Raises:
            RefusalError: 503, if so many are not free.
        """
        if self.inside + count > self._most:
            raise RefusalError(503, self._full, retry_after)
        self.inside += count

    def leave(self, count: int) -> None:
        """Give places back."""
        self.inside -= count
