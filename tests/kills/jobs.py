"""The commands that are disturbed, each on a few drawn photos."""

import contextlib
import csv
import functools
import http.server
import json
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from fashion_keras.config import Config
from fashion_keras.data import download as source
from fashion_keras.data.prepare import prepare
from fashion_keras.data.sample import draw_sample
from tests.benchmarks import cheap_backbone
from tests.kills.commands import PROCESSES, Job, run_module
from tuning import finalists, hyperband, results

_FOLDERS = "--results FOLDER/results --cache FOLDER/cache"
_TIMES = {"seconds", "sha256", "model_sha256", "run", "created"}  # Never the same twice.


def jobs(place: Path) -> list[Job]:
    """Draw photos, and return the commands that are run on them.

    Args:
        place: Folder for what all of them need.
    """
    photos = draw_sample(place / "photos", {"train": 6, "validation": 2, "test": 4})
    model = place / "cheap.keras"
    # In another process: a copy of one that has used TensorFlow stands still.
    saving = PROCESSES.Process(target=cheap_backbone.save_classifier, args=(model,))
    saving.start()
    saving.join()
    # A search trains less again at its end than usual.
    finalists.SEEDS, hyperband.FINALISTS = 2, 2
    finalists.CURVES = results.CURVES = {"droprate": (0.0, 0.5)}
    base = f"--data {photos} --image-size 71 --feature-batch-size 8 --weights {model}"
    common, tuned = f"{base} --batch-size 8", "--fine-tune-from block13"
    features = f"{base} {tuned} --augmented-copies 2 --feature-maps --fine-tuning-copies 1"
    search = f"tuning.search --stage head {common} --max-epochs 3 --factor 3 {_FOLDERS}"
    final = f"{common} {tuned} --learning-rate 0.001 --epochs 12 --fine-tuning-epochs 3 {_FOLDERS}"
    predict = f"{model} {photos} --format csv --batch-size 4 --resume --out FOLDER/rows.csv"
    export = f"{model} --format openvino --out FOLDER/clothes.xml"
    trials = _rows("results/search", "trials.csv finalists.csv curves.csv best_config.json")
    scores = _rows("results/final", "metrics.json predictions.csv history.csv")
    mixed, prepared = _mixed(place), _files("cache/prepared/[!.]*/**/*")
    return [
        _job("features", f"fashion_keras.features {features} --cache FOLDER/cache",
             _files("cache/features/*.npy")),
        _job("search", f"{search} --workers 1", trials),
        _job("workers", f"{search} --workers 2", trials),
        _job("final", f"fashion_keras.final {final}", scores),
        _job("predict", f"fashion_keras.predict {predict}", _rows(".", "rows.csv")),
        _job("export", f"fashion_keras.export {export}", _files("**/*")),
        Job("prepare", lambda folder: prepare(Config(data=str(mixed)), folder / "cache"), prepared),
        _download(place),
    ]  # fmt: skip


def _job(name: str, line: str, made: Callable[[Path], Any]) -> Job:
    def run(folder: Path) -> None:
        run_module(*shlex.split(line.replace("FOLDER", str(folder))))

    return Job(name, run, made)


def _files(pattern: str) -> Callable[[Path], dict[str, bytes]]:
    """Return a function from a folder to the bytes of the files in it."""
    return lambda folder: {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.glob(pattern)
        if file.is_file()
    }


def _rows(place: str, names: str) -> Callable[[Path], list[Any]]:
    """Return a function from a folder to the content of CSV and JSON files, without times."""
    return lambda folder: [_content(folder / place / name) for name in names.split()]


def _content(file: Path) -> Any:
    with file.open(newline="", encoding="utf-8") as text:
        return _timeless(json.load(text) if file.suffix == ".json" else list(csv.DictReader(text)))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _mixed(place: Path) -> Path:
    """Draw photos of many kinds, without splits."""
    drawn = draw_sample(place / "drawn", {"train": 12, "validation": 1, "test": 1}) / "train"
    for number, file in enumerate(sorted(drawn.rglob("*.jpg"))):
        target = place / "mixed" / file.parent.name / f"{number:03}"
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = ("jpg", "bmp", "png", "webp")[number % 4]
        with Image.open(file) as photo:
            mode = "RGBA" if kind == "png" else "RGB"
            photo.convert(mode).resize((200, 150)).save(target.with_suffix(f".{kind}"))
    (place / "mixed" / "hat" / "broken.jpg").write_bytes(b"no photo")
    return place / "mixed"


def _download(place: Path) -> Job:
    """Return the download of a small data set from a slow server on this computer."""
    photos = draw_sample(place / "repository" / "sample", {"train": 2, "validation": 1, "test": 1})
    archive = shutil.make_archive(str(place / "photos"), "zip", photos.parent, "sample")
    handler = functools.partial(_SlowHandler, directory=str(place))
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    PROCESSES.Process(target=server.serve_forever, daemon=True).start()
    source.ADDRESS = f"http://127.0.0.1:{server.server_address[1]}/{Path(archive).name}"
    source.DIGEST = source.photos_digest(photos)
    made = _files("cache/clothing-dataset-small-*/**/*")
    return Job("download", lambda folder: source.download_clothing(folder / "cache"), made)


class _SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Sends files slowly."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while content := source.read(4096):
                outputfile.write(content)
                time.sleep(0.005)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Print nothing."""
