"""Tests of metadata as lines for people and as JSON, without loading the model."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import RELEASED, InputError
from fashion_keras.describe import lines_of, main
from fashion_keras.inspection import layer_name, read_metadata
from tests.builders import python

NEEDED = {"format": 1, "labels": ["dress", "Schuhe für Kinder", "t-shirt"], "image_size": 299}
METADATA: dict[str, Any] = NEEDED | {
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
    "test": {"accuracy": 0.957, "accuracy_interval": [0.931, 0.973], "correct": 356, "photos": 372},
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


def write(file: Path, metadata: dict) -> Path:
    """Write a file that holds metadata and nothing else of a model."""
    config = {"config": {"layers": [{"config": {"name": layer_name(metadata)}}]}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return file


def test_released_file_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(RELEASED)])
    names = [line[:12].strip() for line in capsys.readouterr().out.splitlines()]
    assert names == [line[:12].strip() for line in LINES.splitlines()]
    assert lines_of(NEEDED) == LINES.splitlines()[:2]


def test_cross_validation_is_a_line_with_what_was_measured():
    crossed = METADATA["test"] | {"measured": "the head"}
    line = lines_of(NEEDED | {"cross_validation": crossed})[2]
    assert line == LINES.splitlines()[5].replace("test ", "folds") + ": the head"


def test_letters_that_would_control_a_terminal_are_escaped(tmp_path, capsys):
    evil = "\x1b[2J\x1b]0;title\x07 two\nlines \udcff \u202e über 服"
    main([str(write(tmp_path / "our.keras", NEEDED | {"backbone": evil}))])
    line = capsys.readouterr().out.splitlines()[2]
    assert line == (r"backbone    \x1b[2J\x1b]0;title\x07 two\nlines \udcff \u202e über 服")


@pytest.mark.parametrize(
    "wrong", [{"test": {"accuracy": 0.9}}, {"validation": 0.9}, {"versions": ["keras"]}]
)
def test_metadata_in_another_form_are_refused(wrong, tmp_path, capsys):
    file = write(tmp_path / "our.keras", NEEDED | wrong)
    with pytest.raises(InputError, match=r"^The metadata of .*our\.keras are not in the form"):
        main([str(file)])
    main([str(file), "--json"])
    assert json.loads(capsys.readouterr().out) == read_metadata(file)


def test_command_runs_as_a_program_without_keras(tmp_path: Path) -> None:
    file = write(tmp_path / "our.keras", METADATA)
    program = (
        "import sys; from fashion_keras.describe import main; main(sys.argv[1:]);"
        "assert not {'keras', 'tensorflow', 'sklearn'} & sys.modules.keys()"
    )
    done = python("-X", "utf8", "-c", program, str(file))
    assert done.stdout == LINES + "\n"
