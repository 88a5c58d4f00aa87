"""Goes on in smaller parts where memory does not suffice for a whole batch."""

import math
import sys
from collections.abc import Callable
from typing import TypeVar

from fashion_keras.config import Config, InputError
from fashion_keras.devices import MISTAKEN_OUT_OF_MEMORY, OUT_OF_MEMORY
from fashion_keras.headroom import for_new_backbone, parts_that_fit, photos_that_fit
from fashion_keras.model import build_backbone

Result = TypeVar("Result")
# How graphics cards say it when they call it another error.
_SIGNS = ("Dst tensor is not initialized", "ALLOC_FAILED", "out of memory", "bad_alloc")


def in_parts(
    work: Callable[[int], Result], photos: int, what: str, parts: int = 1
) -> tuple[Result, int]:
    """Do work on batches; whenever memory does not suffice, again with batches in more parts.

    Args:
        work: Takes the number of parts into which it has to cut each batch.
        photos: Photos in a batch.
        what: What is done, for the line that says so.
        parts: To begin with.

    Returns:
        What `work` returned, and in how many parts.

    Raises:
        InputError: If not even one photo at a time fits.
    """
    while True:
        try:
            return work(parts), parts
        except (*OUT_OF_MEMORY, *MISTAKEN_OUT_OF_MEMORY) as error:
            if not _is_out_of_memory(error):
                raise
        # Not inside `except`: the error holds on to all that was computed so far.
        parts = _more(parts, photos, what)
        _say_smaller(what, -(-photos // parts), photos)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, OUT_OF_MEMORY) or any(sign in str(error) for sign in _SIGNS)


def _more(parts: int, photos: int, what: str) -> int:
    """Return the next number of equal parts, twice as many or little more."""
    if parts >= photos:
        raise _too_little(what)
    return next(more for more in range(2 * parts, 2 * photos) if photos % more == 0)


def _too_little(what: str) -> InputError:
    return InputError(
        f"Out of memory: {what} does not even go with one photo at a time. Close other "
        "programs, or give a smaller `--image-size`."
    )


def _say_smaller(what: str, size: int, photos: int) -> None:
    told = f"out of memory: {what} goes on with {size} instead of {photos} photos"
    print(told, file=sys.stderr, flush=True)  # On standard output rows may stand.


def new_backbone_in_parts(work: Callable[[int], Result], config: Config) -> Result:
    """Train a backbone from nothing, with batches that are cut if memory does not suffice.

    Args:
        work: See `in_parts`.
        config: `image_size` and `batch_size` are used.

    Returns:
        What `work` returned.

    Raises:
        InputError: If not even one photo at a time fits.
    """
    needed = for_new_backbone(build_backbone("none"), config.image_size)
    parts = parts_that_fit(needed, config.batch_size, "training")
    return in_parts(work, config.batch_size, "training", parts)[0]


class Fitting:
    """Does work on one batch after the other; remembers how many photos fit at a time.

    Args:
        what: See `in_parts`.
        needed: Returns the bytes that one photo takes (see `headroom.for_forward`).
    """

    def __init__(self, what: str, needed: Callable[[], float]) -> None:
        self._what = what
        self._needed = needed
        self._asked = 1  # Photos of the largest batch that was compared with what is left.
        self._fit = 1  # So many of them fit.
        self._most = math.inf  # No more, since memory did not suffice.

    def __call__(self, photos: int, work: Callable[[slice], Result]) -> list[Result]:
        """Return what `work` gives for each part of a batch of so many photos, in their order.

        Raises:
            InputError: If not even one photo at a time fits.
        """
        if photos > self._asked:
            self._fit = photos_that_fit(self._needed(), photos, self._what)
            self._asked = photos
        while True:
            size = int(min(photos, self._fit, self._most))
            try:
                return [work(slice(start, start + size)) for start in range(0, photos, size)]
            except (*OUT_OF_MEMORY, *MISTAKEN_OUT_OF_MEMORY) as error:
                if not _is_out_of_memory(error):
                    raise
            # Not inside `except`: the error holds on to all that was computed so far.
            if size == 1:
                raise _too_little(self._what)
            self._most = size // 2
            _say_smaller(self._what, size // 2, photos)
