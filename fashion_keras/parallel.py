"""The same tasks in this process, in several processes on this machine, or on a Ray cluster.

A task is a function of a module with plain arguments. It receives all that it needs and returns
what it made, and its caller writes it: workers need no disk in common.
"""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras.config import InputError

_RETRIES = 3  # Times that a task is run again whose process died; on this machine: in a row.
_MAX_WORKERS = 4  # By default: each takes about a gigabyte of memory.


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
    """Yield a pool: this process for one worker; for more, processes here or on a Ray cluster.

    The variable RAY_ADDRESS names the cluster (see `connected`).
    """
    if workers <= 1:
        yield Pool()
    elif on_this_machine():
        with contextlib.closing(_Processes(workers)) as processes:
            yield processes
    else:
        with connected() as ray:
            yield _OnRay(ray, workers)


def one_ahead(items: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """Yield items, none of them None; a thread makes the next one meanwhile."""
    with contextlib.closing(items), concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
        waiting = thread.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(next, items, None)
            yield item


def default_workers() -> int:
    """Return how many processes train heads fastest on this machine.

    On a CPU the steps of a head are too short to be shared by several cores.
    """
    from fashion_keras.backend import cards

    alone = cards() or not on_this_machine()
    return 1 if alone else min(os.cpu_count() or 1, _MAX_WORKERS)


class _Shared(NamedTuple):
    file: Path


class _Processes(Pool):
    """Processes on this machine, with equal shares of its cores."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._folder = tempfile.TemporaryDirectory(prefix="shared-")
        self._numbers = itertools.count()
        self._waiting: dict[concurrent.futures.Future, tuple] = {}
        self._deaths = 0
        self._ended, self._end = multiprocessing.Pipe(duplex=False)
        self._start()

    def _start(self) -> None:
        threads = max(1, (os.cpu_count() or 1) // self.size)
        self._executor = concurrent.futures.ProcessPoolExecutor(
            self.size,
            multiprocessing.get_context("spawn"),  # A copy of a process with TensorFlow hangs.
            initializer=_begin_worker,
            initargs=(threads, self._ended),
        )

    def share(self, value: Any) -> Any:
        file = Path(self._folder.name, str(next(self._numbers)))
        file.write_bytes(pickle.dumps(value))
        return _Shared(file)

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        task = (label, function, arguments)
        try:
            self._waiting[self._executor.submit(_run_task, function, *arguments)] = task
        except BrokenProcessPool as error:
            self._start_again(task, error)

    def next_done(self) -> tuple[Any, Any]:
        while True:
            future = next(concurrent.futures.as_completed(self._waiting))
            task = self._waiting.pop(future)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                self._start_again(task, error)
            else:
                self._deaths = 0
                return task[0], result

    def _start_again(self, task: tuple, error: Exception) -> None:
        """Submit all tasks, and one more, to other processes, because one has died."""
        self._deaths += 1
        if self._deaths > _RETRIES:
            raise _died(self._deaths) from error
        tasks = [*self._waiting.values(), task]
        self._waiting.clear()
        self._executor.shutdown()
        self._start()
        for label, function, arguments in tasks:
            self.submit(label, function, *arguments)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._end.close()
        self._executor.shutdown()
        self._ended.close()
        self._folder.cleanup()


def _begin_worker(threads: int, ended: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The command itself ends its workers.
    threading.Thread(target=_end_with, args=(ended,), daemon=True).start()
    variables = ("TF_NUM_INTRAOP_THREADS", "NPROC", "OMP_NUM_THREADS")  # For JAX, for Torch.
    os.environ.update(dict.fromkeys(variables, str(threads)))


def _end_with(ended: Any) -> None:
    """End this process once the other end of a pipe is closed, also by the death of its owner."""
    with contextlib.suppress(OSError):  # As Windows says it.
        ended.poll(None)
    os._exit(1)


def _run_task(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*(_load(one.file) if isinstance(one, _Shared) else one for one in arguments))


@functools.lru_cache(maxsize=1)
def _load(file: Path) -> Any:
    return pickle.loads(file.read_bytes())  # noqa: S301 (the command itself wrote it)


def _died(times: int) -> InputError:
    return InputError(
        f"Workers died {times} times, perhaps for lack of memory. Try fewer `--workers`."
    )


class _OnRay(Pool):
    def __init__(self, ray: Any, workers: int) -> None:
        self.size = workers
        self._ray = ray
        cards = ray.cluster_resources().get("GPU", 0)
        options = {"num_cpus": 1, "num_gpus": min(1, cards / workers), "max_retries": _RETRIES}
        self._run_task = ray.remote(**options)(_run_task)
        self._labels: dict[Any, Any] = {}

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def submit(self, label: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._labels[self._run_task.remote(function, *arguments)] = label

    def next_done(self) -> tuple[Any, Any]:
        (task, *_), _ = self._ray.wait(list(self._labels))
        label = self._labels.pop(task)
        try:
            return label, self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise _died(_RETRIES + 1) from error


def on_this_machine() -> bool:
    """Return whether workers run here, as the variable RAY_ADDRESS names no cluster."""
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
    options: dict[str, Any] = {"include_dashboard": False, **local, "address": "local"}
    options = options if on_this_machine() else {"runtime_env": {"env_vars": _variables()}}
    try:
        with quiet(2):
            ray.init(**options, log_to_driver=False, logging_level="CRITICAL")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"Ray does not start: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _variables() -> dict[str, str]:
    """Return the variables that decide how Keras computes, for workers on other machines."""
    from fashion_keras.backend import DETERMINISTIC, keras

    found = {DETERMINISTIC: chosen} if (chosen := os.environ.get(DETERMINISTIC)) else {}
    return found | {"KERAS_BACKEND": keras.backend.backend()}


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
