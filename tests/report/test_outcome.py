"""Tests of reading results."""

import numpy as np

from fashion_keras.report.outcome import Predictions, read_predictions, read_rows


def test_predictions_are_read_back(tmp_path):
    file = tmp_path / "predictions.csv"
    text = 'file,true,predicted,file,"a, b"\nx.jpg,"a, b",file,0.75,0.25\ny.jpg,file,file,0.6,0.4\n'
    file.write_text(text)
    scored = read_predictions(file)
    assert scored is not None
    assert scored.labels == ["file", "a, b"]
    assert scored.names == ["x.jpg", "y.jpg"]
    np.testing.assert_array_equal(scored.true, [1, 0])
    np.testing.assert_array_equal(scored.correct, [False, True])
    np.testing.assert_array_equal(scored.confidence, [0.75, 0.6])


def test_the_highest_losses_come_first():
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    scored = Predictions(["a", "b", "c"], np.array([0, 0, 1]), rows, ["hat", "cap"])
    assert scored.top_losses(2) == [2, 1]
    np.testing.assert_allclose(scored.losses, -np.log([0.9, 0.2, 1e-15]))
    assert scored.caption(0) == "hat\npredicted correctly (0.90)\nloss 0.11"
    assert scored.caption(1) == "hat\npredicted as cap (0.80)\nloss 1.61"


def test_numbers_of_tables_are_floats(tmp_path):
    (tmp_path / "rows.csv").write_text("stage,loss,augmented_copies\nhead 1,0.5,1\nhead 2,,0\n")
    assert read_rows(tmp_path / "rows.csv") == [
        {"stage": "head 1", "loss": 0.5, "augmented_copies": 1},
        {"stage": "head 2", "loss": "", "augmented_copies": 0},
    ]
