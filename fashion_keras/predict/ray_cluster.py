"""Ray itself: started on this machine or joined on a cluster, and shared out among workers."""

import contextlib
import importlib
import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fashion_keras import _quiet_start
from fashion_keras.config import InputError

_THREADS = 2  # Of a worker, where no number of workers is given.


def import_ray() -> Any:
    """Import Ray and return it.

    Raises:
        InputError: If Ray Data is not installed.
    """
    # Ray reads the first when it is imported: else one that is started here would listen to the
    # whole network on Linux. Of the last it tells one line, which `_quiet_start` holds back.
    if _is_alone():
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(
            f"`--engine ray` needs Ray Data: `pip install 'fashion_keras[ray]'` ({error})."
        ) from error


def _is_alone() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") == "local"


@contextlib.contextmanager
def running() -> Iterator[Any]:
    """Join the cluster that RAY_ADDRESS names, or run Ray on this machine; leave or end it after.

    A Ray that this process has joined or started before is used, and stays.

    Yields:
        The module `ray`.

    Raises:
        InputError: If there is no such cluster, Ray does not start, or it gives up later.
    """
    ray = import_ray()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # What matters is raised, too.
    begun = not ray.is_initialized()
    if begun:
        _init(ray, "local" if _is_alone() else None)
    # Of each worker that dies Ray tells on standard output, where rows are to stand.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            yield ray
        except ray.exceptions.RayError as error:
            raise _told(ray, error) from error
        finally:
            if begun:
                ray.shutdown()


def _told(ray: Any, error: Exception) -> Exception:
    """Return the error in one line, if the user can do something about it."""
    found = re.search(r"^fashion_keras\.config\.InputError: (.+)$", str(error), re.MULTILINE)
    if found:
        return InputError(found[1])
    if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error, OSError):
        return error
    return InputError(f"Ray gave up: {str(error).strip().splitlines()[0]}")


def _init(ray: Any, address: str | None) -> None:
    if not address:
        _check_address(os.environ["RAY_ADDRESS"])
    try:
        with _quiet_start():
            ray.init(
                address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except (OSError, RuntimeError, ValueError) as error:
        told = os.environ.get("RAY_ADDRESS", "not set, so Ray starts on this machine")
        raise InputError(f"Ray does not start: {error}. RAY_ADDRESS: {told}") from error


def _check_address(address: str) -> None:
    """Raise the error for a cluster that does not answer; Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"No cluster of Ray at RAY_ADDRESS={address}: {error}. Set it to `auto` or to "
            "host:port, or unset it to run Ray on this machine."
        ) from error


class Plan(NamedTuple):
    """How the machines are shared out among the workers.

    Attributes:
        workers: Processes that hold the classifier.
        threads: That each may use.
        cpus: That Ray sets aside for each: less than it uses, as reading and writing need some.
        gpus: For each, 0 or 1.
    """

    workers: int
    threads: int
    cpus: float
    gpus: int


def plan(machines: Sequence[dict[str, float]], asked: int | None) -> Plan:
    """Share the machines out among the workers.

    Args:
        machines: What Ray sees of each, such as `{"CPU": 8.0, "GPU": 1.0}`.
        asked: How many workers are wanted; None for one a graphics card or, where there is none,
            one for every two CPUs.

    Raises:
        InputError: If more workers are wanted than there are graphics cards, or there is no CPU.
    """
    cards = int(sum(machine.get("GPU", 0) for machine in machines))
    if asked and asked > cards > 0:
        raise InputError(
            f"Ray has {cards} graphics cards, and each worker needs one. Received: "
            f"--workers {asked}"
        )
    used = [machine for machine in machines if machine.get("GPU" if cards else "CPU")]
    if not used:
        raise InputError("Ray has no machine with CPUs: start one first.")
    cpus = [int(machine.get("CPU", 1)) for machine in used]
    if cards:
        workers = asked or cards
        share = min(machine.get("CPU", 1) / machine["GPU"] for machine in used)
    else:
        workers = asked or sum(math.ceil(count / _THREADS) for count in cpus)
        share = _share(cpus, workers)
    # Ray starts nothing that needs a whole CPU, such as reading a table, before one is free.
    left = min(0.9, 1 - 1 / max(cpus))
    return Plan(workers, max(1, int(share)), round(share * left, 3), 1 if cards else 0)


def _share(cpus: list[int], workers: int) -> float:
    """Return the CPUs for each worker, so that all find a place."""
    for share in range(max(cpus), 0, -1):
        if sum(count // share for count in cpus) >= workers:
            return share
    return min(cpus) / math.ceil(workers / len(cpus))
