"""Tests of the options of `predict`: which of them go together."""

from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.options import check, options, writes_parts

RAY = ["--engine", "ray"]


def checked(*arguments: str) -> None:
    given = options().parse_args(["hat.jpg", *arguments])
    check(given, given.inputs)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--workers", "2"], "`--workers` is about Ray: add `--engine ray`"),
        (["--format", "parquet", "--out", "x"], "are written with `--engine ray`"),
        (["--format", "csv", "--out", "x/"], "are written with `--engine ray`"),
        (["--format", "csv", "--out", "gs://shop/x"], "are written with `--engine ray`"),
        (["s3://shop/a.jpg"], r"are read with `--engine ray`. Received: s3://shop/a\.jpg"),
        ([*RAY, "--format", "parquet"], "Received: --format parquet --out$"),
        ([*RAY, "--format", "json", "--out", "x/"], "Received: --format json --out x/$"),
        ([*RAY, "--out", "s3://shop/x"], "Received: --format table --out s3://shop/x$"),
        (
            [*RAY, "--format", "csv", "--out", "x/", "--resume"],
            "`--resume` does not go together with rows in several parts",
        ),
        (
            [*RAY, "--format", "csv", "--out", "x/", "--sort-into", "y"],
            "`--sort-into` does not go together with rows in several parts",
        ),
        (
            ["a.parquet", *RAY, "--out", "x", "--resume"],
            "`--resume` does not go together with tables of photos",
        ),
        (
            ["a.parquet", *RAY, "--sort-into", "y"],
            "`--sort-into` does not go together with tables of photos",
        ),
        (["s3://shop/a.jpg", *RAY, "--sort-into", "y"], "takes photos on this computer"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=error):
        checked(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [*RAY, "--workers", "2", "--out", "x", "--resume"],
        [*RAY, "--sort-into", "y", "--link"],
        ["s3://shop/a.jpg", "gs://shop/x/", *RAY, "--format", "json"],
        [*RAY, "--format", "csv", "--out", "s3://shop/x"],
        [*RAY, "--format", "parquet", "--out", "x"],
    ],
)
def test_others_go_together(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checked(*arguments)


@pytest.mark.parametrize("out", ["x/", "s3://shop/x"])
def test_a_folder_is_told_from_a_file(out: str) -> None:
    given = options().parse_args(["hat.jpg", "--out", out, "--format", "csv"])
    assert writes_parts(given)
    assert given.out == out
    given = options().parse_args(["hat.jpg", "--out", "x", "--format", "csv"])
    assert not writes_parts(given)
    assert given.out == Path("x")
