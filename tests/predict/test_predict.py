"""Tests of the predict command: what it takes, what comes out, and what a kill leaves."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fashion_keras import classifier as classifier_module
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.data.photo import read_photo
from fashion_keras.predict import __main__ as command
from tests.builders import LABELS, alone, encoded, picture
from tests.predict.conftest import same_rows
from tests.predict.test_rows import read_back

ROOT = Path(__file__).parents[2]
JSONL = ("--format", "jsonl")


def rows_in(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


# What comes out.


def test_each_photo_is_a_row_in_the_order_given(predict, photos, model_file):
    ended = predict(*photos[::-1], *JSONL)
    assert (ended.code, ended.err) == (0, "")
    assert [row["file"] for row in ended.rows] == photos[::-1]
    model = load_classifier(model_file)
    for row in ended.rows:
        expected = alone(model, read_photo(Path(row["file"])).pixels)
        best = np.argsort(-expected)[:3]
        assert [one["category"] for one in row["top"]] == [LABELS[number] for number in best]
        found = [one["probability"] for one in row["top"]]
        np.testing.assert_allclose(found, expected[best], atol=1e-5)
        assert (row["category"], row["probability"]) == (row["top"][0]["category"], found[0])


def test_progress_is_shown_on_a_terminal_where_rows_are_not(predict, photos, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = predict(*photos, *JSONL)
    assert len(ended.rows) == 7
    assert "photos: " in ended.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predict(*photos).err == ""


# What it takes.


def test_files_folders_patterns_and_lists_can_be_mixed(predict, photos, monkeypatch):
    Path("folder/below").mkdir(parents=True)
    Path(photos[0]).rename("folder/below/0.png")
    Path(photos[1]).rename("folder/b[1].png")
    monkeypatch.setattr(sys, "stdin", io.StringIO("2.png\n\n[34].png\nfolder\n"))
    ended = predict("5.png", "-", "folder/**/*.png", "folder/b[1].png", *JSONL)
    expected = ["5.png", "2.png", "3.png", "4.png", "folder/b[1].png", "folder/below/0.png"]
    assert [row["file"] for row in ended.rows] == expected
    assert ended.code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("kind", ["table", "csv", "json", "jsonl"])
def test_name_that_is_not_utf_8_comes_back_as_it_is(kind, predict, monkeypatch):
    name = b"\xff\xe4.jpg"
    Path("3.png").rename(os.fsdecode(name))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\n"), encoding="utf-8"))
    assert predict("-", "--format", kind, "--out", "rows").code == 0
    expected = json.dumps(os.fsdecode(name)).encode() if "json" in kind else name
    assert expected in Path("rows").read_bytes()


@pytest.mark.slow
def test_without_a_model_the_released_one_is_used(run, photos):
    [row] = run("0.png", *JSONL, "--top", 10).rows
    labels = sorted(one["category"] for one in row["top"])
    assert labels[:2] == ["dress", "hat"]
    assert len(labels) == 10


# Exit codes.


WRONG_USE = {
    "no input": ([], "the following arguments are required: INPUT"),
    "model alone": (["my.keras"], "error: Expected photos or folders after the model. Received: "),
    "imagenet alone": (["imagenet"], "Received: imagenet alone"),
    "top 0": (["0.png", "--top", "0"], "--top: expected a whole number from 1 on. Received: 0"),
    "threshold": (["0.png", "--threshold", "nan"], "expected a number from 0 to 1. Received: nan"),
    "empty list": (["-"], "error: Expected names of photos on standard input, one a line."),
    "no folder": (["0.png", "--out", "gone/rows"], "error: No folder gone for rows: create it"),
    "unfinished": (["0.png", "--out", "left"], "error: An earlier run left .left.unfinished."),
    "photo": (["0.png", "1.png", "--out", "1.png"], "error: `--out` would replace 1.png, which is"),
    "missing": (["gone.keras", "0.png", "--out", "rows"], "error: No model file gone.keras"),
}


@pytest.mark.parametrize("use", WRONG_USE)
def test_wrong_use_ends_with_2_and_changes_nothing(use, run, photos, monkeypatch):
    Path(".left.unfinished").touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    arguments, error = WRONG_USE[use]
    ended = run(*arguments)
    assert (ended.code, ended.out, ended.err.count("error: ")) == (2, "", 1)
    assert error in ended.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_help_is_a_manual_page_and_imports_no_keras():
    code = "import sys; from fashion_keras.predict.__main__ import main\ntry: main(['--help'])\n"
    code += "finally: sys.exit('keras' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith("usage: python -m fashion_keras.predict [-h]")
    assert "Exit code: 0 if all photos could be read, 3 if some could not, 2 for" in ended.stdout


# Writing to a file.


@pytest.mark.parametrize("kind", ["table", "csv", "json", "jsonl"])
def test_file_holds_what_would_be_printed(kind, predict, photos):
    Path(photos[1]).write_bytes(b"")
    Path("rows").write_text("before")
    ended = predict(*photos, "--format", kind, "--out", "rows")
    assert ended.code == 3
    assert "photos to rows: " in ended.out
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")
    printed, written = predict(*photos, "--format", kind).out, Path("rows").read_text()
    assert len(printed.splitlines()) == len(written.splitlines())
    assert "1.png" in written
    if "json" in kind:
        assert same_rows(read_back(written, kind), read_back(printed, kind))
    assert list(Path().glob(".*")) == []


def break_off_after(rows, error, monkeypatch):
    """Let the run fail when so many rows were predicted."""
    row_of, done = command.row_of, []

    def fail(*arguments):
        done.append(arguments)
        if len(done) > rows:
            raise error
        return row_of(*arguments)

    monkeypatch.setattr(command, "row_of", fail)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)]
)
def test_interrupted_run_is_continued_without_doing_a_photo_twice(
    error, code, predict, photos, monkeypatch
):
    Path(photos[0]).write_bytes(b"")
    arguments = [*photos, *JSONL, "--out", "rows", "--sort-into", "sorted"]
    undisturbed = predict(*photos, *JSONL).rows
    Path("rows").write_text("before")
    with monkeypatch.context() as patch:
        break_off_after(4, error, patch)
        assert predict(*arguments).code == code
    assert Path("rows").read_text() == "before"
    assert predict(*arguments).code == 2  # Refused: the rows that are there would be lost.
    for name in photos[:4]:
        Path(name).unlink()
    ended = predict(*arguments, "--resume")
    assert (ended.code, ended.err) == (3, "")
    assert ended.out.startswith("continuing: 4 photos were done before\n")
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")
    assert same_rows(rows_in("rows"), undisturbed)
    assert sorted(file.name for file in Path("sorted").glob("*/*")) == photos[1:]


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_killed_process_is_continued(predict, model_file, photos):
    Path("archive").mkdir()
    for number in range(400):
        os.link(photos[number % 7], f"archive/{number:03}.png")
    rows, unfinished = Path("rows"), Path(".rows.unfinished")
    rows.write_text("before")
    arguments = ["archive", *JSONL, "--batch-size", "1", "--out", "rows"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fashion_keras.predict", str(model_file), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    end = time.monotonic() + 120
    while not unfinished.exists() or unfinished.read_bytes().count(b"\n") < 40:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, "no row was kept within two minutes"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert rows.read_text() == "before"
    done = unfinished.read_bytes().count(b"\n") - 1
    ended = predict(*arguments, "--resume")
    assert f"continuing: {done} photos were done before\n" in ended.out
    assert [row["file"] for row in rows_in(rows)] == [f"archive/{n:03}.png" for n in range(400)]
    assert same_rows(rows_in(rows), predict("archive", *JSONL).rows)
    assert not unfinished.exists()


# Sorting.


def sorted_files():
    files = (path for path in Path("sorted").rglob("*") if not path.is_dir())
    return {path.relative_to("sorted").as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("link", [[], ["--link"]])
def test_photos_are_sorted_into_folders_of_their_categories(link, predict, photos):
    Path(photos[2]).write_bytes(b"no photo")
    arguments = [*photos, "--sort-into", "sorted", *link, *JSONL]
    ended = predict(*arguments)
    expected = {
        f"{row['category']}/{row['file']}": Path(row["file"]).read_bytes()
        for row in ended.rows
        if not row["reason"]
    }
    assert ended.code == 3
    assert len(expected) == 6
    assert len({name.split("/")[0] for name in expected}) > 1
    assert sorted_files() == expected
    assert {path.is_symlink() for path in Path("sorted").glob("*/*")} == {bool(link)}
    predict(*arguments)  # Once more changes nothing.
    assert sorted_files() == expected


def test_bad_labels_are_refused_only_for_sorting(predict, load_once, model_file, monkeypatch):
    metadata = load_once(model_file).metadata | {"labels": [*LABELS[:3], "../x"]}
    bad = Classifier(load_once(model_file).model, metadata)
    monkeypatch.setattr(classifier_module, "load_classifier", lambda file: bad)
    ended = predict("0.png", "--sort-into", "sorted", "--out", "rows")
    assert ended.code == 2
    assert "'../x'" in ended.err
    assert not Path("sorted").exists()
    assert predict("0.png").code == 0


# Unusual photos.


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_photo_of_any_mode_is_predicted_as_it_is_shown(mode, predict, model_file):
    photo = picture().convert(mode)
    Path("photo.tif").write_bytes(encoded(photo, "TIFF"))
    [row] = predict("photo.tif", *JSONL, "--top", 9).rows
    expected = alone(load_classifier(model_file), np.asarray(photo.convert("RGB")))
    found = {one["category"]: one["probability"] for one in row["top"]}
    assert found == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)


def test_what_is_no_photo_is_a_row_with_its_reason(predict):
    Path("unusual").mkdir()
    Path("unusual/empty.jpg").touch()
    Path("unusual/half.jpg").write_bytes(encoded(picture(), "JPEG")[:1500])
    Path("unusual/link.jpg").symlink_to("nothing.jpg")
    Path("nothing/in").mkdir(parents=True)
    ended = predict("unusual", "nothing", "*.gif", *JSONL)
    found = {Path(row["file"]).name: row for row in ended.rows}
    assert ended.code == 3
    assert {(row["category"], len(row["top"])) for row in ended.rows} == {("", 0)}
    assert found["empty.jpg"]["reason"] == "empty file"
    assert found["half.jpg"]["reason"].startswith("damaged: image file is truncated")
    assert found["link.jpg"]["reason"] == "a link to a file that does not exist"
    assert found["nothing"]["reason"] == "a folder without files"
    assert found["*.gif"]["reason"] == "no file matches this pattern"
