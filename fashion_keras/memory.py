"""Goes on in smaller parts where memory does not suffice for a whole batch."""

from collections.abc import Callable
from typing import TypeVar

from fashion_keras.config import InputError
from fashion_keras.devices import MISTAKEN_OUT_OF_MEMORY, OUT_OF_MEMORY

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
        size = -(-photos // parts)
        print(f"out of memory: {what} goes on with {size} instead of {photos} photos", flush=True)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, OUT_OF_MEMORY) or any(sign in str(error) for sign in _SIGNS)


def _more(parts: int, photos: int, what: str) -> int:
    """Return the next number of equal parts, twice as many or little more."""
    if parts >= photos:
        raise InputError(
            f"Out of memory: {what} does not even go with one photo at a time. Close other "
            "programs, or give a smaller `--image-size`."
        )
    return next(more for more in range(2 * parts, 2 * photos) if photos % more == 0)
