"""Workers on this computer: started, watched, started again and ended by the search's command."""

import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from fashion_keras.config import InputError
from tuning.chief import Chief, serving
from tuning.hyperband import Hyperband
from tuning.line import CHILD, LOOPBACK, Address

_PAUSES = (0, 1, 2, 5)  # Seconds before a worker is started again, and again.
_GRACE = 10.0  # Seconds until a worker that is to end is ended by force.


class _Member:
    """One worker's process; when it dies, another in its place."""

    def __init__(
        self, number: str, command: Sequence[str], variables: dict[str, str], log: Path
    ) -> None:
        self._number, self._command, self._log = number, command, log
        self._variables = variables
        self._deaths = 0  # Since the last trial that one of its processes finished.
        self._lives = 0
        self._again = 0.0  # When to start the next one; 0 while one runs.
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        self._lives += 1
        self._name = f"{self._number}.{self._lives}"
        environment = os.environ | self._variables | {CHILD: self._name}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def look(self, chief: Chief) -> None:
        """If the process is dead, give its trial back, and start another after a pause.

        Raises:
            InputError: If another start would be of no use.
        """
        code = self.process.poll()
        if code is None:
            return
        now = time.monotonic()
        if not self._again:
            self._deaths = 1 if chief.ended[self._name] else self._deaths + 1
            self._check(code)
            pause = _PAUSES[self._deaths - 1]
            chief.give_back(self._name, f"ended with {code}; another starts in {pause} s")
            self._again = now + pause
        if now >= self._again:
            self._again = 0.0
            self.process = self._start()

    def _check(self, code: int) -> None:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = f"{lines[-1] if lines else 'it said nothing'} (all of it is in {self._log})"
        if code == 2 and self._deaths > 1:  # It said why, and nothing has changed.
            raise InputError(f"Workers end: {told.removeprefix('error: ')}")
        if self._deaths > len(_PAUSES):
            raise InputError(
                f"A worker died {self._deaths} times without finishing a trial, the last time "
                f"with {code}: {told}"
            )


class Fleet:
    """Runs the trials of a search in processes on this computer.

    Each has one graphics card, if there are any, and its share of the cores.

    Args:
        count: How many processes.
        command: Of a worker, without `--worker` and its address.
    """

    def __init__(self, count: int, command: Sequence[str]) -> None:
        self._count = count
        self._command = command
        # TensorFlow takes all memory of a card, also for the vectors that are made before.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    def run_trials(self, tuner: Hyperband) -> None:
        """Run all trials that are left.

        Raises:
            InputError: If a worker dies again and again, or trials fail one after the other.
        """
        members: list[_Member] = []
        try:
            with serving(Address(LOOPBACK, 0)) as chief:
                command = [*self._command, "--worker", f"{LOOPBACK}:{chief.port}"]
                # Workers of a chief that was killed live on for seconds, under other names.
                token = secrets.token_hex(2)
                members += [
                    _Member(
                        f"{number}-{token}",
                        command,
                        variables,
                        tuner.folder / f"worker-{number}.log",
                    )
                    for number, variables in enumerate(shares(self._count), 1)
                ]
                print(f"{self._count} workers; what they say is in {tuner.folder}", flush=True)

                def look() -> None:
                    for member in members:
                        member.look(chief)

                chief.run_trials(tuner, look)
        finally:
            _end([member.process for member in members])


def shares(count: int) -> list[dict[str, str]]:
    """Return for each of so many processes the variables that give it its share of the machine."""
    cards = _cards()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, (cores or 1) // count))}
    return [
        threads | ({"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {})
        for number in range(count)
    ]


def _cards() -> list[str]:
    """Return the graphics cards that this process may use, as NVIDIA's library names them."""
    count = len(keras.distribution.list_devices("gpu"))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
