"""Tests of predictions with Ray: the rows of the plain engine, even if a worker is killed."""

import io
import os
import signal
import subprocess
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="needs the extra `ray`")  # Not Ray: see `import_ray`.

import pyarrow as pa
from pyarrow import fs, parquet

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError
from fashion_keras.parallel import connected
from fashion_keras.predict import ray_data
from fashion_keras.predict.ray_data import count_photos, prepare, read_any, share_out
from tests.builders import encoded, picture
from tests.predict.conftest import same_rows
from tests.predict.test_predict import rows_in

# Ray itself uses options of its own that it calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
JSONL = ("--format", "jsonl")
RAY = ("--engine", "ray", "--workers")


@pytest.fixture(scope="module")
def ray():
    """Run Ray on this machine once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_worker_niceness", "0")  # Else other tests at the same time slow it down.
        with connected(num_cpus=2) as ray:
            yield ray


def drawn(number):
    return encoded(picture(number))


def workers():
    """Return the processes of this test's own Ray that hold a classifier."""
    listed = subprocess.run(["/bin/ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True)
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    parents = {pid for pid, parent, _ in lines if int(parent) == os.getpid()}
    return {int(pid) for pid, parent, title in lines if parent in parents and "MapWorker" in title}


class Gate:
    """Holds photos of the web back until two workers wait for one; then it kills one of them."""

    def __init__(self):
        self.asked, self.before, self.after = Counter(), set(), set()
        self._lock, self._open = threading.Lock(), threading.Event()

    def pass_through(self, name):
        """Wait until a worker was killed."""
        with self._lock:
            self.asked[name] += 1
            if self.asked[name] > 1:  # By the worker that replaces the killed one.
                self.after |= workers()
            elif len(self.asked) == 2:
                self.before = workers()
                os.kill(min(self.before), signal.SIGKILL)
                self._open.set()
        self._open.wait(15)


@contextmanager
def serving(gate):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            gate.pass_through(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(drawn(int(Path(self.path).stem)))

        def log_message(self, format, *_):  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.kills
def test_rows_are_those_of_the_plain_engine_though_a_worker_is_killed(ray, predict, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    gate = Gate()
    with serving(gate) as address:
        names = [f"{number}.png" for number in range(48)]  # Tasks of 6.
        for number, name in enumerate(names):
            Path(name).write_bytes(drawn(number % 40))
        Path("3.png").write_bytes(b"")
        Path("14.png").unlink()
        for number in range(22, 48, 6):
            names[number] = f"{address}/{number - 10}.png"
        assert predict(*names, *RAY, 2, *JSONL, "--out", "rows").code == 3
        assert predict(*names, *JSONL, "--out", "plain").code == 3
    assert len(gate.before) == 2
    assert gate.after - gate.before, "no worker replaced the killed one"
    assert [row["file"] for row in rows_in("rows")] == names
    assert same_rows(rows_in("rows"), rows_in("plain"))


@pytest.mark.slow
def test_photos_and_tables_can_be_mixed_and_become_parts(ray, predict, photos):
    """Every photo has one row, and the columns are those of CSV and JSON."""
    Path(photos[1]).write_bytes(b"no photo")
    plain = {row["file"]: row for row in predict(*photos, *JSONL).rows}
    for column, start in (("path", 2), ("file", 4)):
        names = photos[start : start + 2]
        content = [Path(name).read_bytes() for name in names]
        table = pa.table({"label": names, column: names, "bytes": content})
        parquet.write_table(table, f"{column}.parquet")
    names = [*photos[:2], "path.parquet", "file.parquet", photos[6]]
    ended = predict(*names, *RAY, 1, *JSONL)
    assert ended.code == 3
    rows = sorted(ended.rows, key=lambda row: row["file"])
    assert same_rows(rows, list(plain.values()))
    ended = predict(*names, *RAY, 1, "--format", "parquet", "--out", "parts/")
    assert (ended.code, ended.out) == (3, "saved parts/: 7 photos, 1 cannot be read\n")
    found = parquet.read_table("parts").sort_by("file")
    header = predict(photos[0], "--format", "csv").out.splitlines()[0]
    assert found.column_names == header.split(",")
    for row, name in zip(found.to_pylist(), photos, strict=True):
        assert (row["file"], row["reason"]) == (name, plain[name]["reason"])
        assert row["probability"] == pytest.approx(plain[name]["probability"], abs=1e-5)
        best = [one["category"] for one in plain[name]["top"]] or ["", "", ""]
        assert [row[f"category_{rank}"] for rank in (1, 2, 3)] == best
    assert predict(*names, *RAY, 1, "--format", "parquet", "--out", "parts/").code == 2


@pytest.mark.slow
@pytest.mark.kills
def test_photos_that_end_every_worker_are_named(ray, predict, monkeypatch):
    class Deadly(Gate):
        def pass_through(self, name):
            for worker in workers():
                os.kill(worker, signal.SIGKILL)

    monkeypatch.setenv("no_proxy", "*")
    with serving(Deadly()) as address:
        ended = predict(f"{address}/5.png", *RAY, 1)
    assert ended.code == 2
    message = f"4 workers died, one after the other, over the 1 photos from {address}/5.png on"
    assert ended.err == f"error: {message}\n"


def test_this_machines_ray_listens_to_it_alone(ray):
    assert [machine["NodeManagerAddress"] for machine in ray.nodes()] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("resources", "asked", "expected"),
    [
        ({"CPU": 2.0}, None, (1, 2, {"num_cpus": 1, "num_gpus": 0})),
        ({"CPU": 2.0}, 3, (3, 1, {"num_cpus": 0.333, "num_gpus": 0})),
        ({"CPU": 1.0}, None, (1, 1, {"num_cpus": 0, "num_gpus": 0})),
        ({"CPU": 16.0, "GPU": 2.0}, None, (2, 8, {"num_cpus": 1, "num_gpus": 1})),
    ],
)
def test_every_worker_finds_a_place_and_a_cpu_stays_free(resources, asked, expected):
    assert share_out(resources, asked) == expected


def test_each_worker_needs_a_graphics_card_if_there_are_any():
    with pytest.raises(InputError, match="Ray has 3 graphics cards.* Received: --workers 4"):
        share_out({"CPU": 64.0, "GPU": 3.0}, 4)


# Tables.


def written(file, photos, *columns):
    table = pa.table({column: [b"a photo"] * photos for column in columns})
    parquet.write_table(table, file)
    return str(file)


def test_photos_of_tables_are_counted(tmp_path):
    path = written(tmp_path / "1.parquet", 3, "path", "bytes", "label")
    both = written(tmp_path / "2.PARQUET", 4, "path", "file", "bytes")
    assert prepare([path, "gone.jpg", both, path]) == [path, "gone.jpg", both]
    assert count_photos([path, "gone.jpg", both]) == 8


def test_bad_tables_are_refused(tmp_path):
    nameless = written(tmp_path / "1.parquet", 3, "name", "bytes")
    empty = written(tmp_path / "2.parquet", 0, "path", "bytes")
    (tmp_path / "3.parquet").write_text("no table")
    with pytest.raises(InputError, match="columns `bytes`, and .* with name, bytes$"):
        prepare([nameless])
    with pytest.raises(InputError, match=f"Received: {empty} without any photo"):
        prepare([empty])
    for name in ("3.parquet", "4.parquet"):
        with pytest.raises(InputError, match=rf"{name} cannot be read as a table: "):
            prepare([str(tmp_path / name)])


# Cloud storage.


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """Return the folder that stands in for the buckets `s3://shop` and `gs://shop`."""

    def connect(storage, bucket):
        if bucket != "shop":
            raise OSError(f"no way to {bucket}")
        return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    monkeypatch.setattr(ray_data, "connect", connect)
    folder = tmp_path / "shop"
    for name in ("photos/b.png", "photos/a/2.png", "photos/a.png", "photos/.hidden/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(drawn(1))
    (folder / "empty").mkdir()
    return folder


def test_places_that_end_in_a_slash_become_the_files_below(bucket):
    names = ["hat.jpg", "gs://shop/x.jpg", "s3://shop/photos/", "s3://shop/photos/b.png", "hat.jpg"]
    assert prepare(names) == [
        *("hat.jpg", "gs://shop/x.jpg"),
        *("s3://shop/photos/a/2.png", "s3://shop/photos/a.png", "s3://shop/photos/b.png"),
    ]
    assert prepare(["gs://shop/"])[0] == "gs://shop/photos/a/2.png"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("s3://shop/empty/", "^There is no file below s3://shop/empty/$"),
        ("s3://shop/gone/", "^There is no file below s3://shop/gone/$"),
        ("s3://other/a.jpg", "s3://other/a.jpg cannot be reached: no way to other. Credentials"),
        ("s3://", "such as s3://bucket/photos/. Received: s3://$"),
        ("gs:///1.jpg", "such as gs://bucket/photos/. Received: gs:///1.jpg$"),
    ],
)
def test_places_that_cannot_be_read_are_errors(name, error, bucket):
    with pytest.raises(InputError, match=error):
        prepare(["s3://shop/a.jpg", name])


def test_photos_of_cloud_storage_tables_and_files_are_read(bucket, monkeypatch):
    monkeypatch.chdir(bucket)
    expected = np.asarray(Image.open(io.BytesIO(drawn(1))))
    for photo in (("s3://shop/photos/a.png", None), ("x", drawn(1)), ("photos/a.png", None)):
        np.testing.assert_array_equal(read_any(photo), expected)
    for photo, reason in [
        (("s3://shop/gone.jpg", None), r"^there is no such file \(a folder ends in `/`\)$"),
        (("s3://other/a.jpg", None), "no way to other"),
        (("x", b""), "^empty file$"),
    ]:
        with pytest.raises(PhotoError, match=reason):
            read_any(photo)
