"""Sends a service good and bad requests, and watches its memory, its answers and its shutdown.

    python -m tests.benchmarks.service_faults results/final/fashion.keras photos/

Half of the requests are bad in ten ways; eight clients send at the same time. Then the service is
ended by SIGTERM while clients wait for an answer. Writes `results/benchmarks/service_faults.json`:
how often each status was answered to which request, the memory at twenty moments, its
largest difference to that after a tenth of them, and how the service ended.
"""

import collections
import contextlib
import http.client
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fashion_keras import cli
from fashion_keras.data.files import find_files
from tests.benchmarks.common import model_parser, provenance, write
from tests.serve.running import command

CLIENTS = 8
_RAW = {"Content-Type": "application/octet-stream"}
_FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
_JSON = {"Content-Type": "application/json"}
Request = tuple[str, bytes, dict[str, str]]  # Its kind, its body, its headers.


def bad_requests(content: bytes) -> list[Request]:
    """Return requests that cannot be answered, made of a photo that can."""
    head = b'--xyz\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
    return [
        ("cut off", content[: len(content) // 3], _RAW),
        ("no photo", b"hello" * 100, _RAW),
        ("empty", b"", _RAW),
        ("a page", b"<!doctype html><html></html>", {"Content-Type": "text/html"}),
        ("too large", content + b"x" * 20_000_000, _RAW),
        ("broken form", head + content, _FORM),
        ("unreadable in a form", head + b"no\r\n--xyz--\r\n", _FORM),
        ("broken JSON", b'{"base64": ', _JSON),
        ("an address", b'{"url": "http://169.254.169.254/latest"}', _JSON),
        ("left", content, _RAW),
    ]


def send(port: int, request: Request) -> str:
    """Send one request; return the status, or how it ended without one."""
    kind, body, headers = request
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 120)) as connection:
        try:
            connection.request("POST", "/predict", body, headers)
            if kind == "left":
                return "left"
            response = connection.getresponse()
            response.read()
            return str(response.status)
        except ConnectionError as error:
            return type(error).__name__


def requests_of(files: list[Path], count: int) -> Iterator[Request]:
    """Yield requests, every other one bad, each bad kind in its turn."""
    for number in range(count):
        content = files[number % len(files)].read_bytes()
        if number % 2 == 0:
            yield "good", content, _RAW
        else:
            bad = bad_requests(content)
            yield bad[number // 2 % len(bad)]


def megabytes(process: int) -> float:
    """Return the memory that a process holds now (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1000 if found else 0.0


def bombard(port: int, process: int, files: list[Path], count: int) -> tuple[dict, list[float]]:
    """Send all requests; return how each kind was answered, and the memory as it went."""
    answers: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    memory: list[float] = []
    turn, requests = threading.Lock(), requests_of(files, count)
    done = cli.progress(range(1, count + 1), count, "requests")

    def next_request() -> Request | None:
        with turn:
            return next(requests, None)

    def client() -> None:
        while request := next_request():
            status = send(port, request)
            with turn:
                answers[request[0]][status] += 1
                if next(done) % max(1, count // 20) == 0:
                    memory.append(megabytes(process))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for one in [pool.submit(client) for _ in range(CLIENTS)]:
            one.result()
    return {kind: dict(statuses) for kind, statuses in answers.items()}, memory


def end_under_load(port: int, process: subprocess.Popen, files: list[Path]) -> dict[str, object]:
    """End the service while clients wait; return what each was answered, and the exit code."""
    start = time.monotonic()
    good = [request for request in requests_of(files, 64) if request[0] == "good"]
    with ThreadPoolExecutor(len(good)) as pool:
        sent = [pool.submit(send, port, request) for request in good]
        time.sleep(0.3)
        process.terminate()
        answered = collections.Counter(one.result() for one in sent)
    code = process.wait()
    return {"answers": dict(answered), "code": code, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Bombard, watch, end, and write down what happened."""
    options = model_parser("service_faults", __doc__)
    options.add_argument("--requests", type=int, default=20_000, help="default: 20000")
    given = options.parse_args()
    files = find_files(given.photos)
    with command(given.model) as (service, process):
        answers, memory = bombard(service.port, process.pid, files, given.requests)
        end = end_under_load(service.port, process, files)
    first, *later = memory[len(memory) // 10 :]
    result = {
        "requests": given.requests,
        "answers": answers,
        "megabytes": memory,
        "drift": max((abs(one / first - 1) for one in later), default=0.0),
        "end": end,
        "run": provenance(),
    }
    file = write(given.results, "service_faults", result)
    print(f"memory within {result['drift']:.1%}; {end}; {file}")


if __name__ == "__main__":
    cli.run(main)
