"""Tests of tables of photos, before they are read."""

import importlib.util
from pathlib import Path

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.cloud import arrow
from fashion_keras.predict.photo_tables import check_tables, count_photos, is_table, open_table

if importlib.util.find_spec("pyarrow") is None:
    pytest.skip("needs the extra `ray`", allow_module_level=True)


def written(file: Path, photos: int, *columns: str) -> str:
    """Write a table with these columns and return its name."""
    table = arrow().table({column: [b"a photo"] * photos for column in columns})
    arrow("parquet").write_table(table, file)
    return str(file)


def test_tables_are_told_from_photos() -> None:
    assert is_table("s3://shop/photos.PARQUET")
    assert not is_table("parquet")


def test_columns_and_photos_are_known(tmp_path: Path) -> None:
    path = written(tmp_path / "1.parquet", 3, "path", "bytes", "label")
    both = written(tmp_path / "2.parquet", 4, "path", "file", "bytes")
    assert open_table(path)[1:] == (path, "path", 3)
    assert open_table(both).column == "file"
    assert count_photos([path, both]) == 7
    check_tables([path, both])


def test_photos_count_one_each() -> None:
    assert count_photos(["gone.jpg", "s3://shop/a.jpg"]) == 2
    check_tables(["gone.jpg"])


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    nameless = written(tmp_path / "1.parquet", 3, "name", "bytes")
    empty = written(tmp_path / "2.parquet", 0, "path", "bytes")
    (tmp_path / "3.parquet").write_text("no table")
    with pytest.raises(InputError, match="has a column `bytes` and one of .* with name, bytes$"):
        check_tables([nameless])
    with pytest.raises(InputError, match=f"Received: {empty} without any photo"):
        check_tables([empty])
    with pytest.raises(InputError, match=r"3\.parquet cannot be read as a table: "):
        check_tables([str(tmp_path / "3.parquet")])
    with pytest.raises(InputError, match=r"4\.parquet cannot be read as a table: "):
        check_tables([str(tmp_path / "4.parquet")])
    with pytest.raises(InputError, match=r"Expected either .* Received: \S+ and hat\.jpg$"):
        check_tables(["hat.jpg", nameless])
