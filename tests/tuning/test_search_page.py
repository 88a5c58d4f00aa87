"""Tests of the search's page: it can be watched while the search runs, and is whole at its end."""

import json
from pathlib import Path

import pytest

from fashion_keras.config import Config
from tests.report.test_page import EVIL, TRIALS, Page
from tuning.page import space_of, write_search_page

BASE = Config(data=f"photos/{EVIL}", image_size=150)
FAILED = "0001,FAILED,0.1,16,0.5,0,4,,1.5\n"


def page_of(folder: Path, trials: str = TRIALS) -> Page:
    (folder / "trials.csv").write_text(trials)
    write_search_page(folder, BASE, 90, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def refreshes(page: Page) -> bool:
    return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))


def test_space_is_that_of_the_search() -> None:
    rows = {row["name"]: (row["least"], row["most"], row["steps"]) for row in space_of(BASE)}
    assert rows["learning_rate"] == (1e-4, 1e-1, "log")
    assert rows["inner_size"] == (16, 1024, "log")
    assert rows["droprate"] == (0.0, 0.8, "linear")
    assert rows["augmented_views"] == ("no", "yes", "either")


def test_page_of_a_running_search_loads_itself_anew(tmp_path: Path) -> None:
    page = page_of(tmp_path, TRIALS + FAILED)
    assert refreshes(page)
    assert "2 of 90 trials are done; the best has a validation accuracy of 80.0 %." in page.words
    assert "1 trials failed." in page.words
    assert EVIL.rpartition("/")[2] in page.words
    assert not page.all("script")


def test_the_folder_here_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my photos").mkdir()
    monkeypatch.chdir(tmp_path / "my photos")
    (tmp_path / "trials.csv").write_text(TRIALS)
    write_search_page(tmp_path, Config(data="."), 90, tmp_path / "report.html")
    assert "Search on my photos" in Page((tmp_path / "report.html").read_text()).words


def test_page_after_a_first_trial_that_failed(tmp_path: Path) -> None:
    page = page_of(tmp_path, TRIALS.splitlines()[0] + "\n" + FAILED)
    assert "1 of 90 trials are done; none has succeeded yet." in page.words
    assert refreshes(page)


def test_page_of_a_finished_search_stays(tmp_path: Path) -> None:
    run = {"seconds": 90.0, "machine": "2 cores", "command": "python -m tuning.search"}
    numbers = {"validation_accuracy": 0.81, "spread": 0.01, "seeds": 3, "epochs": 9}
    space = space_of(BASE)
    (tmp_path / "search.json").write_text(json.dumps({**numbers, "run": run, "space": space}))
    knobs = "learning_rate,inner_size,droprate,copies,mean,spread,seed_1\n"
    (tmp_path / "finalists.csv").write_text(knobs + 2 * "0.1,16,0.5,0,0.81,0.01,0.81\n")
    page = page_of(tmp_path)
    assert not refreshes(page)
    winner = "The winner, the best of 2 finalists, has a validation accuracy of 81.0 % ± 1.0 %"
    assert f"{winner} over 3 seeds." in page.words
    assert "for the 9 epochs of all trials. 90 s for the whole command" in page.words
    assert "finished before it" not in page.words
