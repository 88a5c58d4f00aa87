"""Tests of predictions with Ray: the rows of the plain engine, even if a worker is killed."""

import io
import os
import signal
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="needs the extra `ray`")  # Not Ray: see `import_ray`.

import pyarrow as pa
from pyarrow import fs, parquet

from fashion_keras import classifier
from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError
from fashion_keras.predict import ray_data
from fashion_keras.predict.ray_data import count_photos, prepare, read_any, share_out
from tests.builders import encoded, picture
from tests.predict.conftest import rows_in, same_rows

# Ray itself uses options of its own that it calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
JSONL = ("--format", "jsonl")
RAY = ("--engine", "ray", "--workers")
PHOTO = encoded(picture(1))


def stand_in(deaths=0):
    """Return a classifier that needs no Keras, whose category is the colour that prevails.

    It kills its process at `3.png` the first times, `deaths` in all. Ray carries local classes to
    its workers, which could not import those of a test.
    """
    prediction = namedtuple("prediction", "photo category probability probabilities reason")

    class StandIn:
        labels = ("red", "green", "blue")

        def for_photos(self, count):
            return self

        def predict(self, photos, batch_size, read):
            for photo in photos:
                if photo[0] == "3.png" and len(list(Path("deaths").iterdir())) < deaths:
                    Path(f"deaths/{os.getpid()}").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    colours = read(photo).mean(axis=(0, 1))
                    best, shares = colours.argmax(), colours / colours.sum()
                    yield prediction(photo, self.labels[best], float(shares[best]), shares, "")
                except PhotoError as error:
                    yield prediction(photo, "", 0.0, np.empty(0), str(error))

    return StandIn()


@pytest.fixture
def killed(ray, predict, photos, monkeypatch):
    """Return a function that runs the command while workers are killed at the photo `3.png`."""
    Path("deaths").mkdir()

    def run(deaths, *arguments):
        monkeypatch.setattr(classifier, "load_classifier", lambda file: stand_in(deaths))
        return predict(*arguments)

    return run


@pytest.mark.slow
@pytest.mark.kills
def test_rows_are_those_of_the_plain_engine_though_a_worker_is_killed(killed, photos):
    names = [*photos, *(f"more/../{name}" for name in photos), "gone.png"]
    Path("more").mkdir()
    Path(photos[5]).write_bytes(b"")
    assert killed(0, *names, *JSONL, "--out", "plain").code == 3
    assert killed(1, *names, *RAY, 2, *JSONL, "--out", "rows").code == 3
    assert len(list(Path("deaths").iterdir())) == 1
    assert [row["file"] for row in rows_in("rows")] == names
    assert same_rows(rows_in("rows"), rows_in("plain"))


@pytest.mark.slow
@pytest.mark.kills
def test_photos_that_end_every_worker_are_named(killed):
    ended = killed(9, "3.png", *RAY, 1)
    assert ended.code == 2
    message = "4 workers died, one after the other, over the 1 photos from 3.png on"
    assert ended.err == f"error: {message}\n"
    assert len(list(Path("deaths").iterdir())) == 4


def write_tables(photos):
    """Write tables of some photos, and return the names of all: tables and photos."""
    for column, start in (("path", 2), ("file", 4)):
        names = photos[start : start + 2]
        content = [Path(name).read_bytes() for name in names]
        table = pa.table({"label": names, column: names, "bytes": content})
        parquet.write_table(table, f"{column}.parquet")
    return [*photos[:2], "path.parquet", "file.parquet", photos[6]]


@pytest.mark.slow
def test_rows_of_photos_and_tables_become_parts_with_the_columns_of_csv(ray, predict, photos):
    """The only test with a real classifier in a worker, which imports Keras for it."""
    Path(photos[1]).write_bytes(b"no photo")
    plain = predict(*photos, *JSONL).rows
    arguments = [*write_tables(photos), *RAY, 1, "--format", "parquet", "--out", "parts/"]
    ended = predict(*arguments)
    assert (ended.code, ended.out.splitlines()[1:]) == (
        3,
        ["saved parts/: 7 photos, 1 cannot be read"],
    )
    found = parquet.read_table("parts").sort_by("file")
    header = predict(photos[0], "--format", "csv").out.splitlines()[0]
    assert found.column_names == header.split(",")
    for part, row in zip(found.to_pylist(), plain, strict=True):
        assert (part["file"], part["reason"]) == (row["file"], row["reason"])
        assert part["probability"] == pytest.approx(row["probability"], abs=1e-5)
        top = row["top"] or [{"category": "", "probability": None}] * 3
        for rank, one in enumerate(top, 1):
            assert part[f"category_{rank}"] == one["category"]
            assert part[f"probability_{rank}"] == pytest.approx(one["probability"], abs=1e-5)
    assert "parts/ is not empty" in predict(*arguments).err


@pytest.mark.slow
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


# Tables and cloud storage.


def written(file, photos, *columns):
    table = pa.table({column: [b"a photo"] * photos for column in columns})
    parquet.write_table(table, file)
    return str(file)


def test_photos_of_tables_are_counted(tmp_path):
    path = written(tmp_path / "1.parquet", 3, "path", "bytes", "label")
    both = written(tmp_path / "2.PARQUET", 4, "path", "file", "bytes")
    assert prepare([path, "gone.jpg", both, path]) == [path, "gone.jpg", both]
    assert count_photos([path, "gone.jpg", both]) == 8


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
        (folder / name).write_bytes(PHOTO)
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
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
        ("nameless.parquet", "columns `bytes`, and .* with name, bytes$"),
        ("text.parquet", "^text.parquet cannot be read as a table: "),
        ("gone.parquet", "^gone.parquet cannot be read as a table: "),
    ],
)
def test_places_and_tables_that_cannot_be_read_are_errors(name, error, bucket):
    written("nameless.parquet", 3, "name", "bytes")
    Path("text.parquet").write_text("no table")
    with pytest.raises(InputError, match=error):
        prepare(["s3://shop/a.jpg", name])
    with pytest.raises(InputError, match="Received: empty.parquet without any photo"):
        prepare([written("empty.parquet", 0, "path", "bytes")])


def test_photos_of_cloud_storage_tables_and_files_are_read(bucket):
    expected = np.asarray(Image.open(io.BytesIO(PHOTO)))
    for photo in (("s3://shop/photos/a.png", None), ("x", PHOTO), ("photos/a.png", None)):
        np.testing.assert_array_equal(read_any(photo), expected)
    for photo, reason in [
        (("s3://shop/gone.jpg", None), r"^there is no such file \(a folder ends in `/`\)$"),
        (("s3://other/a.jpg", None), "^cannot be reached: no way to other. Credentials"),
        (("x", b""), "^empty file$"),
    ]:
        with pytest.raises(PhotoError, match=reason):
            read_any(photo)
