"""What is written for TensorBoard, read back with TensorBoard's own reader."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from fashion_keras.config import Config
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuning import fine_tune
from fashion_keras.report import outcome, tensor_board
from fashion_keras.training import Datasets, train_head
from tuning import compare, search

CONFIG = Config(
    image_size=71,
    batch_size=8,
    augmented_copies=0,
    epochs=3,
    fine_tuning_copies=0,
    fine_tuning_epochs=2,
    fine_tune_from="block13",
)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def session(folder: Path, tag: str):
    content = read(folder).SummaryMetadata(tag).plugin_data.content
    if tag == metadata.SESSION_START_INFO_TAG:
        return metadata.parse_session_start_info_plugin_data(content)
    return metadata.parse_session_end_info_plugin_data(content)


def knobs(folder: Path) -> dict:
    values = session(folder, metadata.SESSION_START_INFO_TAG).hparams
    return {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in values.items()
        if value.WhichOneof("kind")
    }


def columns(folder: Path) -> tuple[dict[str, bool], list[str]]:
    content = read(folder).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    found = metadata.parse_experiment_plugin_data(content)
    settings = {one.name: one.differs for one in found.hparam_infos}
    return settings, [one.name.tag for one in found.metric_infos]


def status(folder: Path) -> int:
    return session(folder, metadata.SESSION_END_INFO_TAG).status


@pytest.fixture
def material(prepared, tiny_backbone, tmp_path):
    store = FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path / "cache")
    return Datasets(prepared, tiny_backbone, store)


def expected(history, metric):
    return [(row["epoch"], pytest.approx(row[metric])) for row in history]


def test_curves_are_those_of_the_history_also_of_an_earlier_run(material, tmp_path):
    cache = tmp_path / "cache"
    for run in (tmp_path / "first", tmp_path / "again"):
        watch = tensor_board.watch(run)
        head = train_head(CONFIG, material, cache, watch("head"))
        tuned = fine_tune(CONFIG, material, head, cache, watch("fine-tuning"))
        for stage, history in (("head", head.history), ("fine-tuning", tuned.history)):
            for part, prefix in (("train", ""), ("validation", "val_")):
                for metric in ("loss", "accuracy"):
                    shown = points(run / stage, f"{part}/{metric}")
                    assert shown == expected(history, prefix + metric)


def test_nobody_watches_and_nothing_is_written_without_a_folder(tmp_path):
    assert tensor_board.new_run(None, "final") is None
    assert list(tensor_board.watch(None)("head 1")) == []
    first = tensor_board.new_run(tmp_path, "final")
    assert first is not None
    assert first.parent == tmp_path
    assert first.name.startswith("final-20")
    assert not list(tmp_path.iterdir())


def test_settings_and_results_are_one_session(tmp_path):
    settings = dataclasses.asdict(CONFIG)
    tensor_board.add_settings(tmp_path / "good", settings, {"accuracy": 0.5}, 60.0)
    tensor_board.add_settings(tmp_path / "bad", {"droprate": 0.5}, {}, 1.0)
    assert knobs(tmp_path / "good") == settings
    assert (status(tmp_path / "good"), status(tmp_path / "bad")) == (1, 2)  # Success, failure.
    assert points(tmp_path / "good", "accuracy") == [(0, 0.5)]
    shown, metrics = columns(tmp_path / "good")
    assert list(shown) == list(settings)
    first = {name for name, comes_first in shown.items() if comes_first}
    assert first == {"learning_rate", "inner_size", "droprate", "augmented_copies"}
    assert metrics == ["validation_accuracy", "validation_loss"]
    assert columns(tmp_path / "bad") == ({"droprate": True}, metrics)
    end = session(tmp_path / "good", metadata.SESSION_END_INFO_TAG).end_time_secs
    begin = session(tmp_path / "good", metadata.SESSION_START_INFO_TAG).start_time_secs
    assert end - begin == pytest.approx(60, abs=1)


def test_confusion_matrix_and_top_losses_are_pictures(tmp_path, sample_folder):
    names = ["test/hat/000.jpg", "test/shoes/000.jpg"]
    files = {name: sorted((sample_folder / name).parent.iterdir())[0] for name in names}
    Image.new("RGB", (30, 20), "red").save(tmp_path / "confusion.png")
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true", "predicted", "hat", "shoes"])
        writer.writerows([[names[0], "hat", "shoes", 0.1, 0.9], [names[1], "shoes", "shoes", 0, 1]])
    tensor_board.add_test(tmp_path / "run", tmp_path, files)
    found = read(tmp_path / "run")
    (matrix,), (losses,) = found.Images("confusion matrix"), found.Images("top losses")
    assert matrix.encoded_image_string == (tmp_path / "confusion.png").read_bytes()
    assert (matrix.width, matrix.height) == (30, 20)
    assert Image.open(io.BytesIO(losses.encoded_image_string)).size == (losses.width, losses.height)


def test_data_without_a_test_has_no_pictures(tmp_path):
    tensor_board.add_test(tmp_path / "run", tmp_path, {})
    assert not (tmp_path / "run").exists()


def test_the_worst_prediction_comes_first():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    tested = outcome.Predictions(
        ["a", "b", "c"], np.array([0, 1, 0]), probabilities, ["hat", "shoes"]
    )
    told = tensor_board.top_losses(tested)
    assert [name for name, _ in told] == ["b", "c", "a"]
    assert told[0][1] == "shoes\ntaken for hat (0.80)\nloss 1.61"
    assert told[2][1] == "hat\nnamed rightly (0.90)\nloss 0.11"


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        search.main(["--tensorboard", str(tmp_path / "file")])
    assert stopped.value.code == 2
    assert "expected a folder. Received:" in capsys.readouterr().err


def searched(tmp_path, sample_folder, board):
    config = Config(image_size=71, augmented_copies=0, batch_size=8, data=str(sample_folder))
    search.search(config, 2, 2, tmp_path / "results", tmp_path / "cache", board)


def test_a_search_shows_each_trial_with_its_knobs_and_result(
    tmp_path, sample_folder, tiny_backbone, monkeypatch
):
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    monkeypatch.setattr(compare, "SEEDS", 2)
    monkeypatch.setattr(compare, "CURVES", {"droprate": (0.0,)})
    monkeypatch.setattr(search, "CURVES", compare.CURVES)
    monkeypatch.setattr(search, "FINALISTS", 1)
    searched(tmp_path, sample_folder, tmp_path / "board")
    with (tmp_path / "results" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (run,) = (tmp_path / "board").iterdir()
    trials = {row["trial"]: run / f"trial-00{row['trial']}" for row in rows}
    assert set(run.iterdir()) == {*trials.values(), run / "winner"}
    assert list(trials) == ["1", "2", "3", "4", "5"]
    assert read(run / "winner").Tags()["images"] == ["confusion matrix", "top losses"]
    for row in rows:
        best = float(row["val_accuracy"])
        curve = points(trials[row["trial"]], "validation/accuracy")
        epochs = range(int(row["first_epoch"]) + 1, int(row["last_epoch"]) + 1)
        assert [step for step, _ in curve] == list(epochs)
        assert max(value for _, value in curve) == pytest.approx(best)
        assert points(trials[row["trial"]], "validation_accuracy") == [(0, pytest.approx(best))]
        shown = knobs(trials[row["trial"]])
        assert shown["learning_rate"] == pytest.approx(float(row["learning_rate"]))
        assert set(shown) == set(dataclasses.asdict(CONFIG))
        assert columns(trials[row["trial"]]) == columns(run / "trial-001")
    # The finished search, given again with another folder, shows its trials there, too.
    searched(tmp_path, sample_folder, tmp_path / "other")
    (again,) = (tmp_path / "other").iterdir()
    assert {folder.name for folder in again.iterdir()} == {folder.name for folder in run.iterdir()}
    assert knobs(again / "trial-001") == knobs(run / "trial-001")
