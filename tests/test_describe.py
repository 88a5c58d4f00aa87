"""Tests of the card as lines for people and as JSON, without loading the model."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.describe import lines_of, main
from fashion_keras.inspection import name_of, read_card

RELEASED = Path(__file__).parents[1] / "fashion_keras" / "released" / "fashion.keras"
NEEDED = {"format": 1, "labels": ["dress", "Schuhe für Kinder", "t-shirt"], "image_size": 299}
CARD = NEEDED | {
    "created": "2026-11-22T22:58:55+00:00",
    "versions": {"fashion_keras": "0.1.0", "keras": "3.15.1"},
    "backbone": "xception",
    "data": {
        "name": "clothing-dataset-small",
        "fingerprint": "2dc8736d9bfac5bd" + 48 * "0",
        "photos": {"train": 3068, "validation": 341},
    },
    "validation": {"loss": 0.66, "accuracy": 0.92669},
    "licences": {"data": "CC0-1.0", "weights": "MIT"},
    "test": {
        "accuracy": 356 / 372,
        "accuracy_interval": [0.93128, 0.97335],
        "correct": 356,
        "photos": 372,
    },
}
LINES = """\
categories  3: dress, Schuhe für Kinder, t-shirt
photos      any size; the model resizes them to 299 pixels a side
backbone    xception
trained on  clothing-dataset-small: 3068 train, 341 validation (fingerprint 2dc8736d9bfac5bd)
validation  accuracy 92.7 %
test        accuracy 95.7 % (356 of 372 photos, 95 % interval 93.1 to 97.3 %)
created     2026-11-22T22:58:55+00:00
versions    fashion_keras 0.1.0, keras 3.15.1
licences    data CC0-1.0, weights MIT"""


def write(file: Path, card: dict) -> Path:
    """Write a file that holds a card and nothing else of a model."""
    config = {"config": {"layers": [{"config": {"name": name_of(card)}}]}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return file


def test_whole_card_becomes_a_line_for_each_fact() -> None:
    assert "\n".join(lines_of(CARD)) == LINES


def test_facts_that_are_not_known_are_left_out() -> None:
    assert lines_of(NEEDED) == LINES.splitlines()[:2]
    assert lines_of(NEEDED | {"versions": {}, "data": {}, "backbone": ""}) == lines_of(NEEDED)


@pytest.mark.parametrize("fact", sorted(CARD.keys() - NEEDED.keys()))
def test_each_fact_has_its_own_line(fact: str) -> None:
    without = lines_of({name: value for name, value in CARD.items() if name != fact})
    assert len(without) == len(lines_of(CARD)) - 1
    assert set(without) < set(lines_of(CARD))


def test_command_prints_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write(tmp_path / "our.keras", CARD))])
    assert capsys.readouterr() == (LINES + "\n", "")


def test_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", str(write(tmp_path / "our.keras", CARD))])
    assert json.loads(capsys.readouterr().out) == CARD


def test_released_file_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(RELEASED)])
    names = [line[:12].strip() for line in capsys.readouterr().out.splitlines()]
    assert names == [line[:12].strip() for line in LINES.splitlines()]


def test_letters_that_would_steer_a_terminal_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b]0;title\x07 two\nlines \udcff \u202e über 服"
    main([str(write(tmp_path / "our.keras", NEEDED | {"backbone": evil}))])
    line = capsys.readouterr().out.splitlines()[2]
    assert line == (r"backbone    \x1b[2J\x1b]0;title\x07 two\nlines \udcff \u202e über 服")


@pytest.mark.parametrize(
    "facts",
    [
        {"test": {"accuracy": 0.9}},
        {"test": {"accuracy": "high", "accuracy_interval": [0, 1], "correct": 1, "photos": 1}},
        {"test": CARD["test"] | {"accuracy_interval": [0.5]}},
        {"test": [1]},
        {"validation": 0.9},
        {"data": "photos"},
        {"data": {"name": "photos", "fingerprint": None, "photos": {}}},
        {"versions": ["keras"]},
        {"backbone": 3},
    ],
)
def test_card_of_another_form_is_refused(
    facts: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "our.keras", NEEDED | facts)
    with pytest.raises(InputError, match=r"^The card of .*our\.keras is not of the form") as caught:
        main([str(file)])
    assert "\n" not in str(caught.value)
    main([str(file), "--json"])
    assert json.loads(capsys.readouterr().out) == read_card(file)


def test_missing_file_ends_with_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: main([str(tmp_path / "gone.keras")]))
    out, error = capsys.readouterr()
    assert (caught.value.code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: No model file {tmp_path / 'gone.keras'}; ")


def test_command_runs_as_a_program(tmp_path: Path) -> None:
    file = write(tmp_path / "our.keras", CARD)
    done = subprocess.run(
        [sys.executable, "-m", "fashion_keras.describe", str(file)],
        capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONUTF8": "1"}, check=True,
    )  # fmt: skip
    assert done.stdout == LINES + "\n"
