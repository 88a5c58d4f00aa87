"""Tests of the whole run: its files, its numbers, and its options."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from fashion_keras import cli
from fashion_keras.artifacts import sha256_of
from fashion_keras.backend import keras
from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, InputError, read_config, to_json
from fashion_keras.data.sample import LABELS
from fashion_keras.evaluate import labelled, predict_photos, recalls
from fashion_keras.final import PAGE, final, main
from fashion_keras.fine_tuning import FineTuned
from fashion_keras.inspection import read_metadata
from fashion_keras.metrics import fit_temperature
from fashion_keras.saving import data_fingerprint
from tests.builders import contents, rows_of

pytestmark = pytest.mark.slow
FIELDS: dict[str, Any] = {
    "image_size": 71,
    "batch_size": 8,
    "inner_size": 8,
    "epochs": 2,
    "fine_tuning_copies": 1,
    "fine_tuning_epochs": 1,
    "fine_tune_from": "block13",
}
Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def backbone(tiny_backbone, monkeypatch):
    """Put the tiny backbone in place of Xception, and leave the cross-validation out."""
    found = np.repeat([0, 1], [6, 4]), np.array([0] * 8 + [1] * 2)
    monkeypatch.setattr("fashion_keras.evaluate.cross_validate", lambda *_: found)
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda config: tiny_backbone)


@pytest.fixture
def quick(sample_folder, tmp_path, cache):
    """Return what runs on the drawn photos, without fine-tuning unless that is asked for."""

    def run(folder: Path | None = None, options: dict | None = None, **fields: Any) -> Path:
        all_fields = {"data": str(sample_folder), **FIELDS, "fine_tuning_epochs": 0, **fields}
        return final(Config(**all_fields), folder or tmp_path / "final", cache, **(options or {}))

    return run


@pytest.fixture
def finished(quick, tmp_path, cache):
    """Run with fine-tuning, once for all tests, and return a copy of the results folder."""
    if not (cache / "results").exists():
        with pytest.MonkeyPatch.context() as patch:  # There are 20 photos for validation.
            patch.setattr("fashion_keras.metrics.LEAST_TO_CALIBRATE", 20)
            quick(cache / "results", fine_tuning_epochs=1)
    return shutil.copytree(cache / "results", tmp_path / "results")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def names_in(folder: Path) -> str:
    return " ".join(sorted(path.name for path in folder.iterdir()))


def test_run_writes_all_its_files_and_its_scores(finished, sample_folder, prepared):
    assert names_in(finished) == (
        "config.json confusion.png distances.csv fashion.keras history.csv learning_curves.png "
        "metrics.json predictions.csv report.html training.json"
    )
    assert read_config(finished / "config.json") == Config(data=str(sample_folder), **FIELDS)
    stages = [row["stage"] for row in rows_of(finished / "history.csv")]
    assert stages == ["head", "head", "fine-tuning"]
    training, metrics = (read_json(finished / f"{name}.json") for name in ("training", "metrics"))
    assert set(training) == {
        *("validation", "validation_by_side", "fine_tune_from", "budget", "peak_memory_gb", "run")
    }
    assert training["validation_by_side"] == {"71": training["validation"]}
    assert (training["fine_tune_from"], training["budget"]) == ("block13", None)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert f"{metrics['correct']} of {metrics['photos']}" in page
    assert metrics["model_sha256"] == sha256_of(finished / "fashion.keras")
    metadata = read_metadata(finished / "fashion.keras")
    assert metadata["validation"] == training["validation"]
    assert metadata["test"] == {name: metrics[name] for name in metadata["test"]}
    assert {"accuracy", "accuracy_interval", "correct", "photos"} <= set(metadata["test"])
    assert metadata["data"] == {
        "name": sample_folder.name,
        "fingerprint": data_fingerprint(prepared),
        "photos": {"train": 40, "validation": 20, "test": 20},
    }


def test_photos_are_predicted_by_the_engine_that_is_best_for_them(quick, cache, engine_asked):
    quick()
    # To calibrate, to know what is none of the categories, and to test.
    assert engine_asked == [(photos, 71, cache) for photos in (20, 40, 20)]


def test_the_head_alone_is_kept_where_fine_tuning_does_not_help(quick, monkeypatch, capsys):
    expected: list[np.ndarray] = []

    def worse(config: Config, datasets: Any, trained: Any, *others: Any) -> FineTuned:
        expected.extend([*datasets.backbone.get_weights(), *trained.head.get_weights()])
        spoilt: Any = keras.models.clone_model(trained.head)
        return FineTuned(datasets.backbone, spoilt, [], {"loss": 9.0, "accuracy": 0.1})

    monkeypatch.setattr("fashion_keras.fine_tuning.fine_tune", worse)
    kept: Any = load_classifier(quick(fine_tuning_epochs=1)).model
    assert "the head alone is kept" in capsys.readouterr().out
    for weight, saved in zip(expected, kept.get_weights(), strict=True):
        np.testing.assert_array_equal(weight.astype("float16"), saved)


def test_photos_are_resized_to_a_side_that_is_given(quick):
    file = quick(predict_size=90)
    metadata = read_metadata(file)
    assert (metadata["image_size"], metadata["training_image_size"]) == (90, 71)
    resize: Any = load_classifier(file).model.get_layer("resize")
    assert (resize.height, resize.width) == (90, 90)


@pytest.mark.parametrize("clearly", [True, False])
def test_a_larger_side_is_chosen_if_its_loss_is_clearly_lower(clearly, quick, monkeypatch, capsys):
    monkeypatch.setattr("fashion_keras.model._MIN_PHOTOS", 20)
    monkeypatch.setattr("fashion_keras.metrics.clearly_lower", lambda *_: clearly)
    file = quick()
    training, metadata = read_json(file.with_name("training.json")), read_metadata(file)
    sides = training["validation_by_side"]
    assert list(sides) == ["71", "82", "94"]
    best = min(sides, key=lambda side: sides[side]["loss"])
    chosen = best if clearly else "71"
    assert f"photos will be resized to {chosen} px" in capsys.readouterr().out
    assert metadata["image_size"] == int(chosen)
    assert metadata["validation"] == training["validation"] == sides[chosen]


def test_few_photos_for_validation_are_said_and_calibrate_nothing(quick, capsys):
    metadata = read_metadata(quick())
    output = capsys.readouterr().out
    assert metadata["temperature"] == 1
    assert "temperature: not calibrated, with so few photos" in output
    assert "warning: validation has 20 photos, 2 of dress: one photo is 5.0 percent" in output


@pytest.mark.parametrize("epochs", [0, 1])
def test_with_few_photos_the_last_lines_are_of_cross_validation(epochs, quick, capsys):
    file = quick(fine_tuning_epochs=epochs, weights="released")
    *_, first, second, saved, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "Cross-validated accuracy 0.8000 (8 of 10), 95 % interval 0.490 to 0.943, balanced "
        "accuracy 0.7500: the head on frozen features, cross-validated in 5 folds; "
    )
    assert ("fine-tuning, which comes after it, is not measured" in first) == bool(epochs)
    assert "too high if the weights of the backbone were trained on these photos" in first
    assert "other people" in second
    assert saved.startswith("saved ")
    found = read_metadata(file)["cross_validation"]
    assert found["accuracy"] == 0.8
    for name in ("training.json", "metrics.json"):
        assert read_json(file.with_name(name))["cross_validation"] == found
    assert first in file.with_name("report.html").read_text(encoding="utf-8")


def test_recall_is_shown_by_class_and_one_of_zero_is_a_warning():
    row = lambda recall, support=9: {"recall": recall, "support": support}  # noqa: E731
    classes = {"hat": row(1.0), "sock": row(0.0), "tie": row(0.5), "cap": row(0.0, 0)}
    assert recalls(classes).splitlines() == [
        "recall: sock 0.00, tie 0.50, hat 1.00",
        "warning: never recognised: sock",
    ]
    many = {str(number): row(number / 20) for number in range(1, 16)}
    assert recalls(many).endswith("12 0.60 and 3 more")


def test_probabilities_are_calibrated_on_validation(finished, prepared):
    classifier = load_classifier(finished / "fashion.keras")
    photos = labelled(prepared, "validation")
    found, _ = predict_photos(classifier, photos, "again")
    probabilities = np.stack([prediction.probabilities for _, prediction in found])
    true = np.array([LABELS.index(photo.label) for photo, _ in found])
    temperature = classifier.metadata["temperature"]
    before = probabilities.astype("float64") ** temperature
    before /= before.sum(axis=1, keepdims=True)
    assert temperature != 1
    assert fit_temperature(true, before) == pytest.approx(temperature, rel=0.01)


def test_run_shows_what_it_found(quick, tmp_path, monkeypatch, capsys):
    def found(config: Config, datasets: Any, picture: Path) -> Config:
        picture.write_bytes(b"curve")
        return dataclasses.replace(config, learning_rate=0.0123)

    monkeypatch.setattr("fashion_keras.final.with_found_rate", found)
    file = quick(options={"log_dir": tmp_path / "board", "find_rate": True})
    metrics = read_json(file.with_name("metrics.json"))
    shown = capsys.readouterr().out
    for line in (
        "photos: 40 train, 20 validation, 20 test; 10 classes: dress, hat",
        f"everything will be in {file.parent}\n",
        f"test: accuracy {metrics['accuracy']:.4f} ({metrics['correct']} of 20), 95 % interval",
        f"saved {file} ({file.stat().st_size / 1e6:.0f} MB); report: {file.with_name(PAGE)}\n",
        f"now run: python -m fashion_keras.predict {file} PHOTOS\n",
    ):
        assert f"\n{line}" in f"\n{shown}"
    assert read_config(file.with_name("config.json")).learning_rate == 0.0123
    assert file.with_name("learning_rate.png").read_bytes() == b"curve"
    (run,) = (tmp_path / "board").iterdir()
    assert list(run.rglob("events.out.tfevents.*"))


def test_budget_is_planned_and_shown(quick, monkeypatch, capsys):
    # An epoch should take 2.3 seconds.
    speed = {"forward": 1e6, "fine_tuning": 20.0, "head": 1e6, "head_start": 1.0}
    monkeypatch.setattr("fashion_keras.timing.measure", lambda *_, **options: speed)
    file = quick(options={"budget": 1.0}, fine_tuning_epochs=20, precision="mixed_bfloat16")
    planned = read_json(file.with_name("training.json"))["budget"]
    done = read_config(file.with_name("config.json")).fine_tuning_epochs
    assert 0 < done < 20
    assert planned["budget_minutes"] == 1.0
    line = f"fine_tuning_epochs: {done} instead of 20"
    assert line in planned["left_out"]
    assert f"left out for the budget: {line}" in capsys.readouterr().out
    model: Any = keras.saving.load_model(file)  # The saved file is float32 in any case.
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


def test_interrupted_run_leaves_earlier_results_and_goes_on(quick, finished, monkeypatch, capsys):
    before = contents(finished)
    fields = {"fine_tuning_epochs": 2, "seed": 5}
    with monkeypatch.context() as patched:
        patched.setattr("keras.Model.save", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quick(finished, **fields)
    assert contents(finished) == before
    capsys.readouterr()
    quick(finished, **fields)
    shown = capsys.readouterr().out
    assert "found a head trained before: 2 epochs" in shown
    assert "fine-tuning continues after epoch 2, found in the cache" in shown


def test_without_a_test_split_no_test_score_is_written_and_none_stays(
    quick, finished, sample_folder, tmp_path, capsys
):
    for place in ("train/hat", "train/dress", "validation/hat", "validation/dress"):
        shutil.copytree(sample_folder / place, tmp_path / "photos" / place)
    quick(finished, data=str(tmp_path / "photos"))
    assert "the data has no test split: no test score" in capsys.readouterr().out.splitlines()
    assert names_in(finished) == (
        "config.json distances.csv fashion.keras history.csv learning_curves.png report.html "
        "training.json"
    )


@pytest.fixture
def used(monkeypatch):
    """Put a mock in place of `final`."""
    monkeypatch.setattr("fashion_keras.final.final", mock := Mock())
    return mock


def arguments(folder: Path, *others: str) -> list[str]:
    return ["--results", str(folder), "--cache", str(folder / "cache"), *others]


def test_without_a_search_the_default_configuration_is_used(used, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # Ray is installed.
    main(arguments(tmp_path, "--workers", "3"))
    options = {"workers": 3, "budget": None, "data_licence": "", "log_dir": None}
    options |= {"find_rate": False}
    used.assert_called_once_with(Config(), tmp_path / "final", tmp_path / "cache", **options)
    assert "the default configuration is used" in capsys.readouterr().out


def test_a_search_that_has_not_finished_is_not_passed_over(used, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "report.html").touch()
    with pytest.raises(InputError, match="The search in .*search has not finished"):
        main(arguments(tmp_path))
    used.assert_not_called()
    (tmp_path / "mine.json").write_text(to_json(Config()))
    main(arguments(tmp_path, "--config", str(tmp_path / "mine.json")))
    used.assert_called_once()


def test_options_go_before_the_configuration_and_that_before_the_search(used, tmp_path, capsys):
    (tmp_path / "search").mkdir()
    best = Config(learning_rate=0.01, augmented_copies=3, image_size=150, epochs=7)
    (tmp_path / "search" / "best_config.json").write_text(to_json(best))
    main(arguments(tmp_path))
    assert used.call_args.args[0] == best
    assert f"configuration: {tmp_path / 'search' / 'best_config.json'}" in capsys.readouterr().out
    (tmp_path / "mine.json").write_text(to_json(Config(droprate=0.5, learning_rate=0.01)))
    options = ["--config", str(tmp_path / "mine.json"), "--learning-rate", "0.02"]
    main(arguments(tmp_path, *options, "--image-size", "71"))
    assert used.call_args.args[0] == Config(droprate=0.5, learning_rate=0.02, image_size=71)
    main(arguments(tmp_path, "--learning-rate", "auto"))
    assert (used.call_args.args[0], used.call_args.kwargs["find_rate"]) == (best, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "soon"], "expected minutes, more than 0. Received: soon"),
        (["--config", "gone.json"], "No configuration file at gone.json; `python -m tuning"),
        (["--data", "gone"], "error: No folder "),
        (["--weights", "gone.h5"], "error: No weights file gone.h5"),
        (["--tensorboard", "/dev/null"], "File exists: '/dev/null'"),
        (["--fine-tune-from", "block99"], "error: `fine_tune_from` must be"),
    ],
)
def test_wrong_usage_ends_at_once(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: main(arguments(tmp_path, *words)))
    assert message in capsys.readouterr().err
