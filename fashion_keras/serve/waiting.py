"""Waits for work, and ends what nobody waits for any more."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from fashion_keras.serve.limits import RefusalError


class Threads:
    """Threads for work that must not hold up the event loop.

    Nothing queues in the pool itself, where it would keep what it works on, such as the bytes of
    a photo, after those who wait for it have left.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)
        self._free = asyncio.Semaphore(count)

    async def run(self, work: Callable[..., Any], *given: Any) -> Any:
        """Return what `work` returns when a thread is free for it and has done it."""
        async with self._free:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def together(works: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Do all at the same time; when one of them fails, or all are cancelled, end the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless_left(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Do `work` as long as the client waits for it; when the client leaves, cancel it.

    Call it when the body of the request has been read.

    Raises:
        RefusalError: 499, which nobody will read, if the client left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RefusalError(499, "the client left")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
