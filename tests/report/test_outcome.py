"""Tests of reading back what was written down."""

from pathlib import Path

import numpy as np

from fashion_keras.report import outcome
from fashion_keras.report.outcome import read_json, read_rows, read_tested


def test_predictions_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    text = 'file,true,predicted,file,"a, b"\nx.jpg,"a, b",file,0.75,0.25\ny.jpg,file,file,0.6,0.4\n'
    file.write_text(text)
    answers = read_tested(file)
    assert answers is not None
    assert answers.labels == ["file", "a, b"]
    assert answers.names == ["x.jpg", "y.jpg"]
    np.testing.assert_array_equal(answers.true, [1, 0])
    np.testing.assert_array_equal(answers.predicted, [0, 0])
    np.testing.assert_array_equal(answers.correct, [False, True])
    np.testing.assert_array_equal(answers.confidence, [0.75, 0.6])


def test_the_highest_losses_come_first() -> None:
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    answers = outcome.Tested(["a", "b", "c"], np.array([0, 0, 1]), rows, ["hat", "cap"])
    assert answers.top_losses(2) == [2, 1]
    np.testing.assert_allclose(answers.losses, -np.log([0.9, 0.2, 1e-15]))


def test_certain_and_right_answers_have_no_loss_and_no_sign() -> None:
    rows = np.array([[1.0, 0.0], [1.0000001, 0.0]])
    losses = outcome.Tested(["a", "b"], np.array([0, 0]), rows, ["hat", "cap"]).losses
    assert [f"{loss:.2f}" for loss in losses] == ["0.00", "0.00"]


def test_numbers_of_tables_are_floats_and_texts_stay(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("stage,loss\nhead 1,0.5\nhead 2,\n")
    assert read_rows(tmp_path / "rows.csv") == [
        {"stage": "head 1", "loss": 0.5},
        {"stage": "head 2", "loss": ""},
    ]


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_tested(tmp_path / "gone") is None
    assert read_rows(tmp_path / "gone") == []
    assert read_json(tmp_path / "gone") == {}
