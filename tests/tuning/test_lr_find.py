"""The command that finds a learning rate, on drawn photos."""

import json

import pytest

from fashion_keras.config import Config, InputError
from tests.builders import options_of
from tests.test_keys import OTHERS as OTHER_VALUES
from tuning import lr_find


@pytest.fixture
def run(tmp_path, sample_folder, tiny_backbone, monkeypatch):
    """Return what runs the command on the drawn photos, and its results folder."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda config: tiny_backbone)
    words = ["--data", str(sample_folder), "--results", str(tmp_path)]
    words += ["--cache", str(tmp_path / "cache"), "--image-size", "71", "--batch-size", "8"]
    words += ["--augmented-copies", "0"]
    return lambda *more: lr_find.main([*words, *more]), tmp_path / "lr_find"


@pytest.mark.slow
def test_the_head_is_tested_and_all_is_written(run, capsys, sample_folder, tmp_path):
    command, folder = run
    command("--steps", "150", "--low", "0.0001")
    written = json.loads((folder / "head.json").read_text())
    rate = written["suggestions"]["valley"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-5:-2]] == ["valley", "steep", "minimum"]
    assert float(lines[-5].split()[1]) == rate
    assert lines[-6] == f"the curve: {folder / 'head'}.png"
    assert lines[-2] == (
        f"use it: python -m fashion_keras.final --data {sample_folder} --augmented-copies 0 "
        f"--batch-size 8 --results {tmp_path} --cache {tmp_path / 'cache'} "
        f"--learning-rate {rate:g}"
    )
    assert "`--learning-rate auto` makes a test of its own" in lines[-1]
    assert written["curve"]["rates"][0] == 1e-4
    assert written["config"]["image_size"] == 71
    assert {file.name for file in folder.iterdir()} == {"head.json", "head.png"}


@pytest.mark.slow
def test_a_curve_that_suggests_nothing_is_drawn_all_the_same(run):
    command, folder = run
    with pytest.raises(InputError, match="lowers the loss clearly"):
        command("--steps", "30", "--low", "0.00000001", "--high", "0.0000001")
    assert json.loads((folder / "head.json").read_text())["suggestions"] == {}
    assert (folder / "head.png").exists()


@pytest.mark.slow
def test_fine_tuning_is_tested_after_its_cost_is_printed(run, capsys):
    command, folder = run
    words = ["--fine-tune", "--steps", "150", "--fine-tune-from", "block13", "--epochs", "2"]
    command(*words, "--learning-rate", "0.00001", "--low", "0.0001", "--high", "1")
    lines = capsys.readouterr().out.splitlines()
    assert "150 steps of fine-tuning from block13, 30.0 epochs of 40 photos" in lines
    assert "--fine-tuning-learning-rate" in lines[-1]
    assert {file.name for file in folder.iterdir()} == {"fine_tuning.json", "fine_tuning.png"}


OTHERS = {f"--{name.replace('_', '-')}": str(value) for name, value in OTHER_VALUES.items()}
OTHERS |= {"--low": "0.001", "--high": "0.1", "--steps": "50", "--fine-tuning-copies": "3"}
OTHERS |= {"--results": "elsewhere", "--cache": "elsewhere"}


@pytest.mark.parametrize("option", options_of(lr_find.options()))
def test_every_option_changes_what_is_tested_or_where(option, monkeypatch):
    calls = []
    monkeypatch.setattr(lr_find, "find", lambda *call: calls.append(call) or 0.1)
    for words in ([], [option, *OTHERS.get(option, "").split()]):
        lr_find.main(words)
    assert calls[0] != calls[1]
    assert isinstance(calls[0][0], Config)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--low", "1", "--high", "0.1"], "its lower end first. Received: 1 to 0.1"),
        (["--steps", "0"], "20 steps or more. Received: 0"),
        (["--fine-tune", "--fine-tune-from", "block1"], "`fine_tune_from` must be"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_unusable_options_are_refused_before_anything_is_done(arguments, advice, tmp_path):
    with pytest.raises(InputError, match=advice):
        lr_find.main([*arguments, "--results", str(tmp_path / "results")])
    assert not (tmp_path / "results").exists()
