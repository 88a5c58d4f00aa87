"""The whole search on drawn photos, and what its command refuses."""

import csv
import dataclasses
import json

import keras
import pytest

from fashion_keras import cli
from fashion_keras.config import Config, InputError, read_config
from fashion_keras.saving import data_fingerprint
from fashion_keras.stopwatch import profiled
from tuning import compare, search, task

CONFIG = Config(image_size=71, augmented_copies=1, batch_size=8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder where the results and the state of a search stay from test to test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def results(cache, sample_folder, tiny_backbone, monkeypatch):
    """Run a small search, once for all tests; return its results folder."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    monkeypatch.setattr(compare, "SEEDS", 2)
    monkeypatch.setattr(compare, "CURVES", {"droprate": (0.0, 0.5)})
    monkeypatch.setattr(search, "CURVES", compare.CURVES)
    monkeypatch.setattr(search, "FINALISTS", 2)
    if not (cache / "results").exists():
        config = dataclasses.replace(CONFIG, data=str(sample_folder))
        with profiled(cache / "profile.json"):
            search.search(config, 2, 2, cache / "results", cache)
    return cache / "results"


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_search_writes_what_it_found(results, sample_folder, prepared):
    best = read_config(results / "best_config.json")
    finalists = rows_of(results / "finalists.csv")
    summary = json.loads((results / "search.json").read_text())
    assert (best.image_size, best.epochs, best.seed) == (299, 50, 1)
    assert best.data == str(sample_folder)
    assert float(finalists[0]["learning_rate"]) == best.learning_rate
    assert float(finalists[0]["mean"]) >= float(finalists[1]["mean"])
    assert summary["winner"]["inner_size"] == best.inner_size
    assert (summary["trials"], summary["failed"], summary["image_size"]) == (5, 0, 71)
    assert summary["fingerprint"] == data_fingerprint(prepared)
    assert len(rows_of(results / "trials.csv")) == 5
    assert len(rows_of(results / "curves.csv")) == 4
    assert {"space.png", "droprate.png"} <= {file.name for file in results.iterdir()}


def test_profile_of_a_search_names_its_stages(results):
    stages = json.loads((results.parent / "profile.json").read_text())["stages"]
    searched = ["trials", "finalists", "knobs", "page"]
    assert sorted(stages) == sorted(["other", "prepare", "weights", "vectors", *searched])
    assert all("head" in stages[name] for name in searched[:3])


def test_the_finished_command_given_again_tells_the_times_of_the_first(
    results, cache, tmp_path, sample_folder
):
    first = json.loads((results / "search.json").read_text())
    config = dataclasses.replace(CONFIG, data=str(sample_folder))
    search.search(config, 2, 2, tmp_path / "again", cache)
    again = json.loads((tmp_path / "again" / "search.json").read_text())
    assert (again["run"], again["trials_of_an_interrupted_run"]) == (first["run"], 0)


def test_the_state_belongs_to_data_and_settings(tmp_path, prepared, tiny_backbone):
    from fashion_keras.features import FeatureStore
    from fashion_keras.training import Datasets

    def key(config=CONFIG, factor=3):
        material = Datasets(
            prepared, tiny_backbone, FeatureStore(prepared, config, tiny_backbone, tmp_path)
        )
        return task._key(config, factor, material)

    others = [
        key(factor=2),
        key(dataclasses.replace(CONFIG, epochs=7)),
        key(dataclasses.replace(CONFIG, image_size=80)),
        key(dataclasses.replace(CONFIG, seed=2)),
    ]
    assert key() == key()
    assert len({key(), *others}) == 5


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--factor", "1"], "`--factor` must be 2 or more"),
        (["--seed", "0"], "`seed` must lie between 1 and"),
        (["--max-epochs", "0"], "`--max-epochs` must be 1 or more"),
        (["--workers", "2", "--chief", "7000"], "Give one of .* Received: --workers, --chief"),
        (["--data", "nowhere"], "No folder nowhere. Expected `clothing`, `sample`"),
    ],
)
def test_unusable_options_are_refused(arguments, advice, tmp_path):
    with pytest.raises(InputError, match=advice):
        search.main([*arguments, "--results", str(tmp_path), "--cache", str(tmp_path)])


def test_the_next_command_reads_what_was_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "search", lambda *given: None)
    profile = tmp_path / "profile.json"
    words = ["--data", "sample", "--results", str(tmp_path / "my results")]
    search.main([*words, "--profile", str(profile)])
    assert "other" in json.loads(profile.read_text())["stages"]
    told = capsys.readouterr().out
    assert told.endswith(f"python -m fashion_keras.final --results '{tmp_path / 'my results'}'\n")


def test_errors_end_the_command_with_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: search.main(["--data", "nowhere", "--results", str(tmp_path)]))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: No folder nowhere.")


def test_without_pretrained_weights_each_trial_trains_its_own_backbone(
    tmp_path, sample_folder, tiny_backbone, monkeypatch
):
    def build(weights):
        backbone = keras.models.clone_model(tiny_backbone)
        backbone.trainable = True
        return backbone

    monkeypatch.setattr("fashion_keras.training.build_backbone", build)
    monkeypatch.setattr(compare, "SEEDS", 2)
    monkeypatch.setattr(compare, "CURVES", {"droprate": (0.0,)})
    monkeypatch.setattr(search, "CURVES", compare.CURVES)
    config = dataclasses.replace(CONFIG, data=str(sample_folder), weights="none")
    winner = search.search(config, 1, 2, tmp_path / "results", tmp_path / "cache")
    assert winner.weights == "none"
    assert not list((tmp_path / "cache").glob("vectors*"))
