"""Tests of the options of `predict`: each changes something, and which of them go together."""

import sys
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.options import check, options
from tests.builders import options_of

RAY = ["--engine", "ray"]
# For each option: arguments without it, and arguments with it.
CHANGES = {
    "inputs": ([], ["1.png"]),
    "--model": ([], ["--model", "imagenet"]),  # Two models.
    "--format": ([], ["--format", "csv"]),
    "--top": ([], ["--top", "1"]),
    "--threshold": ([], ["--threshold", "1"]),
    "--out": ([], ["--out", "rows"]),
    "--resume": (["--out", "left"], ["--out", "left", "--resume"]),
    "--sort-into": ([], ["--sort-into", "sorted"]),
    "--link": (["--sort-into", "sorted"], ["--sort-into", "sorted", "--link"]),
    "--engine": ([], RAY),  # Without Ray; what it does is in test_ray_data.py.
    "--workers": ([], ["--workers", "2"]),  # The same.
    "--batch-size": ([], ["--batch-size", "1"]),
}


@pytest.mark.parametrize("option", options_of(options()))
def test_every_option_changes_the_output(option, predict, load_once, model_file, monkeypatch):
    """Compare exit code, text, files and the sizes of batches."""
    # Neither Ray nor the module that has imported it already.
    monkeypatch.setitem(sys.modules, "fashion_keras.predict.ray_data", None)
    monkeypatch.delattr("fashion_keras.predict.ray_data", raising=False)
    Path(".left.unfinished").touch()
    model, batches = load_once(model_file).model, []
    call = type(model).predict_on_batch
    monkeypatch.setattr(
        type(model),
        "predict_on_batch",
        lambda self, pixels: batches.append(len(pixels)) or call(self, pixels),
    )

    def outcome(arguments):
        batches.clear()
        before = set(Path().rglob("*"))
        ended = predict("0.png", "2.png", *arguments)
        files = set(Path().rglob("*")) - before
        links = {file.is_symlink() for file in files if file.is_file()}
        for file in sorted(files, reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        return ended.code, ended.out.replace("link", ""), ended.err, files, links, list(batches)

    without, with_option = CHANGES[option]
    assert outcome(with_option) != outcome(without)


def checked(*arguments):
    given = options().parse_args(["hat.jpg", *arguments])
    check(given, given.inputs)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--resume"], "`--resume` continues a file: give its name with"),
        (["--link"], "`--link` is an option of sorting: give a folder with"),
        (["http://a.b/c", "--sort-into", "s"], "photos on this computer. Received: http://a.b/c"),
        (["--workers", "2"], "`--workers` is an option of Ray: add `--engine ray`"),
        (["--format", "parquet", "--out", "x"], "are written with `--engine ray`"),
        (["--format", "csv", "--out", "x/"], "are written with `--engine ray`"),
        (["s3://shop/a.jpg"], r"is read with `--engine ray`. Received: s3://shop/a\.jpg"),
        ([*RAY, "--format", "parquet"], "Received: --format parquet --out$"),
        ([*RAY, "--format", "json", "--out", "x/"], "Received: --format json --out x/$"),
        ([*RAY, "--out", "s3://shop/x"], "Received: --format table --out s3://shop/x$"),
        ([*RAY, "--format", "csv", "--out", "x/", "--resume"], "rows in several files"),
        ([*RAY, "--format", "csv", "--out", "x/", "--sort-into", "y"], "`--sort-into` does not go"),
        (["a.parquet", *RAY, "--out", "x", "--resume"], "together with tables of photos"),
        (["a.parquet", *RAY, "--sort-into", "y"], "together with tables of photos"),
        (["s3://shop/a.jpg", *RAY, "--sort-into", "y"], "takes photos on this computer"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=error):
        checked(*arguments)


def test_others_go_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked(*RAY, "--workers", "2", "--out", "x", "--resume", "--sort-into", "y", "--link")
    checked("s3://shop/a.jpg", "gs://shop/x/", "a.parquet", *RAY, "--format", "json")
    checked(*RAY, "--format", "csv", "--out", "s3://shop/x")
    checked(*RAY, "--format", "parquet", "--out", str(tmp_path))
