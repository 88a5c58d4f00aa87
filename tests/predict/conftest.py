"""A saved classifier, photos in the current folder, and the command, run in this process."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fashion_keras import classifier, cli
from fashion_keras.predict.__main__ import main
from tests.builders import save_strong


def same_rows(rows: list[dict], others: list[dict]) -> bool:
    """Return whether rows are equal; in other batches the last digits of probabilities differ."""

    def split(row: dict) -> tuple[tuple[str, ...], dict]:
        numbers = {one["category"]: one["probability"] for one in row["top"]}
        return (row["file"], row["category"], row["reason"]), numbers | {"": row["probability"]}

    close = [(texts, pytest.approx(numbers, abs=1e-5)) for texts, numbers in map(split, others)]
    return list(map(split, rows)) == close


def rows_in(file: str | Path) -> list[dict]:
    """Return the rows of a file of the format `jsonl`."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """Save a classifier of `LABELS` whose answers differ strongly from photo to photo."""
    return save_strong(tmp_path_factory.mktemp("model") / "our.keras")


@pytest.fixture(scope="session")
def load_once():
    """Load each classifier once for all tests."""
    return functools.cache(classifier.load_classifier)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> list[str]:
    """Write seven photos of different sizes and colours, and start in their folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        noise = np.random.default_rng(number).integers(0, 80, (60 + number, 110 - number, 3))
        Image.fromarray((noise + 25 * number).astype("uint8")).save(f"{number}.png")
    return [f"{number}.png" for number in range(7)]


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: Any
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """The rows that were written as `jsonl`."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(capsys) -> Callable[..., Ended]:
    """Return a function that runs the command."""

    def run(*arguments: Any) -> Ended:
        code: Any = 0
        try:
            cli.run(lambda: main([str(argument) for argument in arguments]))
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Ended(code, out, re.sub(r"\Aloading .+; photos: \d+\n", "", err))

    return run


@pytest.fixture
def predict(run, model_file, photos, load_once, monkeypatch) -> Callable[..., Ended]:
    """Return a function that runs the command with the saved classifier."""
    monkeypatch.setattr(classifier, "load_classifier", load_once)
    return functools.partial(run, model_file)
