"""Sends a service good and bad requests without end, and watches its memory and its manners.

    python -m tests.benchmarks.service_faults results/final/fashion.keras photos/

Half of the requests are bad in ten ways; eight clients send at the same time. Then the service is
told to end while all clients wait for an answer. Writes `results/benchmarks/service_faults.json`:
how often each status was answered to which request, the memory after every thousandth request, the
largest difference of it to that after a tenth of them, and how the service ended.
"""

import collections
import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fashion_keras import cli
from fashion_keras.data.scan import find_files
from tests.benchmarks.service import running

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
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 120)) as line:
        try:
            line.request("POST", "/predict", body, headers)
            if kind == "left":
                return "left"
            response = line.getresponse()
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

    def next_request() -> Request | None:
        with turn:
            return next(requests, None)

    def client(tell: Callable[[], None]) -> None:
        while request := next_request():
            status = send(port, request)
            with turn:
                answers[request[0]][status] += 1
                tell()

    bar = cli.progress(range(count), count, "requests")

    def tell() -> None:
        if next(bar, 0) % 1000 == 999:
            memory.append(megabytes(process))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, tell) for _ in range(CLIENTS)]:
            done.result()
    return {kind: dict(told) for kind, told in answers.items()}, memory


def end_under_load(port: int, process: object, files: list[Path]) -> dict[str, object]:
    """End the service while clients wait; return what each was answered, and the exit code."""
    start = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        sent = [pool.submit(send, port, request) for request in requests_of(files, 64)
                if request[0] == "good"]  # fmt: skip
        time.sleep(0.3)
        process.terminate()  # type: ignore[attr-defined]
        answered = collections.Counter(one.result() for one in sent)
    code = process.wait()  # type: ignore[attr-defined]
    return {"answers": dict(answered), "code": code, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Bombard, watch, end, and write down what happened."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.service_faults")
    options.add_argument("model", type=Path, help="a .keras file of this project")
    options.add_argument("photos", type=Path, help="folder of photos")
    options.add_argument("--requests", type=int, default=20_000, help="default: 20000")
    options.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    given = options.parse_args()
    files = find_files(given.photos)
    with running(given.model) as (address, process):
        port = int(address.rsplit(":", 1)[1])
        answers, memory = bombard(port, process.pid, files, given.requests)
        ending = end_under_load(port, process, files)
    settled = memory[len(memory) // 10]
    drift = max(abs(one / settled - 1) for one in memory[len(memory) // 10 :])
    text = {"requests": given.requests, "answers": answers, "megabytes": memory, "drift": drift,
            "end": ending, "run": cli.provenance(start)}  # fmt: skip
    file = given.results / "benchmarks" / "service_faults.json"
    file.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    print(f"memory within {drift:.1%}; {ending}; {file}")


if __name__ == "__main__":
    cli.run(main)
