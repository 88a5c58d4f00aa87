"""Several processes behind one port: started, watched and ended by one that does nothing else."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence

from fashion_keras.config import InputError

LISTENER = "FASHION_KERAS_LISTENER"  # Tells a worker the number of the socket it inherits.
FIGURES = "PROMETHEUS_MULTIPROC_DIR"  # Where workers put their figures together.
CANNOT_START = 2  # A worker's exit code that another start would not change.
_LOOK = 0.2  # Seconds between two looks at the workers.
_GRACE = 10.0  # Seconds beyond their patience until workers are ended by force.
_PAUSES = (0, 1, 2, 5, 10, 30)  # Seconds before a worker is started again, and again.
_LONG_LIFE = 60.0  # After so many seconds the pauses begin anew.


class _Worker:
    """One process; when it dies, another in its place."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], inherited: int) -> None:
        self._start = lambda: subprocess.Popen(
            command, env=environment, pass_fds=[inherited], start_new_session=True
        )
        self._figures = environment[FIGURES]
        self._deaths = 0
        self._again = 0.0  # When to start the next one; 0 while one runs.
        self._born = time.monotonic()
        self.process = self._start()

    def look(self) -> int | None:
        """Start a new process in place of a dead one; return its exit code if that is no use."""
        now, code = time.monotonic(), self.process.poll()
        if code is None:
            return None
        if code == CANNOT_START and not self._deaths:
            return code  # Later it may be a file that is just being replaced.
        if not self._again:
            _forget_figures(self.process.pid, self._figures)
            self._deaths = 1 if now - self._born > _LONG_LIFE else self._deaths + 1
            pause = _PAUSES[min(self._deaths, len(_PAUSES)) - 1]
            print(f"a worker ended with {code}; another starts in {pause} s", flush=True)
            self._again = now + pause
        if now >= self._again:
            self._born, self._again = now, 0.0
            self.process = self._start()
        return None


def _forget_figures(process: int, folder: str) -> None:
    """Take out what a process that is no more says of the moment."""
    from prometheus_client import multiprocess  # Only with the extra.

    multiprocess.mark_process_dead(process, folder)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; connections queue on it.

    Raises:
        InputError: If the port is taken, or the host is none of this computer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"Cannot listen on {host}, port {port}: {error}") from error


def run_workers(
    command: Sequence[str], count: int, listener: socket.socket, patience: float
) -> int:
    """Run processes that share a socket until somebody ends this one; return its exit code.

    A worker that dies is started again, each time after a longer pause. The cores are shared out.
    SIGHUP is passed on; SIGTERM and SIGINT end the workers, each when it has answered.

    Args:
        command: Of one worker.
        count: How many.
        listener: See `listen`.
        patience: Seconds that a worker may take to answer what was asked, when it is ended.

    Returns:
        0, or the exit code of a worker that cannot start.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked.append(received))
    with tempfile.TemporaryDirectory(prefix="fashion_keras-") as figures:
        environment = os.environ | {
            LISTENER: str(listener.fileno()),
            FIGURES: figures,
            "TF_NUM_INTRAOP_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        }
        workers = [_Worker(command, environment, listener.fileno()) for _ in range(count)]
        try:
            return _watch(workers, asked)
        finally:
            listener.close()
            _end(workers, patience + _GRACE)


def _watch(workers: list[_Worker], asked: list[int]) -> int:
    while True:
        if hopeless := [code for code in (worker.look() for worker in workers) if code]:
            return hopeless[0]
        while asked:
            if asked.pop(0) != signal.SIGHUP:
                return 0
            for worker in workers:
                worker.process.send_signal(signal.SIGHUP)
        time.sleep(_LOOK)


def _end(workers: list[_Worker], seconds: float) -> None:
    for worker in workers:
        worker.process.terminate()
    until = time.monotonic() + seconds
    for worker in workers:
        try:
            worker.process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
