"""A saved classifier, photos in the current folder, and the command, run in this process."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fashion_keras import classifier, cli
from fashion_keras.config import Config
from fashion_keras.model import build_head
from fashion_keras.predict.__main__ import main
from fashion_keras.saving import save_classifier
from tests.builders import LABELS
from tests.conftest import normalised_backbone


def same_rows(rows: list[dict], others: list[dict]) -> bool:
    """Return whether rows are equal; in other batches the last digits of probabilities differ."""

    def comparable(row: dict) -> dict:
        close = {one["category"]: pytest.approx(one["probability"], abs=1e-5) for one in row["top"]}
        best = row["probability"]
        return row | {"top": close, "probability": best and pytest.approx(best, abs=1e-5)}

    plain = [
        row | {"top": {one["category"]: one["probability"] for one in row["top"]}} for row in rows
    ]
    return plain == [comparable(row) for row in others]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """Save a classifier of `LABELS` whose answers differ strongly from photo to photo."""
    backbone = normalised_backbone()  # It sets the random seed, for the head, too.
    head = build_head(Config(inner_size=16), len(LABELS))
    head.set_weights([weight * 4 for weight in head.get_weights()])
    file = tmp_path_factory.mktemp("model") / "our.keras"
    save_classifier(backbone, head, LABELS, 71, file)
    return file


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
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def predict(run, model_file, photos, load_once, monkeypatch) -> Callable[..., Ended]:
    """Return a function that runs the command with the saved classifier."""
    monkeypatch.setattr(classifier, "load_classifier", load_once)
    return functools.partial(run, model_file)
