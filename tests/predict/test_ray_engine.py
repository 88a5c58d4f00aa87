"""Tests of predictions by Ray: the rows of the plain engine, even if a worker is killed."""

import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config, InputError
from fashion_keras.model import build_head
from fashion_keras.predict import ray_engine
from fashion_keras.predict.__main__ import main
from fashion_keras.predict.cloud import arrow
from fashion_keras.predict.journal import Journal
from fashion_keras.predict.ray_cluster import _init, import_ray
from fashion_keras.predict.ray_worker import Predictor
from fashion_keras.saving import save_classifier

LABELS = ["cap", "hat", "sock", "tie"]
if importlib.util.find_spec("ray") is None:
    pytest.skip("needs the extra `ray`", allow_module_level=True)
# Ray itself uses options of its own that it calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """Run Ray on this machine once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_worker_niceness", "0")  # Else other tests at the same time slow it down.
        ray = import_ray()
        _init(ray, "local")
        yield ray
        ray.shutdown()


@pytest.fixture
def model(tiny_backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Save a classifier whose answers differ from photo to photo, and start in its folder."""
    head = build_head(Config(inner_size=16), len(LABELS))
    head.set_weights([weight * 4 for weight in head.get_weights()])
    save_classifier(tiny_backbone, head, LABELS, 71, tmp_path / "our.keras")
    monkeypatch.chdir(tmp_path)
    return "our.keras"


def drawn(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 80, (60 + number, 110 - number, 3))
    file = io.BytesIO()
    Image.fromarray((noise + 3 * number).astype("uint8")).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(model: str) -> list[str]:
    """Write photos, some of them bad."""
    names = [f"{number}.png" for number in range(24)]
    for number, name in enumerate(names):
        Path(name).write_bytes(drawn(number))
    Path("3.png").write_bytes(b"")
    Path("8.png").write_text("no photo")
    Path("14.png").unlink()
    Path("20.png").write_bytes(drawn(20)[:900])
    return names


def run(*arguments: str) -> Any:
    """Run the command; return its exit code."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return end.code
    return 0


def rows_in(file: str) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def assert_same(rows: list[dict], expected: list[dict]) -> None:
    for row, other in zip(rows, expected, strict=True):
        for name in ("file", "category", "reason"):
            assert row[name] == other[name]
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
        told = {one["category"]: one["probability"] for one in row["top"]}
        others = {one["category"]: one["probability"] for one in other["top"]}
        assert told == pytest.approx(others, abs=1e-5)


def workers() -> dict[int, str]:
    """Return the process of each worker of this test's own Ray, with what it does."""
    listed = subprocess.run(
        ["/bin/ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    parents = {int(pid) for pid, parent, _ in lines if int(parent) == os.getpid()}
    return {
        int(pid): title
        for pid, parent, title in lines
        if int(parent) in parents and title.startswith("ray::MapWorker")
    }


class Gate:
    """Serves photos; kills a worker when each of two waits for one, and rows are there already.

    Args:
        rows: Tells how many rows there are.
    """

    def __init__(self, rows: Callable[[], int]) -> None:
        self.asked: Counter[str] = Counter()
        self.before: set[int] = set()
        self.after: set[int] = set()
        self.killed = 0
        self.rows = 0
        self._count_rows = rows
        self._lock = threading.Lock()
        self._open = threading.Event()

    def pass_through(self, name: str) -> None:
        """Wait until a worker has been killed."""
        with self._lock:
            self.asked[name] += 1
            if self.asked[name] > 1:  # The one that took the place of the killed one.
                self.after |= set(workers())
            elif len(self.asked) == 2:
                self._kill()
        self._open.wait(18)  # A photo on the web may take 20 s.

    def _kill(self) -> None:
        limit = time.monotonic() + 10
        while not self.rows and time.monotonic() < limit:
            time.sleep(0.05)
            self.rows = self._count_rows()
        self.before = set(workers())
        self.killed = min(self.before)
        os.kill(self.killed, signal.SIGKILL)
        self._open.set()


@contextmanager
def serving(gate: Gate) -> Iterator[str]:
    """Serve `/<task>/<number>.png` on this computer; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, task, name = self.path.split("/")
            gate.pass_through(task)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(drawn(int(Path(name).stem)))

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_rows_are_those_of_the_plain_engine_though_a_worker_is_killed(
    model: str, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Path(".rows.jsonl.unfinished")
    gate = Gate(lambda: journal.read_bytes().count(b"\n") - 1)
    with serving(gate) as address:
        # 48 photos in 8 tasks of 6, each of the last five with a photo that is waited for.
        names = [*photos[:20], *(f"{number}.png" for number in range(100, 128))]
        for number in range(100, 128):
            Path(f"{number}.png").write_bytes(drawn(number - 76))
        for task in range(3, 8):
            names[6 * task + 4] = f"{address}/{task}/{task}.png"
        options = ["--allow-private", "--format", "jsonl", "--out"]
        assert run(model, *names, "--engine", "ray", "--workers", "2", *options, "rows.jsonl") == 3
        shown = capsys.readouterr().out.splitlines()
        assert run(model, *names, *options, "plain.jsonl") == 3
    assert 0 < gate.rows < 48
    assert gate.killed in gate.before
    assert len(gate.before) == 2
    assert gate.after - gate.before, "no worker took the place of the killed one"
    assert_same(rows_in("rows.jsonl"), rows_in("plain.jsonl"))
    assert [row["file"] for row in rows_in("rows.jsonl")] == names
    assert sum(not row["reason"] for row in rows_in("rows.jsonl")) == 45
    assert [line.split(":")[0] for line in shown] == ["photos to rows.jsonl", "saved rows.jsonl"]


def test_ray_goes_on_where_the_plain_engine_stopped(
    model: str, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(model, *photos, "--format", "csv", "--out", "plain.csv") == 3
    add = Journal.add

    def stop(journal: Journal, row: dict) -> None:
        if row["file"] == "10.png":
            raise KeyboardInterrupt
        add(journal, row)

    arguments = [model, *photos, "--format", "csv", "--out", "rows.csv", "--sort-into", "sorted"]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stop)
        pytest.raises(KeyboardInterrupt, main, arguments)
    assert run(*arguments, "--resume", "--engine", "ray", "--workers", "1") == 3
    rows, expected = (
        list(csv.DictReader(Path(name).read_text().splitlines()))
        for name in ("rows.csv", "plain.csv")
    )
    for row, other in zip(rows, expected, strict=True):
        assert (row["file"], row["category"]) == (other["file"], other["category"])
        assert row["reason"] == other["reason"]
    placed = {(file.parent.name, file.name) for file in Path("sorted").glob("*/*")}
    readable = [row for row in expected if not row["reason"]]
    assert placed == {(row["category"], row["file"]) for row in readable}


def test_tables_of_photos_become_parts(
    model: str, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("14.png").write_bytes(drawn(14))
    assert run(model, *photos, "--format", "jsonl", "--out", "plain.jsonl") == 3
    for number, column in enumerate(["path", "path", "file"]):
        names = photos[8 * number : 8 * number + 8]
        content = [Path(name).read_bytes() for name in names]
        table = arrow().table({"label": names, column: names, "bytes": content})
        arrow("parquet").write_table(table, f"{number}.parquet")
    monkeypatch.setattr(ray_engine, "_ROWS_OF_A_PART", 9)
    tables = [f"{number}.parquet" for number in range(3)]
    options = ["--engine", "ray", "--workers", "1", "--format", "parquet", "--top", "2"]
    assert run(model, *tables, *options, "--out", "parts") == 3
    parts = sorted(file.name for file in Path("parts").iterdir())
    assert len(parts) > 1
    assert all(name.endswith(".parquet") for name in parts)
    rows = arrow("parquet").read_table("parts").to_pylist()
    for row, other in zip(rows, rows_in("plain.jsonl"), strict=True):
        assert (row["file"], row["category"]) == (other["file"], other["category"])
        assert row["reason"] == other["reason"]
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
        told = {row[f"category_{rank}"]: row[f"probability_{rank}"] for rank in (1, 2)}
        others = {one["category"]: one["probability"] for one in other["top"][:2]}
        assert told == pytest.approx(others or {"": None}, abs=1e-5)


def test_photos_that_end_every_worker_are_named(
    model: str, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(Predictor):
        most_starts = 1

        def _read(self, photo: Any) -> np.ndarray:
            if photo.name == "5.png":
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._read(photo)

    monkeypatch.setattr(ray_engine, "Predictor", Deadly)
    with pytest.raises(InputError, match=r"^1 workers ended, .*, over the 6 photos from 0\.png on"):
        main([model, *photos, "--engine", "ray", "--workers", "1"])


def test_a_ray_of_this_machine_listens_to_it_alone(ray: Any) -> None:
    assert [machine["NodeManagerAddress"] for machine in ray.nodes()] == ["127.0.0.1"]
