"""Tests of the predict command: what it takes, what comes out, and what a kill leaves."""

import csv
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fashion_keras import cli
from fashion_keras.classifier import Classifier, load_classifier
from fashion_keras.config import Config
from fashion_keras.data.photo import read_photo
from fashion_keras.model import build_head
from fashion_keras.predict.__main__ import main
from fashion_keras.predict.web import WebError
from fashion_keras.saving import save_classifier
from tests.builders import LABELS, alone, encoded, picture, strong_classifier
from tests.conftest import normalised_backbone
from tests.predict.test_rows import parsed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return strong_classifier()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write seven photos of different sizes and colours, and start in their folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        noise = np.random.default_rng(number).integers(0, 80, (60 + number, 110 - number, 3))
        Image.fromarray((noise + 25 * number).astype("uint8")).save(f"{number}.png")
    return [f"{number}.png" for number in range(7)]


@pytest.fixture
def loaded(
    classifier: Classifier, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Let the command use a classifier in memory; return the names of models it asks for."""
    asked = []

    def load(model: str) -> Classifier:
        asked.append(model)
        return classifier

    released = tmp_path / "released.keras"
    released.write_text("a model")
    monkeypatch.setattr("fashion_keras.predict.__main__.RELEASED", released)
    monkeypatch.setattr("fashion_keras.predict.__main__.load", load)
    return asked


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: Any
    out: str
    err: str


@pytest.fixture
def predict(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return what runs the command."""

    def run(*arguments: str) -> Ended:
        code: Any = 0
        try:
            cli.run(lambda: main(list(arguments)))
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return run


Predict = Callable[..., Ended]


def rows_of(ended: Ended) -> list[dict]:
    return [json.loads(line) for line in ended.out.splitlines()]


def rows_in(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same_rows(rows: list[dict], others: list[dict]) -> None:
    """Compare rows; batches of other sizes may change the last digits of a probability."""
    for one, other in zip(rows, others, strict=True):
        for name in ("file", "category", "reason"):
            assert one[name] == other[name]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        told, others_told = (
            {each["category"]: each["probability"] for each in row["top"]} for row in (one, other)
        )
        assert told == pytest.approx(others_told, abs=1e-5)


# What comes out.


def test_each_photo_is_a_row_in_the_order_given(
    predict: Predict, photos: list[str], classifier: Classifier
) -> None:
    ended = predict(*photos[::-1], "--format", "jsonl")
    assert (ended.code, ended.err) == (0, "")
    rows = rows_of(ended)
    assert [row["file"] for row in rows] == photos[::-1]
    for row in rows:
        expected = alone(classifier, read_photo(Path(row["file"])).pixels)
        best = np.argsort(-expected)[:3]
        assert [one["category"] for one in row["top"]] == [LABELS[number] for number in best]
        found = [one["probability"] for one in row["top"]]
        np.testing.assert_allclose(found, expected[best], atol=1e-5)
        assert (row["category"], row["probability"]) == (row["top"][0]["category"], found[0])


def test_every_format_tells_the_same(predict: Predict, photos: list[str]) -> None:
    Path(photos[2]).write_bytes(b"")
    ended = {kind: predict(*photos, "--format", kind) for kind in ("csv", "json", "jsonl")}
    rows = {kind: parsed(found.out, kind, 3) for kind, found in ended.items()}
    assert rows["csv"] == rows["json"] == rows["jsonl"]
    assert [row["reason"] for row in rows["csv"]] == ["", "", "empty file", "", "", "", ""]
    assert {found.code for found in ended.values()} == {3}


def test_profile_tells_where_the_time_went_and_leaves_the_rows_alone(
    predict: Predict, photos: list[str]
) -> None:
    ended = predict(*photos, "--format", "jsonl", "--profile", "profile.json")
    assert len(rows_of(ended)) == len(photos)
    stages = json.loads(Path("profile.json").read_text(encoding="utf-8"))["stages"]
    assert stages["predict"].keys() == {"decode", "forward", "I/O", "other"}
    assert ended.err.startswith("stage ")


def test_table_is_what_comes_if_nothing_is_said(predict: Predict, photos: list[str]) -> None:
    Path(photos[0]).rename("a longer name.png")
    ended = predict("1.png", "a longer name.png", "gone.png")
    assert predict("1.png", "a longer name.png", "gone.png", "--format", "table") == ended
    first, second, gone = ended.out.splitlines()
    assert first[:31] == "1.png              " + first[19:31]
    assert {line[17:19] for line in (first, second, gone)} == {"  "}
    assert gone[19:] == "cannot be read: cannot be opened: No such file or directory"
    [row] = rows_of(predict("1.png", "--format", "jsonl"))
    told = [f"{one['category']} {one['probability']:.3f}" for one in row["top"]]
    expected = f"{row['category']:<12} {row['probability']:.3f}  ({told[1]}, {told[2]})"
    assert first[19:] == expected


@pytest.mark.parametrize(("top", "told"), [("1", 1), ("2", 2), ("4", 4), ("9", 4)])
def test_as_many_categories_are_told_as_asked_for(top: str, told: int, predict: Predict) -> None:
    [row] = rows_of(predict("0.png", "--format", "jsonl", "--top", top))
    assert len(row["top"]) == told
    [values] = csv.DictReader(io.StringIO(predict("0.png", "--format", "csv", "--top", top).out))
    assert len(values) == 4 + 2 * told


def test_below_the_threshold_photos_are_uncertain(predict: Predict, photos: list[str]) -> None:
    before = rows_of(predict(*photos, "--format", "jsonl"))
    middle = sorted(row["probability"] for row in before)[3]
    after = rows_of(predict(*photos, "--format", "jsonl", "--threshold", repr(middle)))
    assert sum(row["category"] == "uncertain" for row in after) == 3
    certain = [row["probability"] >= middle for row in before]
    expected = [
        row | {"category": row["category"] if sure else "uncertain"}
        for row, sure in zip(before, certain, strict=True)
    ]
    assert_same_rows(after, expected)


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_batches_change_nothing(batch_size: str, predict: Predict, photos: list[str]) -> None:
    arguments = [*photos, "--format", "jsonl"]
    before = rows_of(predict(*arguments))
    after = rows_of(predict(*arguments, "--batch-size", batch_size))
    assert_same_rows(before, after)


def test_progress_is_shown_on_a_terminal_where_rows_are_not(
    predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = predict(*photos, "--format", "jsonl")
    assert len(rows_of(ended)) == 7
    assert "photos: 7 in " in ended.err
    assert "/s)" in ended.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predict(*photos).err == ""


# What it takes.


def test_files_folders_patterns_and_lists_can_be_mixed(
    predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder/below").mkdir(parents=True)
    Path(photos[0]).rename("folder/below/0.png")
    Path(photos[1]).rename("folder/b[1].png")
    monkeypatch.setattr(sys, "stdin", io.StringIO("2.png\n\n[34].png\nfolder\n"))
    ended = predict("5.png", "-", "folder/**/*.png", "folder/b[1].png", "--format", "jsonl")
    expected = ["5.png", "2.png", "3.png", "4.png", "folder/b[1].png", "folder/below/0.png"]
    assert [row["file"] for row in rows_of(ended)] == expected
    assert ended.code == 0


def test_what_is_not_there_is_a_row_with_its_reason(predict: Predict, photos: list[str]) -> None:
    Path("empty").mkdir()
    Path("link.png").symlink_to("nothing")
    names = ["gone.png", "0.png", "empty", "*.gif", "link.png", "x" * 300]
    ended = predict(*names, "--format", "jsonl")
    assert ended.code == 3
    rows = rows_of(ended)
    assert [row["file"] for row in rows] == names
    assert [row["reason"] for row in rows[:5]] == [
        "cannot be opened: No such file or directory",
        "",
        "a folder without files",
        "no file fits this pattern",
        "a link to a file that does not exist",
    ]
    assert "File name too long" in rows[5]["reason"]


@pytest.mark.parametrize("allow_private", [[], ["--allow-private"]])
def test_addresses_are_fetched(
    allow_private: list[str], predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(address: str, allowed: bool) -> bytes:
        assert allowed == bool(allow_private)
        if address.endswith("bad"):
            raise WebError("is a web page, not a photo")
        return Path("3.png").read_bytes()

    monkeypatch.setattr("fashion_keras.predict.inputs.fetch_photo", fetch)
    names = ["https://a.b/c?d=*", "http://a.b/bad", "3.png"]
    ended = predict(*names, "--format", "jsonl", *allow_private)
    good, bad, same = rows_of(ended)
    assert [good["file"], bad["file"], same["file"]] == names
    assert bad["reason"] == "is a web page, not a photo"
    assert_same_rows([good | {"file": "3.png"}], [same])
    assert ended.code == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("kind", ["table", "csv", "json", "jsonl"])
def test_name_that_is_not_utf_8_comes_back_as_it_is(
    kind: str, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = b"\xff\xe4.jpg"
    Path("3.png").rename(os.fsdecode(name))
    source = io.TextIOWrapper(io.BytesIO(name + b"\n"), encoding="utf-8")
    target = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdin", source)
    monkeypatch.setattr(sys, "stdout", target)
    assert predict("-", "--format", kind).code == 0
    assert predict(os.fsdecode(name), "--format", kind, "--out", "rows").code == 0
    for written in (target.buffer.getvalue(), Path("rows").read_bytes()):  # pyright: ignore
        expected = json.dumps(os.fsdecode(name)).encode() if "json" in kind else name
        assert expected in written


def test_model_can_be_named_first(predict: Predict, loaded: list[str], tmp_path: Path) -> None:
    Path("my.keras").write_text("another")
    ended = [predict("0.png"), predict("my.keras", "0.png"), predict("imagenet", "0.png")]
    assert loaded == [str(tmp_path / "released.keras"), "my.keras", "imagenet"]
    assert ended == [(0, ended[0].out, "")] * 3


# Exit codes.


WRONG_USE = {
    "no input": ([], "the following arguments are required: INPUT"),
    "model alone": (["my.keras"], "error: Expected photos or folders after the model. Received: "),
    "imagenet alone": (["imagenet"], "Received: imagenet alone"),
    "top 0": (["0.png", "--top", "0"], "--top: expected a whole number from 1 on. Received: 0"),
    "top -1": (["0.png", "--top=-1"], "expected a whole number from 1 on. Received: -1"),
    "top 1.5": (["0.png", "--top", "1.5"], "expected a whole number from 1 on. Received: 1.5"),
    "top ²": (["0.png", "--top", "²"], "--top: "),
    "batch size": (["0.png", "--batch-size", "0"], "--batch-size: expected a whole number from 1"),
    "threshold": (["0.png", "--threshold", "1.1"], "expected a number from 0 to 1. Received: 1.1"),
    "no threshold": (["0.png", "--threshold", "nan"], "a number from 0 to 1. Received: nan"),
    "threshold word": (["0.png", "--threshold", "x"], "a number from 0 to 1. Received: x"),
    "profile of Ray": (
        ["0.png", "--engine", "ray", "--profile", "x"],
        "error: `--profile` sees this process alone: leave out `--engine ray`.",
    ),
    "format": (["0.png", "--format", "xml"], "invalid choice: 'xml'"),
    "resume": (["0.png", "--resume"], "error: `--resume` goes on with a file: give its name with"),
    "link": (["0.png", "--link"], "error: `--link` is about sorting: give a folder with"),
    "sort": (["0.png", "http://a.b/c", "--sort-into", "s"], "Received: http://a.b/c"),
    "empty list": (["-"], "error: Expected names of photos on standard input, one a line."),
    "no folder": (["0.png", "--out", "gone/rows"], "error: No folder gone for rows: make it first"),
    "folder": (["0.png", "--out", "."], "error: Expected the name of a file for the rows."),
    "journal": (["0.png", "--out", "left"], "error: An earlier run left .left.unfinished."),
    "photo": (["0.png", "1.png", "--out", "1.png"], "error: `--out` would replace 1.png, which is"),
}


@pytest.mark.parametrize("use", WRONG_USE)
def test_wrong_use_ends_with_2_before_the_model_is_loaded(
    use: str, predict: Predict, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".left.unfinished").touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    arguments, error = WRONG_USE[use]
    ended = predict(*arguments)
    assert (ended.code, ended.out, loaded) == (2, "", [])
    assert error in ended.err
    assert ended.err.count("error: ") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_without_any_model_the_error_tells_what_to_do(
    predict: Predict, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.predict.options.RELEASED", Path("nowhere.keras"))
    ended = predict("0.png")
    assert (ended.code, loaded) == (2, [])
    assert ended.err.startswith("error: There is no nowhere.keras: name a .keras file, ")


def test_missing_model_ends_with_2(photos: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main(["gone.keras", photos[0]]))
    error = "error: No model file gone.keras; `python -m fashion_keras.final` makes one.\n"
    assert capsys.readouterr() == ("", error)


def test_help_is_a_manual_page_without_a_warning() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fashion_keras.predict", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith("usage: python -m fashion_keras.predict [-h]")
    assert "Exit code: 0 if all photos could be read, 3 if some could not, 2 for" in ended.stdout
    assert "examples:\n  python -m fashion_keras.predict hat.jpg" in ended.stdout


# Writing to a file.


@pytest.mark.parametrize("kind", ["table", "csv", "json", "jsonl"])
def test_file_holds_what_would_be_printed(kind: str, predict: Predict, photos: list[str]) -> None:
    Path(photos[1]).write_bytes(b"")
    printed = predict(*photos, "--format", kind)
    ended = predict(*photos, "--format", kind, "--out", "rows")
    assert Path("rows").read_bytes() == printed.out.encode()
    assert ended.code == printed.code == 3
    assert ended.out.startswith("photos to rows: 7 in ")
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")
    assert sorted(path.name for path in Path().glob(".*")) == []


def test_earlier_file_stays_until_all_rows_are_there(
    predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows").write_text("before")
    seen = []

    def read(name: str, allow_private: bool) -> np.ndarray:
        seen.append(Path("rows").read_text())
        return read_photo(Path(name)).pixels

    monkeypatch.setattr("fashion_keras.predict.__main__.read_named", read)
    predict(*photos, "--out", "rows", "--format", "jsonl", "--batch-size", "1")
    assert seen == ["before"] * 7
    assert len(rows_in(Path("rows"))) == 7


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the photos that are read from now on."""
    read = []

    def note(name: str, allow_private: bool) -> np.ndarray:
        read.append(name)
        return read_photo(Path(name)).pixels

    monkeypatch.setattr("fashion_keras.predict.__main__.read_named", note)
    return read


def break_off_at(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run fail when so many rows were kept."""
    from fashion_keras.predict.journal import Journal

    add = Journal.add

    def fail(journal: Journal, row: dict) -> None:
        if len(journal.done) == number:
            raise error
        add(journal, row)

    monkeypatch.setattr("fashion_keras.predict.journal.Journal.add", fail)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)]
)
def test_broken_off_run_is_resumed_without_doing_a_photo_twice(
    error: BaseException,
    code: int,
    predict: Predict,
    photos: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [*photos, "--format", "jsonl", "--out", "rows"]
    predict(*arguments)
    undisturbed = rows_in(Path("rows"))
    Path("rows").write_text("before")
    with monkeypatch.context() as patch:
        break_off_at(4, error, patch)
        ended = predict(*arguments)
    assert ended.code == code
    assert Path("rows").read_text() == "before"
    assert predict(*arguments).code == 2  # Refused: the rows that are there would be lost.
    read = counted(monkeypatch)
    ended = predict(*arguments, "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("going on: 4 photos were done before\nphotos to rows: 3 in ")
    assert ended.out.endswith("saved rows: 7 photos, 0 cannot be read\n")
    assert sorted(read) == photos[4:]
    assert [row["file"] for row in rows_in(Path("rows"))] == photos
    assert_same_rows(rows_in(Path("rows")), undisturbed)


def test_unreadable_photos_of_the_broken_off_run_count(
    predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*photos, "--format", "jsonl", "--out", "rows"]
    Path(photos[0]).write_bytes(b"")
    with monkeypatch.context() as patch:
        break_off_at(2, KeyboardInterrupt(), patch)
        predict(*arguments)
    ended = predict(*arguments, "--resume")
    assert ended.code == 3
    assert ended.out.endswith("saved rows: 7 photos, 1 cannot be read\n")


OTHER_SETTINGS: dict[str, tuple[list[str], str]] = {
    "top": (["--top", "2"], "top was 3, is 2"),
    "threshold": (["--threshold", "0.5"], "threshold was 0.0, is 0.5"),
    "sorting": (["--sort-into", "there"], "sort_into was None, is there"),
    "private": (["--allow-private"], "allow_private was False, is True"),
    "model": ([], "model was "),
}


@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_run_is_not_resumed_with_other_settings(
    other: str, predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*photos, "--out", "rows"]
    with monkeypatch.context() as patch:
        break_off_at(4, KeyboardInterrupt(), patch)
        predict(*arguments)
    if other == "model":
        Path("released.keras").write_text("another model")
    options, told = OTHER_SETTINGS[other]
    ended = predict(*arguments, "--resume", *options)
    assert ended.code == 2
    assert f"`--resume` would go on with had other settings: {told}" in ended.err
    Path("released.keras").write_text("a model")
    assert predict(*arguments, "--resume", "--format", "json").code == 0  # The form may differ.
    assert len(json.loads(Path("rows").read_text())) == 7


def killed_half_way(arguments: list[str], journal: Path) -> None:
    """Run the command in a process of its own, and kill that when some rows are kept."""
    process = subprocess.Popen([sys.executable, "-m", "fashion_keras.predict", *arguments])
    end = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert process.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < end, "no row was kept within a minute"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_killed_process_is_resumed_without_doing_a_photo_twice(
    model_file: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("archive").mkdir()
    for number in range(400):
        os.link(photos[number % 7], f"archive/{number:03}.png")
    Path("archive/200.png").unlink()
    Path("archive/200.png").write_bytes(b"")
    (rows := Path("rows.jsonl")).write_text("before")
    common = [str(model_file), "archive", "--format", "jsonl", "--batch-size", "1", "--out"]
    killed_half_way([*common, "rows.jsonl"], Path(".rows.jsonl.unfinished"))
    assert rows.read_text() == "before"
    done = Path(".rows.jsonl.unfinished").read_bytes().count(b"\n") - 1
    assert 39 <= done < 400
    read = counted(monkeypatch)
    with pytest.raises(SystemExit, match="^3$"):
        main([*common, "rows.jsonl", "--resume"])
    names = [f"archive/{number:03}.png" for number in range(400)]
    assert sorted(read) == names[done:]
    with pytest.raises(SystemExit, match="^3$"):
        main([*common, "undisturbed.jsonl"])
    assert [row["file"] for row in rows_in(rows)] == names
    assert_same_rows(rows_in(rows), rows_in(Path("undisturbed.jsonl")))
    assert not Path(".rows.jsonl.unfinished").exists()


# Sorting.


def sorted_files(folder: str = "sorted") -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("link", [[], ["--link"]])
def test_photos_get_into_the_folders_of_their_categories(
    link: list[str], predict: Predict, photos: list[str]
) -> None:
    Path(photos[2]).write_bytes(b"no photo")
    before = {name: Path(name).read_bytes() for name in photos}
    arguments = [*photos, "--sort-into", "sorted", *link, "--format", "jsonl"]
    ended = predict(*arguments)
    expected = {
        f"{row['category']}/{row['file']}": Path(row["file"]).read_bytes()
        for row in rows_of(ended)
        if not row["reason"]
    }
    assert ended.code == 3
    assert len(expected) == 6
    assert len({name.split("/")[0] for name in expected}) > 1
    assert sorted_files() == expected
    assert {path.is_symlink() for path in Path("sorted").glob("*/*")} == {bool(link)}
    assert {name: Path(name).read_bytes() for name in photos} == before
    assert predict(*arguments) == ended  # And once more changes nothing.
    assert sorted_files() == expected


def test_uncertain_photos_get_into_a_folder_of_their_own(
    predict: Predict, photos: list[str]
) -> None:
    ended = predict(*photos, "--sort-into", "sorted", "--threshold", "1")
    assert ended.code == 0
    assert set(sorted_files()) == {f"uncertain/{name}" for name in photos}


def test_photos_of_the_same_name_are_all_kept(predict: Predict) -> None:
    for folder, number in (("a", 0), ("b", 1), ("c", 0)):
        Path(folder).mkdir()
        picture(number).save(f"{folder}/x.png")
    before = [Path(folder, "x.png").read_bytes() for folder in "ab"]
    predict("a", "b", "c", "--sort-into", "sorted", "--threshold", "1")
    assert sorted_files() == {"uncertain/x.png": before[0], "uncertain/x (2).png": before[1]}


def test_sorting_goes_on_after_an_interruption(
    predict: Predict, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*photos, "--sort-into", "sorted", "--out", "rows"]
    with monkeypatch.context() as patch:
        break_off_at(4, KeyboardInterrupt(), patch)
        predict(*arguments)
    assert len(sorted_files()) == 5  # The photo whose row was not kept is placed once more.
    assert predict(*arguments, "--resume").code == 0
    assert sorted(name.split("/")[1] for name in sorted_files()) == photos


@pytest.mark.parametrize("label", ["../x", "a/b", ".hidden", "uncertain"])
def test_labels_that_lead_elsewhere_are_refused_before_a_photo_is_read(
    label: str, predict: Predict, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = classifier.metadata | {"labels": [*LABELS[:3], label]}
    harmful = Classifier(classifier.model, card)
    monkeypatch.setattr("fashion_keras.predict.__main__.load", lambda model: harmful)
    read = counted(monkeypatch)
    ended = predict("0.png", "--sort-into", "sorted", "--out", "rows")
    assert (ended.code, read) == (2, [])
    assert repr(label) in ended.err
    assert not Path("sorted").exists()
    assert not Path(".rows.unfinished").exists()
    assert predict("0.png").code == 0  # Without sorting such labels harm nobody.


# Every bad and every strange photo, from the file of the model to the row.


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a classifier whose answers differ strongly from photo to photo."""
    head = build_head(Config(inner_size=16), 4)
    head.set_weights([weight * 4 for weight in head.get_weights()])
    file = tmp_path_factory.mktemp("model") / "our.keras"
    save_classifier(normalised_backbone(), head, LABELS, 71, file)
    return file


BASE = picture()
GREY = BASE.convert("L")
PALETTE = BASE.quantize(8)
SEEN_THROUGH = np.dstack([np.asarray(BASE), np.indices((130, 90)).sum(axis=0) % 256]).astype(
    "uint8"
)
TURNS = Image.Transpose
# What a camera with this EXIF orientation does to the upright picture before it stores it.
STORED = {
    2: TURNS.FLIP_LEFT_RIGHT,
    3: TURNS.ROTATE_180,
    4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE,
    6: TURNS.ROTATE_90,
    7: TURNS.TRANSVERSE,
    8: TURNS.ROTATE_270,
}


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def animated(kind: str, **settings: Any) -> bytes:
    return encoded(BASE, kind, save_all=True, append_images=[BASE.rotate(180)] * 2, **settings)


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = BASE.transpose(STORED[orientation]) if orientation > 1 else BASE
    return encoded(stored, kind, exif=exif)


def on_white() -> Image.Image:
    opacity = SEEN_THROUGH[..., 3:] / 255
    mixed = SEEN_THROUGH[..., :3] * opacity + 255 * (1 - opacity)
    return Image.fromarray(mixed.round().astype("uint8"))


def without_first_colour() -> Image.Image:
    pixels = np.array(PALETTE.convert("RGB"))
    pixels[np.asarray(PALETTE) == 0] = 255
    return Image.fromarray(pixels)


def first_frame_of_gif() -> Image.Image:
    return Image.open(io.BytesIO(encoded(BASE, "GIF"))).convert("RGB")


# Files with the upright RGB picture that they show.
GOOD: dict[str, tuple[Callable[[], bytes], Callable[[], Image.Image]]] = {
    "photo.png": (lambda: encoded(BASE), lambda: BASE),
    "png.jpg": (lambda: encoded(BASE), lambda: BASE),
    "cmyk.tif": (
        lambda: encoded(BASE.convert("CMYK"), "TIFF"),
        lambda: BASE.convert("CMYK").convert("RGB"),
    ),
    "grey-16.png": (
        lambda: encoded(Image.fromarray(np.asarray(GREY).astype("uint16") * 257)),
        lambda: GREY.convert("RGB"),
    ),
    "palette.png": (lambda: encoded(PALETTE), lambda: PALETTE.convert("RGB")),
    "palette-transparent.png": (lambda: encoded(PALETTE, transparency=0), without_first_colour),
    "rgba.png": (lambda: encoded(Image.fromarray(SEEN_THROUGH)), on_white),
    "animated.gif": (lambda: animated("GIF"), first_frame_of_gif),
    "animated.webp": (lambda: animated("WEBP", lossless=True), lambda: BASE),
    "photo.tiff": (lambda: encoded(BASE, "TIFF"), lambda: BASE),
    "packed.tiff": (lambda: encoded(BASE, "TIFF", compression="tiff_lzw"), lambda: BASE),
    "photo.bmp": (lambda: encoded(BASE, "BMP"), lambda: BASE),
    "grey.bmp": (lambda: encoded(GREY, "BMP"), lambda: GREY.convert("RGB")),
    "palette.bmp": (lambda: encoded(PALETTE, "BMP"), lambda: PALETTE.convert("RGB")),
    "two-colours.bmp": (
        lambda: encoded(BASE.convert("1"), "BMP"),
        lambda: BASE.convert("1").convert("RGB"),
    ),
} | {
    f"turned-{number}.{kind}": (lambda number=number, kind=kind: turned(number, kind), lambda: BASE)
    for number in range(1, 9)
    for kind in ("png", "tiff")
}
LOSSY = {  # JPEG changes pixels, so these are compared with what Pillow makes of them.
    "photo.jpg": lambda: encoded(BASE, "JPEG", quality=92),
    "cmyk.jpg": lambda: encoded(BASE.convert("CMYK"), "JPEG", quality=92),
    "grey.jpg": lambda: encoded(GREY, "JPEG", quality=92),
    "progressive.jpg": lambda: encoded(BASE, "JPEG", quality=92, progressive=True),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "empty file"),
    "text.jpg": (lambda: b"no photo", "not a photo in one of the formats JPEG, PNG, WEBP, GIF"),
    "page.jpg": (lambda: b"<html></html>", "not a photo in one of the formats"),
    "half.jpg": (lambda: encoded(BASE, "JPEG")[:1500], "damaged: image file is truncated"),
    "half.png": (lambda: encoded(BASE)[:1500], "damaged: "),
    "pixel.png": (
        lambda: encoded(Image.new("RGB", (1, 1))),
        "too small: 1 x 1 pixels, at least 8 x 8 are needed",
    ),
    "line.png": (
        lambda: encoded(Image.new("RGB", (1, 5000))),
        "too small: 1 x 5000 pixels, at least 8 x 8 are needed",
    ),
    "bomb.png": (
        lambda: encoded(Image.new("1", (8000, 8000))),
        "a decompression bomb: 8000 x 8000 pixels in ",
    ),
    "claim.png": (lambda: png_that_claims(40_000, 40_000), "too large: more than 80000000 pixels"),
}


@pytest.fixture(scope="module")
def found(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Run the command once on all of them; return the row of each."""
    folder = tmp_path_factory.mktemp("strange")
    write = {name: write for name, (write, _) in (GOOD | BAD).items()} | LOSSY
    for name, content in write.items():
        (folder / "photos").mkdir(exist_ok=True)
        (folder / "photos" / name).write_bytes(content())
    (folder / "photos" / "link.jpg").symlink_to("nothing.jpg")
    (folder / "nothing" / "in").mkdir(parents=True)
    inputs = [str(folder / "photos"), str(folder / "nothing"), str(folder / "*.gif")]
    with pytest.raises(SystemExit, match="^3$"):
        main([str(model_file), *inputs, "--format=jsonl", "--top=4", f"--out={folder / 'rows'}"])
    return {Path(row["file"]).name: row for row in rows_in(folder / "rows")}


@pytest.fixture(scope="module")
def saved(model_file: Path) -> Classifier:
    return load_classifier(model_file)


@pytest.mark.parametrize("name", [*GOOD, *LOSSY])
def test_strange_photo_is_seen_as_it_should_be(
    name: str, found: dict[str, dict], saved: Classifier
) -> None:
    if name in LOSSY:
        shown = Image.open(io.BytesIO(LOSSY[name]())).convert("RGB")
    else:
        shown = GOOD[name][1]()
    expected = dict(zip(LABELS, alone(saved, np.asarray(shown)), strict=True))
    row = found[name]
    assert row["reason"] == ""
    assert row["category"] == max(expected, key=lambda label: expected[label])
    told = {one["category"]: one["probability"] for one in row["top"]}
    # Where pixels are mixed, one of 255 steps may be rounded to the other side.
    assert told == pytest.approx(expected, abs=1e-3 if name == "rgba.png" else 1e-5)


def test_the_strange_photos_can_be_told_apart(saved: Classifier) -> None:
    others = [BASE.transpose(way) for way in STORED.values()]
    others += [GREY, PALETTE, on_white(), without_first_colour(), picture(9), BASE.convert("1")]
    seen = alone(saved, np.asarray(BASE))
    for other in others:
        difference = np.abs(alone(saved, np.asarray(other.convert("RGB"))) - seen).max()
        assert difference > 2e-3


@pytest.mark.parametrize("name", BAD)
def test_bad_photo_has_its_reason(name: str, found: dict[str, dict]) -> None:
    row = found[name]
    assert row["reason"].startswith(BAD[name][1])
    assert (row["category"], row["probability"], row["top"]) == ("", None, [])


def test_names_without_a_photo_have_their_reason(found: dict[str, dict]) -> None:
    assert found["link.jpg"]["reason"] == "a link to a file that does not exist"
    assert found["nothing"]["reason"] == "a folder without files"
    assert found["*.gif"]["reason"] == "no file fits this pattern"
    assert len(found) == len(GOOD) + len(LOSSY) + len(BAD) + 3


@pytest.fixture
def not_superuser(tmp_path: Path) -> Iterator[None]:
    """Go on as a user to whom permissions apply, in a folder that this user may look into."""
    for folder in tmp_path.parents:  # pytest's folders are for their owner only.
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_photo_and_folder_without_permission_have_their_reason(
    predict: Predict, photos: list[str], request: pytest.FixtureRequest
) -> None:
    Path("closed").mkdir(mode=0)
    Path("open").mkdir()
    Path("open/closed").mkdir(mode=0)
    Path(photos[0]).chmod(0)
    request.getfixturevalue("not_superuser")
    ended = predict(photos[0], photos[1], "closed", "open", "--format", "jsonl")
    assert ended.code == 3
    reasons = {row["file"]: row["reason"] for row in rows_of(ended)}
    denied = "cannot be opened: Permission denied"
    assert reasons == {"0.png": denied, "1.png": "", "closed": denied, "open/closed": denied}
