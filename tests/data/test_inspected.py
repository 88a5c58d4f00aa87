"""Tests of inspecting: after whatever stopped it, it goes on, and finds what a quiet run finds."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.data import inspected, prepare
from fashion_keras.data.inspected import JOURNAL, REWRITTEN, Inspected, inspect_all
from fashion_keras.data.photo import read_photo
from fashion_keras.data.scan import SourcePhoto


@pytest.fixture
def sources(tmp_path: Path) -> list[SourcePhoto]:
    """Draw five photos without splits; two of them have to be rewritten, and one is none."""
    names = ["0.jpg", "1.webp", "2.jpg", "3.png", "4.bmp"]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 16, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "2.jpg").write_bytes(b"no photo")
    return [SourcePhoto(tmp_path / name, f"hat/{name}", "", "hat") for name in names]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each photo is added that is read."""
    names: list[str] = []

    def note(path: Path) -> Any:
        names.append(path.name)
        return read_photo(path)

    monkeypatch.setattr(inspected, "read_photo", note)
    return names


def stop(*given: Any) -> None:
    raise KeyboardInterrupt


def stop_after(count: int, sources: list[SourcePhoto], work: Path) -> None:
    """Inspect so many photos, and be stopped."""

    def stopped(items: Any, total: int, label: str) -> Any:
        for _ in range(count):
            yield next(items)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspected, "progress", stopped)
        with pytest.raises(KeyboardInterrupt):
            inspect_all(sources, work)


def plain(found: list[Inspected]) -> list[Any]:
    """Return what was found with bytes for arrays and rewritten photos, to be compared."""
    return [
        one._replace(
            looks=one.looks and [(part.dtype, part.tolist()) for part in one.looks],
            rewritten=one.rewritten and (one.rewritten.name, one.rewritten.read_bytes()),
        )
        for one in found
    ]


@pytest.mark.parametrize("split", ["", "train"])
@pytest.mark.parametrize("count", range(6))
def test_it_goes_on_where_it_was_stopped(
    count: int,
    split: str,
    sources: list[SourcePhoto],
    tmp_path: Path,
    read: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = [photo._replace(split=split) for photo in sources]
    expected = plain(inspect_all(sources, tmp_path / "quiet"))
    stop_after(count, sources, tmp_path / "work")
    capsys.readouterr()
    read.clear()
    assert plain(inspect_all(sources, tmp_path / "work")) == expected
    # What could not be read is tried again.
    assert sorted(read) == sorted({photo.path.name for photo in sources[count:]} | {"2.jpg"})
    done = f"checking photos: going on after {5 - len(read)} of 5\n"
    assert (done in capsys.readouterr().out) == (count > 0)


@pytest.mark.parametrize("damage", ["fine_tune_from", "zeros"])
def test_after_a_power_cut_at_any_byte_the_journal_tells_nothing_wrong(
    damage: str, sources: list[SourcePhoto], tmp_path: Path, read: list[str]
) -> None:
    sources = [photo._replace(split="train") for photo in sources[::2]]
    expected = plain(inspect_all(sources, tmp_path))
    content = (tmp_path / JOURNAL).read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for length in range(0, len(content), 3):
        lost = b"" if damage == "fine_tune_from" else bytes(len(content) - length)
        (tmp_path / JOURNAL).write_bytes(content[:length] + lost)
        read.clear()
        assert plain(inspect_all(sources, tmp_path)) == expected
        assert ("0.jpg" in read) == (length < ends[0])
        assert ("4.bmp" in read) == (length < ends[2])
        assert (tmp_path / JOURNAL).read_bytes() == content


@pytest.mark.parametrize("damage", ["gone", "empty", "zeros"])
def test_rewritten_photo_that_is_not_whole_is_made_anew(
    damage: str, sources: list[SourcePhoto], tmp_path: Path, read: list[str]
) -> None:
    expected = plain(inspect_all(sources, tmp_path))
    file = tmp_path / REWRITTEN / "0000001.png"
    size = file.stat().st_size
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes(size if damage == "zeros" else 0))
    read.clear()
    assert plain(inspect_all(sources, tmp_path)) == expected
    assert sorted(read) == ["1.webp", "2.jpg"]


def test_photo_that_was_mended_meanwhile_is_used(
    sources: list[SourcePhoto], tmp_path: Path
) -> None:
    assert inspect_all(sources, tmp_path)[2].reason
    sources[2].path.write_bytes(sources[0].path.read_bytes())
    assert inspect_all(sources, tmp_path)[2].sha256 == inspect_all(sources, tmp_path)[0].sha256


def test_when_stopped_it_waits_for_no_photo_that_is_queued(
    sources: list[SourcePhoto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    monkeypatch.setattr(inspected, "read_photo", lambda path: stop(begun.append(path)))
    with pytest.raises(KeyboardInterrupt):
        inspect_all(sources * 4000, tmp_path)
    assert len(begun) < 4000


@pytest.mark.parametrize("links", [True, False])
def test_stopped_while_photos_are_placed_it_keeps_them(
    links: bool, sources: list[SourcePhoto], tmp_path: Path, read: list[str]
) -> None:
    folder, work = tmp_path / "folder", tmp_path / "folder.tmp"
    sources = [photo._replace(split="train") for photo in sources]

    def refuse(*names: Path) -> None:
        raise OSError("no second names")

    with pytest.MonkeyPatch.context() as patch:
        if not links:
            patch.setattr("os.link", refuse)
        patch.setattr(prepare, "_write_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare._lay_out(sources, folder, work, 1)
    read.clear()
    prepare._lay_out(sources, folder, work, 1)
    assert sorted(read) == (["2.jpg"] if links else ["1.webp", "2.jpg", "4.bmp"])
    with (folder / "photos.csv").open(newline="") as rows:
        placed = [folder / row["prepared"] for row in csv.DictReader(rows)]
    for file, photo in zip(placed, [sources[number] for number in (0, 1, 3, 4)], strict=True):
        np.testing.assert_array_equal(read_photo(file).pixels, read_photo(photo.path).pixels)
