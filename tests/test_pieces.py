"""Tests of arrays in pieces: which pieces are taken, and that they read as one array."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion_keras.pieces import Joined, Piece, Shard, lay_out, opened, piece_of

ROWS = np.random.default_rng(1).normal(size=(10, 3, 2)).astype("float16")


@pytest.fixture
def pieces(tmp_path: Path) -> list[Piece]:
    """Write ten rows to three files; the second and third overlap."""
    laid = [piece_of(tmp_path / "a.npy", *rows, 10) for rows in ((0, 4), (4, 8), (6, 10))]
    for piece in laid:
        np.save(piece.file, ROWS[piece.start : piece.stop])
    return laid


@pytest.mark.parametrize(
    ("of", "shares"),
    [
        (1, [(0, 10)]),
        (2, [(0, 4), (4, 10)]),
        (3, [(0, 4), (4, 8), (8, 10)]),
        (4, [(0, 0), (0, 4), (4, 8), (8, 10)]),
    ],
)
def test_shards_hold_all_rows_in_whole_batches(of: int, shares: list[tuple[int, int]]) -> None:
    assert [Shard(number, of).rows(10, 4) for number in range(1, of + 1)] == shares


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 9, 2),
        slice(-2, None),
        slice(5, 5),
        np.array([9, 0, 4, 3, 3, 7]),
        np.array([-1, 2]),
        np.arange(10) % 3 == 0,
        [8, 1],
        6,
    ],
)
def test_joined_pieces_give_the_rows_of_one_array(rows: Any, pieces: list[Piece]) -> None:
    found = Joined(pieces)[rows]
    np.testing.assert_array_equal(found, ROWS[rows])
    assert (found.dtype, found.shape) == (ROWS.dtype, ROWS[rows].shape)


def test_joined_pieces_look_like_one_array(pieces: list[Piece]) -> None:
    joined = opened(pieces)
    assert (len(joined), joined.shape, joined.dtype) == (10, ROWS.shape, ROWS.dtype)
    np.testing.assert_array_equal(np.concatenate([joined, joined]), np.concatenate([ROWS, ROWS]))
    assert np.asarray(joined, "float64").dtype == "float64"
    with pytest.raises(IndexError):
        joined[np.array([10])]


@pytest.mark.parametrize(
    ("files", "wanted", "laid"),
    [
        ("", (0, 10), ["a.npy"]),
        ("a.npy", (0, 10), ["a.npy"]),
        ("a.0-4.npy", (0, 10), ["a.0-4.npy", "a.4-10.npy"]),
        ("a.4-8.npy", (0, 10), ["a.0-4.npy", "a.4-8.npy", "a.8-10.npy"]),
        ("a.4-8.npy", (0, 4), ["a.0-4.npy"]),
        ("a.4-8.npy", (4, 10), ["a.4-8.npy", "a.8-10.npy"]),
        ("a.0-4.npy a.0-8.npy a.4-10.npy", (0, 10), ["a.0-8.npy", "a.4-10.npy"]),
        ("a.npy a.0-4.npy", (0, 10), ["a.npy"]),
        # What is begun is gone on with, unless it reaches into what is there or is not wanted.
        ("a.npy.part", (0, 10), ["a.npy"]),
        ("a.npy.part a.4-8.npy", (0, 10), ["a.0-4.npy", "a.4-8.npy", "a.8-10.npy"]),
        ("a.npy.part", (0, 4), ["a.0-4.npy"]),
        ("a.4-8.npy.part", (0, 10), ["a.0-4.npy", "a.4-8.npy", "a.8-10.npy"]),
        # Others are passed over.
        ("b.0-4.npy a.0-4.npy.batches .7.tmp.a.npy", (0, 10), ["a.npy"]),
    ],
)
def test_pieces_that_are_there_are_taken_and_gaps_filled(
    files: str, wanted: tuple[int, int], laid: list[str], tmp_path: Path
) -> None:
    for name in files.split():
        (tmp_path / name).touch()
    pieces = lay_out(tmp_path / "a.npy", 10, *wanted)
    assert [piece.file.name for piece in pieces] == laid
