"""The same tasks in this process, or in several processes on one machine or many with Ray.

A task is a function of a module with plain arguments. It receives all that it needs and returns
what it made, and its caller writes it: workers need no disk in common.
"""

import collections
import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

from fashion_keras.config import InputError

_RETRIES = 3  # Times that Ray runs a task again whose process died.


class Pool(Protocol):
    """Runs tasks.

    Attributes:
        size: Tasks that run at the same time.
    """

    size: int

    def share(self, value: Any) -> Any:
        """Return a handle for a large value, to be an argument of several tasks."""
        ...

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """Add a task; `function` receives shared values themselves in place of their handles."""
        ...

    def next_done(self) -> tuple[Any, Any]:
        """Wait for any task; return its label and its result, or raise its error."""
        ...


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """Yield a pool: this process for one worker, Ray for more.

    Ray starts on this machine, or is the cluster that the environment variable RAY_ADDRESS names
    (see https://docs.ray.io/en/latest/cluster/getting-started.html).

    Raises:
        InputError: If Ray is not installed or cannot be reached.
    """
    if workers <= 1:
        yield _Here()
        return
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            'Several workers need Ray: pip install "fashion_keras[ray]". '
            f"Received: --workers {workers}"
        ) from error
    _start(ray, workers)
    try:
        yield _OnRay(ray, workers)
    finally:
        ray.shutdown()


class _Here:
    size = 1

    def __init__(self) -> None:
        self._tasks: collections.deque[tuple[Any, Callable[..., Any], tuple]] = collections.deque()

    def share(self, value: Any) -> Any:
        return value

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._tasks.append((label, function, arguments))

    def next_done(self) -> tuple[Any, Any]:
        label, function, arguments = self._tasks.popleft()
        return label, function(*arguments)


class _OnRay:
    def __init__(self, ray: Any, workers: int) -> None:
        self.size = workers
        self._ray = ray
        cards = ray.cluster_resources().get("GPU", 0)
        options = {"num_cpus": 1, "num_gpus": min(1, cards / workers), "max_retries": _RETRIES}
        self._remote = functools.cache(ray.remote(**options))
        self._labels: dict[Any, Any] = {}

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._labels[self._remote(function).remote(*arguments)] = label

    def next_done(self) -> tuple[Any, Any]:
        (task, *_), _ = self._ray.wait(list(self._labels))
        label = self._labels.pop(task)
        try:
            return label, self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise InputError(
                f"A worker died {_RETRIES + 1} times at the same task, perhaps for lack of memory. "
                "Try fewer `--workers`."
            ) from error


def _start(ray: Any, workers: int) -> None:
    """Connect to Ray; on this machine each worker has its share of the cores."""
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {} if address else {"TF_NUM_INTRAOP_THREADS": str(threads)}
    try:
        ray.init(
            address=address,
            logging_level="ERROR",
            log_to_driver=False,
            runtime_env={"env_vars": environment},
            **local,
        )
    except ConnectionError as error:
        raise InputError(f"No Ray cluster answers at RAY_ADDRESS={address}: {error}") from error
