"""Pictures of a search."""

from PIL import Image

from tuning.pictures import draw_knob, draw_space


def trial(status="COMPLETED", **values):
    row = {"learning_rate": "0.001", "inner_size": "64", "droprate": "0.2", "augmented_copies": "1"}
    return {**row, "val_accuracy": "0.8", "last_epoch": "4", "status": status, **values}


def test_space_shows_completed_trials(tmp_path):
    rows = [trial(), trial(augmented_copies="0", val_accuracy="0.6")]
    draw_space(rows, tmp_path / "two.png")
    draw_space([*rows, trial("FAILED", val_accuracy="")], tmp_path / "failed.png")
    draw_space(rows[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "failed.png").read_bytes()
    assert (tmp_path / "two.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_knob_has_a_line_for_each_value(tmp_path):
    rows = [
        {
            "knob": "droprate",
            "value": value,
            "epoch": epoch,
            "val_accuracy": 0.5 + value * epoch / 9,
        }
        for value in (0.0, 0.2, 0.5, 0.8)
        for epoch in (1, 2)
    ]
    draw_knob(rows, "droprate", tmp_path / "all.png")
    draw_knob(rows[:6], "droprate", tmp_path / "three.png")
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "three.png").read_bytes()
