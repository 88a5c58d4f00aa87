"""Tests of the whole run: its files, its numbers, its options, and a slice of the real photos."""

import csv
import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras import cli
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError, read_config, to_json
from fashion_keras.data import batches
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.sample import LABELS
from fashion_keras.evaluate import predict_all, write_metrics
from fashion_keras.final import final, main
from fashion_keras.finish import labelled
from fashion_keras.inspection import read_metadata
from fashion_keras.metrics import fit_temperature, scores
from fashion_keras.planning import Speed
from fashion_keras.saving import data_fingerprint
from fashion_keras.stopwatch import profiled

KNOBS: dict[str, Any] = {
    "image_size": 71,
    "batch_size": 8,
    "inner_size": 8,
    "epochs": 2,
    "fine_tuning_copies": 1,
    "fine_tuning_epochs": 1,
    "fine_tune_from": "block13",
}
# For what does not depend on fine-tuning.
QUICK: dict[str, Any] = KNOBS | {"fine_tuning_epochs": 0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where prepared photos and vectors stay from test to test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def backbone(
    request: pytest.FixtureRequest, tiny_backbone: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put the tiny backbone in place of Xception, but not on the real photos."""
    if "real_weights" not in request.fixturenames:
        monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)


@pytest.fixture
def run(sample_folder: Path, tmp_path: Path, cache: Path) -> Path:
    """Run on the drawn photos, once for all tests, and return a copy of the results folder."""
    if not (cache / "results").exists():
        with profiled(cache / "profile.json"):
            final(Config(data=str(sample_folder), **KNOBS), cache / "results", cache)
    return shutil.copytree(cache / "results", tmp_path / "results")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def test_run_writes_all_its_files(run: Path) -> None:
    names = "confusion.png fashion.keras history.csv learning_curves.png metrics.json training.json"
    expected = sorted([*names.split(), "config.json", "predictions.csv", "report.html"])
    assert sorted(path.name for path in run.iterdir()) == expected
    for name in ("confusion.png", "learning_curves.png"):
        with Image.open(run / name) as picture:
            assert picture.format == "PNG"


def test_metrics_follow_from_the_predictions(run: Path) -> None:
    rows = read_rows(run / "predictions.csv")
    probabilities = np.array([[float(row[label]) for label in LABELS] for row in rows])
    expected = scores(np.array([LABELS.index(row["true"]) for row in rows]), probabilities, LABELS)
    found = read_json(run / "metrics.json")
    digest = hashlib.sha256((run / "fashion.keras").read_bytes()).hexdigest()
    assert found.pop("model_sha256") == digest
    assert found.pop("unreadable") == []
    assert found.pop("run")["seconds"] > 0
    assert found.pop("by_class") == expected.pop("by_class")
    assert found.pop("accuracy_interval") == expected.pop("accuracy_interval")
    assert found == pytest.approx(expected, abs=1e-5)
    assert [row["predicted"] for row in rows] == [
        LABELS[number] for number in probabilities.argmax(axis=1)
    ]


def test_every_test_photo_has_the_row_that_predict_gives(run: Path, sample_folder: Path) -> None:
    rows = read_rows(run / "predictions.csv")
    files = sorted((sample_folder / "test").glob("*/*.jpg"))
    assert [sample_folder / row["file"] for row in rows] == files
    assert [row["true"] for row in rows] == [file.parent.name for file in files]
    predictions = load_classifier(run / "fashion.keras").predict(files)
    expected = [prediction.probabilities for prediction in predictions]
    found = [[float(row[label]) for label in LABELS] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_metrics_name_validation_and_the_run(run: Path) -> None:
    metrics = read_json(run / "training.json")
    assert set(metrics) == {"validation", "fine_tune_from", "budget", "peak_memory_gb", "run"}
    assert (metrics["fine_tune_from"], metrics["budget"]) == ("block13", None)
    known = cli.peak_memory() is not None
    assert 0.1 < metrics["peak_memory_gb"] < 100 if known else metrics["peak_memory_gb"] is None
    assert metrics["validation"]["accuracy"] * 20 == pytest.approx(
        round(metrics["validation"]["accuracy"] * 20)
    )
    assert metrics["validation"]["loss"] > 0
    assert metrics["run"]["seconds"] > 0


def test_saved_file_tells_its_training_and_its_score(
    run: Path, sample_folder: Path, prepared: Prepared
) -> None:
    card = read_metadata(run / "fashion.keras")
    metrics, training = read_json(run / "metrics.json"), read_json(run / "training.json")
    assert card["test"] == {name: metrics[name] for name in card["test"]}
    assert {"accuracy", "accuracy_interval", "correct", "photos"} <= set(card["test"])
    assert card["validation"] == training["validation"]
    assert 0.05 <= card["temperature"] <= 20
    assert card["temperature"] != 1
    assert card["data"] == {
        "name": sample_folder.name,
        "fingerprint": data_fingerprint(prepared),
        "photos": {"train": 40, "validation": 20, "test": 20},
    }
    assert load_classifier(run / "fashion.keras").metadata == card


def test_probabilities_are_calibrated_on_validation(run: Path, prepared: Prepared) -> None:
    classifier = load_classifier(run / "fashion.keras")
    photos = labelled(prepared, "validation")
    readable, probabilities, _ = predict_all(classifier, photos, "again")
    true = np.array([LABELS.index(photo.label) for photo in readable])
    temperature = classifier.metadata["temperature"]
    before = probabilities.astype("float64") ** temperature
    before /= before.sum(axis=1, keepdims=True)
    assert fit_temperature(true, before) == pytest.approx(temperature, rel=0.01)


def test_page_tells_the_score(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    metrics = read_json(run / "metrics.json")
    assert f"{metrics['correct']} of {metrics['photos']}" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_curves_and_score_go_to_tensorboard_if_that_is_asked_for(
    sample_folder: Path, tmp_path: Path, cache: Path
) -> None:
    config = Config(data=str(sample_folder), **KNOBS)
    final(config, tmp_path / "final", cache, board=tmp_path / "board")
    (run,) = (tmp_path / "board").iterdir()
    assert {"head-1", "head-2", "fine-tuning"} <= {path.name for path in run.iterdir()}
    assert any(path.is_file() for path in run.iterdir())


def test_training_and_test_have_their_own_times(
    sample_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def written(metrics: dict, start: float, file: Path) -> None:
        seen.append((start, read_json(file.with_name("training.json"))["run"]["seconds"]))
        write_metrics(metrics, start, file)

    monkeypatch.setattr("fashion_keras.finish.write_metrics", written)
    begun = time.monotonic()
    final(Config(data=str(sample_folder), **QUICK), tmp_path, cache)
    ((tested, trained),) = seen
    assert 0 < trained <= tested - begun + 0.1


def test_learning_rate_can_be_found_first(
    sample_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(config: Config, material: Any, picture: Path) -> Config:
        picture.write_bytes(b"curve")
        return dataclasses.replace(config, learning_rate=0.0123)

    monkeypatch.setattr("fashion_keras.final.with_found_rate", found)
    config = Config(data=str(sample_folder), **QUICK)
    final(config, tmp_path / "final", cache, find_rate=True)
    assert read_config(tmp_path / "final" / "config.json").learning_rate == 0.0123
    assert (tmp_path / "final" / "learning_rate.png").read_bytes() == b"curve"


def test_configuration_is_written_as_it_was_used(run: Path, sample_folder: Path) -> None:
    assert read_config(run / "config.json") == Config(data=str(sample_folder), **KNOBS)


def test_run_says_what_it_found(
    sample_folder: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = final(Config(data=str(sample_folder), **QUICK), tmp_path, cache)
    metrics = read_json(tmp_path / "metrics.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("photos: 40 train, 20 validation, 20 test; 10 classes: dress, hat")
    assert f"everything will be in {tmp_path}" in lines
    score = f"test: accuracy {metrics['accuracy']:.4f} ({metrics['correct']} of 20), 95 % interval"
    assert any(line.startswith(score) for line in lines)
    assert lines[-1] == f"saved {file} ({file.stat().st_size / 1e6:.0f} MB)"


@pytest.mark.parametrize("loss", [0.0, 99.0])
def test_fine_tuning_that_made_it_worse_is_said(
    loss: float,
    sample_folder: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fine_tune(config: Config, material: Any, start: Any, *others: Any) -> Any:
        return start._replace(validation={"loss": loss, "accuracy": 0.5})

    monkeypatch.setattr("fashion_keras.final.fine_tune", fine_tune)
    final(Config(data=str(sample_folder), **KNOBS), tmp_path, cache)
    told = "fine-tuning made it worse; `--fine-tuning-epochs 0` keeps the head"
    assert (told in capsys.readouterr().out) == (loss > 1)


def test_a_budget_is_planned_and_said(
    sample_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    speed = Speed(forward=1e6, fine_tuning=20.0, head=1e6)  # A pass is planned to take 2.3 seconds.
    monkeypatch.setattr("fashion_keras.planning.measure", lambda *_: speed)
    knobs: dict[str, Any] = KNOBS | {"fine_tuning_epochs": 20}
    config = Config(data=str(sample_folder), **knobs)
    final(config, tmp_path, tmp_path / "cache", budget=1.0)
    planned = read_json(tmp_path / "training.json")["budget"]
    done = read_config(tmp_path / "config.json").fine_tuning_epochs
    assert 0 < done < 20
    assert f"fine_tuning_epochs: {done} instead of 20" in planned["left_out"]
    assert planned["budget_minutes"] == 1.0
    shown = capsys.readouterr().out
    assert f"left out for the budget: fine_tuning_epochs: {done} instead of 20" in shown


def test_an_interrupted_run_goes_on(
    sample_folder: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    knobs: dict[str, Any] = KNOBS | {"fine_tuning_epochs": 2, "seed": 5}
    config = Config(data=str(sample_folder), **knobs)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fashion_keras.finish.save_classifier", interrupt)
        with pytest.raises(KeyboardInterrupt):
            final(config, tmp_path, cache)
    capsys.readouterr()
    monkeypatch.setattr("fashion_keras.data.batches.load_photos", interrupt)
    final(config, tmp_path, cache)
    assert "fine-tuning continues after epoch 2" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_budget_that_is_no_time_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(arguments(tmp_path, "--budget", text))
    assert f"expected minutes, more than 0. Received: {text}" in capsys.readouterr().err


@pytest.fixture
def without_test(sample_folder: Path, tmp_path: Path) -> Path:
    """Copy the drawn photos of two classes without their test split."""
    for place in ("train/hat", "train/dress", "validation/hat", "validation/dress"):
        shutil.copytree(sample_folder / place, tmp_path / "photos" / place)
    return tmp_path / "photos"


def test_without_test_split_there_is_no_test_score(
    without_test: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final(Config(data=str(without_test), **QUICK), tmp_path / "results", cache)
    assert "the data has no test split: no test score" in capsys.readouterr().out.splitlines()
    for name in ("metrics.json", "predictions.csv", "confusion.png"):
        assert not (tmp_path / "results" / name).exists()


def test_test_score_of_an_earlier_run_does_not_stay(
    run: Path, without_test: Path, cache: Path
) -> None:
    final(Config(data=str(without_test), **QUICK), run, cache)
    names = "config.json fashion.keras history.csv learning_curves.png report.html training.json"
    assert sorted(path.name for path in run.iterdir()) == names.split()


def test_an_interrupted_run_leaves_the_earlier_one_as_it_was(
    run: Path, sample_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fashion_keras.final._write_outcome", interrupt)
    with pytest.raises(KeyboardInterrupt):
        final(Config(data=str(sample_folder), seed=2, **QUICK), run, cache)
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert before == after


def test_test_photos_are_never_used_for_training(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], batches.load_photos

    def listen(photos: Any, *others: Any) -> Any:
        asked.extend({photo.split for photo in photos})
        return read(photos, *others)

    monkeypatch.setattr("fashion_keras.data.batches.load_photos", listen)
    final(Config(data=str(sample_folder), **KNOBS), tmp_path / "results", tmp_path)
    assert sorted(asked) == ["train", "train", "validation"]
    assert len(list((tmp_path / "features").glob("*.npy"))) == 6  # Features and feature maps.


def test_profile_of_a_run_names_its_stages(run: Path, cache: Path) -> None:
    stages = read_json(cache / "profile.json")["stages"]
    before, after = ["other", "prepare", "weights", "vectors", "heads"], ["saving", "report"]
    assert sorted(stages) == sorted([*before, "fine-tuning", "scoring", *after])
    assert {"decode", "augment", "forward", "I/O"} < stages["vectors"].keys()
    assert "head" in stages["heads"]
    assert {"backbone", "I/O"} < stages["fine-tuning"].keys()


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Put a list of what it was called with in place of `final`."""
    calls: list[tuple] = []
    monkeypatch.setattr("fashion_keras.final.final", lambda *arguments: calls.append(arguments))
    return calls


def arguments(folder: Path, *others: str) -> list[str]:
    return ["--results", str(folder), "--cache", str(folder / "cache"), *others]


def test_without_a_search_the_values_of_the_course_are_used(
    used: list[tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(tmp_path, "--profile", str(tmp_path / "profile.json")))
    assert "other" in read_json(tmp_path / "profile.json")["stages"]
    assert used == [(Config(), tmp_path / "final", tmp_path / "cache", None, "", None, False)]
    config = used[0][0]
    assert (config.image_size, config.inner_size, config.droprate) == (299, 100, 0.2)
    assert config.learning_rate == 0.0005
    assert "the course's best values are used" in capsys.readouterr().out


def test_winner_of_the_search_is_trained_as_it_was_written(
    used: list[tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "search").mkdir()
    found = Config(learning_rate=0.01, augmented_copies=3, image_size=150, epochs=7)
    (tmp_path / "search" / "best_config.json").write_text(to_json(found))
    main(arguments(tmp_path))
    assert used[0][0] == found
    assert f"configuration: {tmp_path / 'search' / 'best_config.json'}" in capsys.readouterr().out


def test_given_configuration_goes_before_the_search_and_options_before_both(
    used: list[tuple], tmp_path: Path
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "best_config.json").write_text(to_json(Config(droprate=0.9)))
    (tmp_path / "mine.json").write_text(to_json(Config(droprate=0.5, learning_rate=0.01)))
    options = ["--config", str(tmp_path / "mine.json"), "--learning-rate", "0.02"]
    main(arguments(tmp_path, *options, "--image-size", "71"))
    assert used[0][0] == Config(droprate=0.5, learning_rate=0.02, image_size=71)


def test_missing_configuration_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No configuration file .*`python -m tuning\.search`"):
        main(arguments(tmp_path, "--config", str(tmp_path / "gone.json")))


def test_missing_photos_end_the_command_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main(arguments(tmp_path, "--data", str(tmp_path / "gone"))))
    assert capsys.readouterr().err.startswith("error: No folder ")


@pytest.fixture
def real_slice(real_data: Path, tmp_path: Path) -> Path:
    """Link 20 photos for training, 5 for validation and 5 for testing of each real class."""
    for split, count in {"train": 20, "validation": 5, "test": 5}.items():
        for class_folder in sorted((real_data / split).iterdir()):
            target = tmp_path / "photos" / split / class_folder.name
            target.mkdir(parents=True)
            for file in sorted(class_folder.iterdir())[:count]:
                (target / file.name).symlink_to(file)
    return tmp_path / "photos"


def test_few_real_photos_are_enough_for_a_good_classifier(
    real_slice: Path, real_weights: Path, tmp_path: Path
) -> None:
    knobs: dict[str, Any] = {
        "image_size": 150,
        "augmented_copies": 0,
        "inner_size": 0,
        "learning_rate": 0.005,
    }
    knobs["fine_tuning_epochs"] = 0
    config = Config(data=str(real_slice), weights=str(real_weights), epochs=15, **knobs)
    file = final(config, tmp_path / "results", tmp_path / "cache")
    metrics = read_json(tmp_path / "results" / "metrics.json")
    assert metrics["photos"] == 50
    assert metrics["accuracy"] >= 0.55  # 0.62 was measured; guessing gives 0.1.
    assert load_classifier(file).labels == list(LABELS)  # The drawn sample has the same classes.
