"""The whole search on drawn photos, and what its command refuses."""

import json

import pytest

from fashion_keras.backend import Card
from fashion_keras.config import Config, InputError, deciding, read_config, to_json
from tests.builders import options_of, rows_of
from tests.tuning.test_lr_find import OTHERS as HEAD_OTHERS
from tuning import finalists, fine_tuning, hyperband, results
from tuning import search as search_module
from tuning.oracle import Oracle
from tuning.space import HEAD

SMALL = ["--image-size", "71", "--batch-size", "8", "--max-epochs", "2", "--factor", "2"]
SMALL += ["--stage", "head", "--workers", "1"]  # Others need seconds to start.


@pytest.fixture
def run(cache, sample_folder, tiny_backbone, tmp_path, monkeypatch):
    """Return what runs a small search, and returns its results folder."""
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda config: tiny_backbone)
    monkeypatch.setattr(finalists, "SEEDS", 2)
    monkeypatch.setattr(hyperband, "FINALISTS", 2)
    for module in (finalists, results):
        monkeypatch.setattr(module, "CURVES", {"droprate": (0.0, 0.5)})

    def search(*words, folder=tmp_path):
        data = ["--data", str(sample_folder), "--cache", str(cache), "--results", str(folder)]
        search_module.main([*data, *SMALL, *words])
        return folder / "search"

    return search


@pytest.mark.slow
def test_a_search_writes_what_it_found_and_goes_on_when_it_is_given_again(
    run, cache, sample_folder, capsys
):
    folder = run("--workers", "2")
    output = capsys.readouterr().out
    best, trials = read_config(folder / "best_config.json"), rows_of(folder / "trials.csv")
    ranked = rows_of(folder / "finalists.csv")
    summary = json.loads((folder / "search.json").read_text())
    announced = output.index("start and pictures 30 s)")
    assert output.index("plan: 5 trials, ") < announced < output.index("features at 71 px")
    shown = [line.split()[1] for line in output.splitlines() if line.startswith("trial ")]
    assert shown == [f"{row['trial']}/5" for row in trials] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert (best.image_size, best.epochs, best.ema_epochs, best.seed) == (71, 50, 5, 1)
    assert best.data == str(sample_folder)
    winner = float(ranked[0]["learning_rate"])
    assert winner == best.learning_rate == summary["winner"]["learning_rate"]
    assert float(ranked[0]["mean"]) >= float(ranked[1]["mean"])
    assert (summary["trials"], summary["failed"], summary["image_size"]) == (5, 0, 71)
    assert len(rows_of(folder / "curves.csv")) == 4
    assert {"space.png", "droprate.png", "report.html"} <= {file.name for file in folder.iterdir()}
    command = f"python -m fashion_keras.final --results {folder.parent} --cache {cache}"
    found = f"winner: {folder / 'best_config.json'}; report: {folder / 'report.html'}"
    assert output.endswith(f"{found}\nnow run: {command}\n")
    assert not list((cache / "trials").glob("*.npz"))

    again = run("--tensorboard", str(folder.parent / "log"))
    assert capsys.readouterr().out.count("found in the cache") == 5
    assert (again / "best_config.json").read_text() == to_json(best)
    assert json.loads((again / "search.json").read_text())["trials_of_an_interrupted_run"] == 5
    written = {file.parent.name for file in (folder.parent / "log").rglob("events*")}
    assert written == {*(f"trial-{number:03}" for number in range(1, 6)), "winner"}


@pytest.mark.slow
def test_the_objective_is_named_wherever_its_score_is(run, capsys, monkeypatch):
    monkeypatch.setattr(hyperband, "FINALISTS", 1)  # More say nothing else, and take longer.
    monkeypatch.setattr("tuning.finalists.CURVES", {"droprate": (0.2,)})
    folder = run("--objective", "balanced_accuracy", "--class-weights", "balanced")
    output, trials = capsys.readouterr().out, rows_of(folder / "trials.csv")
    best = read_config(folder / "best_config.json")
    assert (best.objective, best.class_weights) == ("balanced_accuracy", "balanced")
    summary = json.loads((folder / "search.json").read_text())
    score = summary["validation_balanced_accuracy"]
    assert "validation_accuracy" not in summary
    assert all(row["val_balanced_accuracy"] for row in trials)
    assert "  val_balanced_accuracy 0." in output
    assert f"validation balanced accuracy: {score:.4f}; it is optimistic" in output
    assert "chosen on these 20 photos" in output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"has a validation balanced accuracy of {100 * score:.1f}" in page
    assert "That is optimistic, as it was chosen on these 20 photos." in page


@pytest.mark.parametrize(
    ("before", "words", "sides"),
    [
        (None, [], (150, 299)),
        (None, ["--image-size", "96"], (96, 96)),
        (299, [], (150, 299)),
        (96, [], (96, 96)),  # That of the head's search.
        (96, ["--image-size", "299"], (299, 299)),
    ],
)
def test_final_gets_another_side_only_if_the_search_was_given_it(
    before, words, sides, tmp_path, monkeypatch
):
    calls = []
    monkeypatch.setattr(hyperband, "search", lambda *call: calls.append((call[0], call[-1])))
    tune = lambda base, *call, **options: calls.append((base, options["final_size"]))  # noqa: E731
    monkeypatch.setattr(fine_tuning, "search_fine_tuning", tune)
    if before:
        (tmp_path / "search").mkdir()
        best = to_json(Config(image_size=before))
        (tmp_path / "search" / "best_config.json").write_text(best)
    stage = "fine-tuning" if before else "head"
    search_module.main(["--stage", stage, "--results", str(tmp_path), *words])
    ((base, final_size),) = calls
    assert (base.image_size, final_size) == sides


OTHERS = HEAD_OTHERS | {"--max-epochs": "9", "--factor": "2"}
OTHERS |= {"--workers": "2", "--tensorboard": "log", "--max-minutes": "3"}


OF_FINE_TUNING = {"--fine-tune-on", "--fine-tuning-copies", "--max-minutes"}


@pytest.mark.parametrize(
    "option", sorted(set(options_of(search_module.options())) - {"--deterministic", "--stage"})
)
def test_every_option_changes_what_is_searched_or_where(option, tmp_path, monkeypatch):
    calls = []
    tuned = option in OF_FINE_TUNING
    module, name = (fine_tuning, "search_fine_tuning") if tuned else (hyperband, "search")
    monkeypatch.setattr(module, name, lambda *call, **rest: calls.append((*call, rest)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # Ray is installed.
    stage = ["--stage", "fine-tuning" if tuned else "head"]
    for words in ([], [option, *OTHERS.get(option, "").split()]):
        search_module.main([*stage, *words])
    usual, other = (decided(*call, folder=tmp_path / f"{n}") for n, call in enumerate(calls))
    assert usual != other


@pytest.mark.parametrize(
    ("words", "cards", "expected"),
    [
        (["--stage", "head"], [Card("T4")], ["head, then 0 s"]),
        (["--stage", "fine-tuning"], [], ["fine-tuning"]),
        (["--stage", "both", "--max-minutes", "5"], [], ["head, then 300 s", "fine-tuning"]),
        ([], [Card("T4")], ["head, then 900000 s", "fine-tuning"]),
        ([], [], ["head, then 0 s"]),
    ],
)
def test_stages_are_those_asked_for_or_that_suit_the_machine(
    words, cards, expected, monkeypatch, capsys, tmp_path
):
    ran = []
    head = lambda *call: ran.append(f"head, then {call[-2]:.0f} s")  # noqa: E731
    monkeypatch.setattr(hyperband, "search", head)
    tune = lambda *call, **options: ran.append("fine-tuning")  # noqa: E731
    monkeypatch.setattr(fine_tuning, "search_fine_tuning", tune)
    monkeypatch.setattr(fine_tuning, "expected_seconds", lambda *call: 9e5)
    monkeypatch.setattr("fashion_keras.backend.cards", lambda: cards)
    search_module.main([*words, "--results", str(tmp_path)])
    assert ran == expected
    output = capsys.readouterr().out
    assert ("`--stage fine-tuning` goes on, and says how long" in output) == (not words + cards)


def decided(base, max_epochs, factor, *elsewhere, folder):
    """Return all that decides the outcome of a search, by what it decides."""
    oracle = Oracle(HEAD, base, max_epochs, factor, folder)
    drawn = [trial.hyperparameters.values for trial in oracle.ready()]
    kinds = ("photos", "features", "copies", "head", "fine_tuning")
    decides = {kind: deciding(base, kind) for kind in kinds}
    places = {"data": base.data, "weights": base.weights, "elsewhere": elsewhere}
    return decides | places | {"plan": oracle.plan(), "drawn": drawn}


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--factor", "1"], "`--factor` must be 2 or more"),
        (["--seed", "0"], "`seed` must lie between 1 and"),
        (["--max-epochs", "0"], "`--max-epochs` must be 1 or more"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_unusable_options_are_refused(arguments, advice, tmp_path):
    with pytest.raises(InputError, match=advice):
        search_module.main([*arguments, "--results", str(tmp_path), "--cache", str(tmp_path)])
