"""An array file that grows: after whatever happened to it, it holds whole batches or none."""

import multiprocessing
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fashion_keras.growing import GrowingArray

ROWS = np.random.default_rng(1).normal(size=(10, 3, 2)).astype("float16")


def batches() -> list[np.ndarray]:
    return [ROWS[:4], ROWS[4:8], ROWS[8:]]


def grown(file: Path, count: int) -> None:
    """Append the first batches, and stop."""
    array = GrowingArray(file, len(ROWS))
    for rows in batches()[:count]:
        array.append(rows)
    array.close()


def complete(file: Path) -> list[int]:
    """Go on with what is there, to the end; return after which rows there were whole batches."""
    array = GrowingArray(file, len(ROWS))
    found = list(array.ends)
    array.keep(found[-1] if found else 0)
    for rows in batches()[len(found) :]:
        array.append(rows)
    array.finish()
    array.close()
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_it_goes_on_where_it_stopped(count: int, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    grown(file, count)
    assert not file.exists()
    assert complete(file) == [4, 8, 10][:count]
    np.testing.assert_array_equal(np.load(file), ROWS)
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("suffix", ["part", "batches"])
@pytest.mark.parametrize("damage", ["fine_tune_from", "zeros"])
def test_after_a_power_cut_at_any_byte_no_torn_batch_is_used(
    suffix: str, damage: str, tmp_path: Path
) -> None:
    file, torn = tmp_path / "a.npy", tmp_path / f"a.npy.{suffix}"
    grown(file, 2)
    kept = {one: one.read_bytes() for one in tmp_path.iterdir()}
    for length in range(0, len(kept[torn]), 1 if suffix == "batches" else 7):
        for one, content in kept.items():
            one.write_bytes(content)
        lost = b"" if damage == "fine_tune_from" else bytes(len(kept[torn]) - length)
        torn.write_bytes(kept[torn][:length] + lost)
        assert complete(file) in ([], [4], [4, 8])
        np.testing.assert_array_equal(np.load(file), ROWS)
        file.unlink()


def test_batches_can_be_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    grown(file, 2)
    array = GrowingArray(file, len(ROWS))
    array.keep(4)
    array.close()
    assert complete(file) == [4]
    np.testing.assert_array_equal(np.load(file), ROWS)


def _wait_and_look(file: Path, told: multiprocessing.Queue) -> None:
    array = GrowingArray(file, len(ROWS))
    told.put(array.ready)
    array.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_second_process_waits_and_finds_it_ready(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    array = GrowingArray(file, len(ROWS))
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    other = context.Process(target=_wait_and_look, args=(file, told))
    other.start()
    for rows in batches():
        array.append(rows)
    assert told.empty()
    array.finish()
    array.close()
    assert told.get(timeout=60) is True
    other.join()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_who_waited_for_one_that_gave_up_has_a_file_with_a_name(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    first, found = GrowingArray(file, len(ROWS)), []
    thread = threading.Thread(target=lambda: found.append(GrowingArray(file, len(ROWS))))
    thread.start()
    thread.join(0.3)
    assert not found
    first.close()  # Without a batch: its files are removed.
    thread.join()
    found[0].append(ROWS[:4])
    found[0].close()
    assert complete(file) == [4]
    np.testing.assert_array_equal(np.load(file), ROWS)
