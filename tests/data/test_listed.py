"""Tests of photos whose labels are in a table or in their names."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import prepare
from fashion_keras.data.scan import scan
from tests.data.test_scan import touch


def found(data: Path, **options: Any) -> list[tuple[str, str, str]]:
    result = scan(Config(data=str(data), **options), data.parent / "cache")
    assert result.faults == result.class_faults == []
    return [(photo.split, photo.label, photo.name) for photo in result.photos]


@pytest.mark.parametrize(
    ("text", "names", "column"),
    [
        ("file,label\na.jpg,hat\nb.jpg,bag\n", ["a.jpg", "b.jpg"], ""),
        ("\ufeffid;Class\r\na;hat\r\nb;bag\r\n", ["images/a.jpg", "images/b.jpg"], ""),
        ("n\tpath\tkind\n1\tx/a.png\that\n2\tx/b.png\tbag\n", ["x/a.png", "x/b.png"], "kind"),
    ],
)
def test_tables_are_read_as_people_write_them(text, names, column, tmp_path):
    touch(tmp_path, *names, "images/left_over.jpg")
    (tmp_path / "images.csv").write_text(text, encoding="utf-8", newline="")
    assert found(tmp_path / "images.csv", label_column=column) == [
        ("", "bag", names[1]),
        ("", "hat", names[0]),
    ]
    config = Config(data=str(tmp_path / "images.csv"), label_column=column)
    assert scan(config, tmp_path).unused == ["images/left_over.jpg"]


def test_splits_of_a_table_are_used(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = "file,label,split\na.jpg,hat,Train\nb.jpg,bag,train\nc.jpg,hat,val\n"
    (tmp_path / "t.csv").write_text(table)
    assert [one[0] for one in found(tmp_path / "t.csv")] == ["train", "train", "validation"]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("file,label\n", "", "holds no rows"),
        ("file,kind\na.jpg,hat\n", "", "columns file, kind: name that of the labels with"),
        ("file,label\na.jpg,hat\n", "kind", "Received: kind"),
        ("file,label\ngone.jpg,hat\n", "", "no column names files in"),
        ("file,label\na.jpg,hat\ngone.jpg,bag\n", "", "1 files do not exist. First: .*gone"),
        ("file,label\na.jpg,\n", "", "1 files have no label. First: a.jpg"),
        ("file,label\na.jpg,hat\n", "", "Only one class: hat"),
        ("file,label\na.jpg,hat\nb.jpg,a/b\n", "", "'a/b' cannot be the name of a folder"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(text, column, message, tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        prepare(Config(data=str(tmp_path / "t.csv"), label_column=column), tmp_path / "cache")


def test_labels_in_names_are_found(tmp_path):
    touch(tmp_path, "great_pyrenees_12.jpg", "more/beagle_3.jpg", "more/cover.png", "list.txt")
    pattern = r"([^/]+)_\d+.jpg$"
    assert found(tmp_path, label_pattern=pattern) == [
        ("", "beagle", "more/beagle_3.jpg"),
        ("", "great_pyrenees", "great_pyrenees_12.jpg"),
    ]
    config = Config(data=str(tmp_path), label_pattern=pattern)
    assert scan(config, tmp_path).unused == ["more/cover.png"]
    for wrong, message in (("(", "no regular"), ("a", "with a group"), ("(z9)", "First: great")):
        with pytest.raises(InputError, match=message):
            scan(Config(data=str(tmp_path), label_pattern=wrong), tmp_path)


def test_labels_are_those_of_the_source_that_is_given(tmp_path):
    for number in range(20):
        file = tmp_path / "photos" / f"{'ab'[number % 2]}_{'xyz'[number % 3]}_{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.effect_noise((16, 16 + number), 90).save(file)
    first, second = (
        prepare(Config(data=str(tmp_path / "photos"), label_pattern=pattern), tmp_path / "cache")
        for pattern in (r"(\w)_\w_", r"_(\w)_")
    )
    assert (first.labels, second.labels) == (["a", "b"], ["x", "y", "z"])
    assert first.folder != second.folder
    # Other labels in the same order of photos.
    longer = prepare(
        Config(data=str(tmp_path / "photos"), label_pattern=r"(\w_)\w_"), tmp_path / "cache"
    )
    assert longer.labels == ["a_", "b_"]
    with pytest.raises(InputError, match="`--label-column` does not go together"):
        prepare(Config(data=str(tmp_path / "photos"), label_column="label"), tmp_path / "cache")
