"""The same tasks in this process, or in several processes on one machine or many with Ray.

A task is a function of a module with plain arguments. It receives all that it needs and returns
what it made, and its caller writes it: workers need no disk in common.
"""

import collections
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from fashion_keras.config import InputError

_RETRIES = 3  # Times that Ray runs a task again whose process died.


class Pool:
    """Runs tasks, in this process and in order.

    Attributes:
        size: Tasks that run at the same time.
    """

    size = 1

    def __init__(self) -> None:
        self._tasks: collections.deque[tuple[Any, Callable[..., Any], tuple]] = collections.deque()

    def share(self, value: Any) -> Any:
        """Return a handle for a large value, to be an argument of several tasks."""
        return value

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """Add a task; `function` receives shared values themselves in place of their handles."""
        self._tasks.append((label, function, arguments))

    def next_done(self) -> tuple[Any, Any]:
        """Wait for any task; return its label and its result, or raise its error."""
        label, function, arguments = self._tasks.popleft()
        return label, function(*arguments)


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """Yield a pool: this process for one worker, Ray for more (see `connected`)."""
    if workers <= 1:
        yield Pool()
        return
    threads = max(1, (os.cpu_count() or 1) // workers)  # On this machine workers share the cores.
    environment = {"env_vars": {"TF_NUM_INTRAOP_THREADS": str(threads)}}
    local = {"num_cpus": workers, "runtime_env": environment} if on_this_machine() else {}
    with connected(**local) as ray:
        yield _OnRay(ray, workers)


class _OnRay(Pool):
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


def on_this_machine() -> bool:
    """Return whether Ray is started here, as the variable RAY_ADDRESS names no cluster."""
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def import_ray() -> Any:
    """Import Ray and return it; raise an `InputError` if it is not installed."""
    # Ray reads these when it is imported. Without the first, it would listen to the whole network.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", str(int(not on_this_machine())))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError('Ray is not installed: pip install "fashion_keras[ray]"') from error
    return ray


@contextlib.contextmanager
def connected(**local: Any) -> Iterator[Any]:
    """Yield Ray, started on this machine or connected to the cluster that RAY_ADDRESS names.

    See https://docs.ray.io/en/latest/cluster/getting-started.html. A connection that this process
    has already is used, and stays.

    Args:
        **local: Options of `ray.init` on this machine.

    Raises:
        InputError: If Ray is not installed, does not start or does not answer.
    """
    from fashion_keras.backend import quiet

    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    if not on_this_machine():
        _check_cluster(os.environ["RAY_ADDRESS"])
    options = {"include_dashboard": False, **local, "address": "local"} if on_this_machine() else {}
    try:
        with quiet(2):
            ray.init(**options, log_to_driver=False, logging_level="CRITICAL")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"Ray does not start: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_cluster(address: str) -> None:
    """Raise the error for a cluster that does not answer; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if address != "auto":
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Ray cluster answers at RAY_ADDRESS={address}: {error}. Set it to `auto` or to "
            "host:port, or unset it to run Ray on this machine."
        ) from error
