"""The kept state of a search: it comes back whole, whatever became of the files."""

import pytest

from tuning.snapshot import SNAPSHOT, keep, put_back


@pytest.fixture
def folder(tmp_path):
    """Two finished trials and one of them with weights."""
    for name in ("trial_0000", "trial_0001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trial.json").write_text(f'"{name}"')
    (tmp_path / "trial_0000" / "checkpoint.weights.h5").write_bytes(b"weights")
    (tmp_path / "oracle.json").write_text('"two"')
    (tmp_path / "trials.csv").write_text("a,b\n")
    keep(tmp_path)
    return tmp_path


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_what_was_written_later_goes_and_what_was_torn_comes_back(folder):
    before = contents(folder)
    (folder / "trial_0002").mkdir()
    (folder / "trial_0002" / "trial.json").write_text("{")
    (folder / "trial_0002" / "checkpoint.weights.h5").write_bytes(b"half")
    (folder / "oracle.json").write_text('"thr')
    (folder / "trial_0001" / "trial.json").unlink()
    (folder / "trials.csv").write_text("a,b\n1,")
    (folder / "tuner0.json").write_text("")
    (folder / "trial_0001" / "worker").mkdir()
    (folder / "trial_0001" / "worker" / "checkpoint.weights.h5").write_bytes(b"half")
    put_back(folder)
    assert contents(folder) == before


def test_a_lost_folder_of_a_trial_comes_back(folder):
    (folder / "trial_0001" / "trial.json").unlink()
    (folder / "trial_0001").rmdir()
    put_back(folder)
    assert (folder / "trial_0001" / "trial.json").read_text() == '"trial_0001"'


def test_before_the_first_trial_is_finished_there_is_no_state(folder):
    (folder / SNAPSHOT).unlink()
    put_back(folder)
    assert not folder.exists()
    put_back(folder)  # Nor is it a mistake.


def test_keeping_again_keeps_the_newer_state(folder):
    (folder / "oracle.json").write_text('"three"')
    keep(folder)
    (folder / "oracle.json").write_text("")
    put_back(folder)
    assert (folder / "oracle.json").read_text() == '"three"'
    assert [file.name for file in folder.iterdir() if "tmp" in file.name] == []
