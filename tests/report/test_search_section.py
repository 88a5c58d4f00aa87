"""Tests of the search's tables and charts."""

from typing import Any

from fashion_keras.report.search_section import search_section


def trial(number: int, accuracy: float, **others: Any) -> dict[str, Any]:
    knobs = {"learning_rate": 0.001 * number, "inner_size": 16.0 * number, "droprate": 0.1 * number}
    row = {
        "trial": float(number),
        "status": "COMPLETED",
        "augmented_copies": number % 2,
        "last_epoch": 4.0,
    }
    return {**row, **knobs, "val_accuracy": accuracy, "seconds": 1.5, **others}


def test_best_trials_come_first_and_failed_ones_do_not_count() -> None:
    failed = trial(3, 0.0, status="FAILED", val_accuracy="")
    found = search_section([trial(1, 0.5), trial(2, 0.7), failed])
    assert (found["finished"], found["failed"]) == (3, 1)
    assert [row["trial"] for row in found["best"]] == [2, 1]
    assert "2 points" in found["progress"]["text"]
    assert found["seconds"] == 4.5


def test_only_failed_trials_give_no_charts() -> None:
    found = search_section([trial(1, 0.0, status="FAILED", val_accuracy="")])
    assert (found["charts"], found["progress"], found["best"]) == ([], None, [])


def test_the_space_is_what_was_drawn_unless_it_was_written_down() -> None:
    trials = [trial(1, 0.5), trial(2, 0.7)]
    drawn = search_section(trials)
    rate = {"name": "learning_rate", "least": 0.001, "most": 0.002, "steps": "log"}
    assert drawn["space"][0] == rate
    assert not drawn["space_known"]
    assert search_section(trials, summary={"space": [rate]})["space"] == [rate]


def test_curves_have_a_line_for_each_value() -> None:
    curves = [
        {"knob": "droprate", "value": value, "epoch": epoch, "val_accuracy": 0.5}
        for value in (0.0, 0.2, 0.5, 0.8)
        for epoch in (1.0, 2.0)
    ]
    (chart,) = search_section([trial(1, 0.5)], curves=curves)["curves"]
    assert [one["name"] for one in chart["legend"]] == ["0", "0.2", "0.5", "0.8"]
