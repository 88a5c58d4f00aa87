"""The commands that are disturbed, each on a few drawn photos."""

import contextlib
import csv
import functools
import http.server
import json
import multiprocessing
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.data import download as source
from fashion_keras.data.prepare import prepare
from fashion_keras.data.sample import draw_sample
from tests.benchmarks import cheap_backbone
from tests.kills.commands import Job, in_a_process, run_module
from tuning import finalists, hyperband, results

# Never the same twice.
_TIMES = {"seconds", "sha256", "model_sha256", "run", "created"}
_CHUNK, _PAUSE = 4096, 0.005  # Of the slow download.


def _content(file: Path) -> Any:
    """Return the content of a file, without times."""
    if file.suffix == ".json":
        return _timeless(json.loads(file.read_text(encoding="utf-8")))
    with file.open(newline="", encoding="utf-8") as rows:
        return [_timeless(row) for row in csv.DictReader(rows)]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _places(folder: Path) -> list[str]:
    return ["--results", str(folder / "results"), "--cache", str(folder / "cache")]


def _contents(names: list[str], folder: Path) -> list[Any]:
    return [_content(folder / "results" / name) for name in names]


def _trials(folder: Path) -> Any:
    """Return what a search made."""
    names = ["trials.csv", "finalists.csv", "curves.csv", "best_config.json"]
    return _contents([f"search/{name}" for name in names], folder)


def _arrays(folder: Path) -> dict[str, bytes]:
    """Return all features and feature maps, as bytes."""
    files = sorted((folder / "cache" / "features").glob("*.npy"))
    return {file.name: np.load(file).tobytes() for file in files}


def _prepared(folder: Path) -> list[Any]:
    """Return the photos of the prepared folder: how each is listed, and its pixels."""
    (place,) = (path for path in (folder / "cache" / "prepared").iterdir() if path.suffix == "")
    rows = _content(place / "photos.csv")
    pixels = [Image.open(place / row["prepared"]).tobytes() for row in rows]
    return [rows, _content(place / "quarantine.csv"), pixels]


def _tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def jobs(place: Path) -> list[Job]:
    """Draw photos, and return the commands that are run on them.

    Args:
        place: Folder for what all of them need.
    """
    photos = draw_sample(place / "photos", {"train": 6, "validation": 2, "test": 4})
    model = str(place / "cheap.keras")
    in_a_process(lambda: cheap_backbone.save_classifier(Path(model)))
    common = ["--data", str(photos), "--image-size", "71", "--batch-size", "8", "--weights", model]
    search = [*common, "--max-epochs", "3", "--factor", "3"]
    final = [*common, "--learning-rate", "0.001", "--epochs", "12"]
    final += ["--fine-tuning-epochs", "3", "--fine-tune-from", "block13"]
    features = [*common, "--augmented-copies", "2", "--feature-maps", "--fine-tuning-copies", "1"]
    features += ["--fine-tune-from", "block13"]
    names = ["metrics.json", "predictions.csv", "history.csv"]
    scores = functools.partial(_contents, [f"final/{name}" for name in names])
    return [
        Job(
            "features",
            lambda folder: run_module(
                "fashion_keras.features", [*features, "--cache", str(folder / "cache")]
            ),
            _arrays,
        ),
        Job(
            "search",
            lambda folder: _search([*search, *_places(folder)]),
            _trials,
        ),
        Job(
            "workers",
            lambda folder: _search([*search, *_places(folder), "--workers", "2"]),
            _trials,
        ),
        Job(
            "final",
            lambda folder: run_module("fashion_keras.final", [*final, *_places(folder)]),
            scores,
        ),
        *_jobs_of_a_saved_file(model, photos),
    ]


def _jobs_of_a_saved_file(model: str, photos: Path) -> list[Job]:
    predict = [model, str(photos), "--format", "csv", "--batch-size", "4", "--resume"]
    return [
        Job(
            "predict",
            lambda folder: run_module(
                "fashion_keras.predict", [*predict, "--out", str(folder / "rows.csv")]
            ),
            lambda folder: _content(folder / "rows.csv"),
        ),
        Job(
            "export",
            lambda folder: run_module(
                "fashion_keras.export",
                [model, "--format", "openvino", "--out", str(folder / "clothes.xml")],
            ),
            _tree,
        ),
    ]


def _search(words: list[str]) -> None:
    """Run a search that trains less again at its end than usual."""
    finalists.SEEDS, hyperband.FINALISTS = 2, 2
    finalists.CURVES = results.CURVES = {"droprate": (0.0, 0.5)}
    run_module("tuning.search", words)


def prepare_job(place: Path) -> Job:
    """Return the preparing of photos of many kinds, without splits."""
    mixed = place / "mixed"
    drawn = draw_sample(place / "drawn", {"train": 12, "validation": 1, "test": 1}) / "train"
    for number, file in enumerate(sorted(drawn.rglob("*.jpg"))):
        target = mixed / file.parent.name / f"{number:03}"
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = ("jpg", "bmp", "png", "webp")[number % 4]
        with Image.open(file) as photo:
            mode = "RGBA" if kind == "png" else "RGB"
            photo.convert(mode).resize((200, 150)).save(target.with_suffix(f".{kind}"))
    (mixed / "hat" / "broken.jpg").write_bytes(b"no photo")
    return Job("prepare", lambda folder: _prepare(mixed, folder), _prepared)


def _prepare(mixed: Path, folder: Path) -> None:
    prepare(str(mixed), folder / "cache")


@contextlib.contextmanager
def download_job(place: Path) -> Iterator[Job]:
    """Yield the download of a small data set from a slow server on this computer."""
    photos = draw_sample(place / "repository" / "sample", {"train": 2, "validation": 1, "test": 1})
    archive = place / "served" / "photos.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(photos.rglob("*.jpg")):
            packed.write(file, file.relative_to(photos.parent))
    server = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(_SlowHandler, archive))
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/photos.zip"
    digest = source.photos_digest(photos)

    def run(folder: Path) -> None:
        source.ADDRESS, source.DIGEST = address, digest
        source.download_clothing(folder / "cache")

    def made(folder: Path) -> dict[str, bytes]:
        return _tree(next((folder / "cache").glob("clothing-dataset-small-*[0-9a-f]")))

    try:
        yield Job("download", run, made)
    finally:
        process.kill()
        process.join()
        shutil.rmtree(archive.parent)


class _SlowHandler(http.server.BaseHTTPRequestHandler):
    """Sends a file slowly, from where it is asked for."""

    def __init__(self, archive: Path, *args: Any) -> None:
        self._archive = archive
        super().__init__(*args)

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        content = self._archive.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        for place in range(start, len(content), _CHUNK):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content[place : place + _CHUNK])
            time.sleep(_PAUSE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Print nothing."""
