"""Tests of the page of a search: it can be watched while the search runs."""

import json

from fashion_keras.config import Config
from fashion_keras.report.search_page import search_section, write_search_page
from tests.report.html_page import EVIL, Page

CONFIG = Config(data=f"photos/{EVIL}", image_size=150)
HEADER = (
    "trial,status,learning_rate,inner_size,droprate,augmented_copies,last_epoch,val_accuracy,"
    "val_loss,seconds\n"
)
TRIALS = HEADER + "1,COMPLETED,0.001,100,0.2,1,4,0.8,0.6,1.5\n"
BETTER = "2,COMPLETED,0.002,200,0.3,0,8,0.9,0.5,2.0\n3,COMPLETED,0.003,300,0.4,0,8,0.8,0.5,2.0\n"
TUNED = (
    "trial,status,fine_tuning_learning_rate,fine_tune_from,last_epoch,val_accuracy,val_loss,"
    "val_log_loss,seconds\n1,COMPLETED,0.001,block11,3,0.9,0.8,0.4,9\n"
    "2,COMPLETED,0.0003,block13,9,0.8,0.7,0.3,30\n"
)
FAILED = "4,FAILED,0.1,16,0.5,0,4,,,1.5\n"
SPACE = [{"name": "learning_rate", "min": 1e-4, "max": 0.1, "steps": "log"}]
FINALISTS = (
    "learning_rate,inner_size,droprate,augmented_copies,mean,spread,seed_1\n"
    + 2 * "0.1,16,0.5,0,0.81,0.01,0.81\n"
)
CURVES = "hyperparameter,value,epoch,val_accuracy\ndroprate,0.2,1,0.5\ndroprate,0.8,1,0.25\n"


def page_of(folder, trials, config=CONFIG):
    (folder / "trials.csv").write_text(trials)
    write_search_page({folder: SPACE}, config, 90, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def finish(folder, **others):
    run = {"seconds": 90.0, "machine": "2 cores", "command": "python -m tuning.search"}
    numbers = {"validation_accuracy": 0.81, "spread": 0.01, "seeds": 3, "epochs": 9}
    (folder / "search.json").write_text(json.dumps({**numbers, "run": run, **others}))
    (folder / "finalists.csv").write_text(FINALISTS)
    (folder / "curves.csv").write_text(CURVES)


def refreshes(page):
    return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))


def test_page_of_a_running_search_reloads_itself(tmp_path):
    page = page_of(tmp_path, TRIALS + BETTER + FAILED)
    assert refreshes(page)
    words = "4 of 90 trials are complete; the best has a validation accuracy of 90.0 %."
    assert words in page.words
    assert "1 of them failed." in page.words
    assert "learning rate" in page.words
    assert EVIL.rpartition("/")[2] in page.words
    assert not page.all("script")
    assert len(page.all("svg")) == 4


def test_page_after_a_first_trial_that_failed(tmp_path):
    page = page_of(tmp_path, HEADER + FAILED)
    assert "1 of 90 trials are complete; none has succeeded yet." in page.words
    assert refreshes(page)
    assert not page.all("svg")


def test_page_of_a_finished_search_does_not_reload(tmp_path):
    finish(tmp_path)
    page = page_of(tmp_path, TRIALS)
    assert not refreshes(page)
    winner = "The winner, the best of 2 finalists, has a validation accuracy of 81.0 % ± 1.0 %"
    assert f"{winner} over 3 seeds." in page.words
    assert "for the 9 epochs of all trials. 90 s for the whole command" in page.words
    assert "were complete before" not in page.words
    assert "Accuracy for each droprate" in page.words
    assert len(page.all("svg")) == 5


def test_page_of_both_stages_has_the_last_one_first(tmp_path):
    finish(tmp_path)
    (tmp_path / "trials.csv").write_text(TRIALS)
    tuned = tmp_path / "fine_tuning"
    tuned.mkdir()
    (tuned / "trials.csv").write_text(TUNED)
    write_search_page({tmp_path: (), tuned: SPACE}, CONFIG, 23, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (
        "2 of 23 trials are complete; the best has a validation accuracy of 80.0 %." in page.words
    )
    assert page.words.index("Fine-tuning") < page.words.index("Finalists")
    assert refreshes(page)
    assert [row["trial"] for row in search_section(tuned)["best"]] == [2, 1]


def test_trials_are_ranked_by_the_objective(tmp_path):
    rows = ["1,COMPLETED,0.1,9,0.2,1,4,0.9,0.5,0.6,1", "2,COMPLETED,0.1,9,0.2,1,4,0.8,0.7,0.6,1"]
    header = HEADER.replace("val_loss", "val_balanced_accuracy,val_loss")
    page = page_of(tmp_path, header + "\n".join(rows))
    assert "the best has a validation balanced accuracy of 70.0 %." in page.words
    assert [row["trial"] for row in search_section(tmp_path)["best"]] == [2, 1]


def test_the_best_trials_come_first_and_failed_ones_do_not_count(tmp_path):
    (tmp_path / "trials.csv").write_text(TRIALS + BETTER + FAILED)
    found = search_section(tmp_path, SPACE)
    assert [row["trial"] for row in found["best"]] == [2, 3, 1]  # A tie: the lower loss is better.
    assert (found["finished"], found["failed"], found["seconds"]) == (4, 1, 7)
    assert found["space"] == SPACE
