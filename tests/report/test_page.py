"""Tests of the page: names stay text, all links work, it can be read by everybody."""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.classifier import load_classifier
from fashion_keras.config import Config, to_json
from fashion_keras.evaluate import Labelled
from fashion_keras.metrics import scores
from fashion_keras.model import build_head
from fashion_keras.report.html import TEMPLATES
from fashion_keras.report.page import Sources, gather, write_report
from fashion_keras.saving import add_metadata, save_classifier
from tests.conftest import small_backbone
from tests.report.html_page import EVIL, Page
from tests.report.test_search_page import TRIALS, TUNED

ROOT = Path(__file__).parents[2]
LABELS = [EVIL, 'b" onload="x', "c&amp;"]
VALIDATION = {"accuracy": 0.75, "loss": 0.5}
HISTORY = "stage,epoch,loss,accuracy,val_loss,val_accuracy,seconds\nhead,1,0.5,0.6,0.7,0.5,2\n"
WINNER = {"learning_rate": 0.001, "augmented_copies": 1}


def write_winner(folder, winner, **others):
    numbers = {"validation_accuracy": 0.8, "spread": 0.01, "seeds": 3, "image_size": 150}
    text = json.dumps({"winner": winner, **numbers, "run": {"seconds": 1}} | others)
    (folder / "search" / "search.json").write_text(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Write all that a run writes, with labels and names of files that look like code."""
    folder = tmp_path_factory.mktemp("run")
    data = {"name": "photos", "fingerprint": "a", "photos": {}}
    metadata = {"validation": VALIDATION, "licences": {"data": EVIL}, "data": data}
    head, file = build_head(Config(inner_size=0), 3), folder / "final" / "our.keras"
    save_classifier(small_backbone(), head, LABELS, 71, file, metadata)
    (folder / "final" / "training.json").write_text(json.dumps({"validation": VALIDATION}))
    (folder / "final" / "history.csv").write_text(HISTORY)
    (folder / "final" / "config.json").write_text(to_json(Config(learning_rate=0.001)))
    (folder / "search").mkdir()
    (folder / "search" / "trials.csv").write_text(TRIALS)
    command = {"seconds": 3.0, "machine": EVIL, "python": "3", "command": EVIL}
    write_winner(folder, WINNER, fingerprint="a", run=command)
    Image.fromarray(np.full((40, 30, 3), 99, "uint8")).save(folder / "photo.png")
    rows = np.full((7, 3), 0.1)
    rows[np.arange(7), [0, 0, 1, 1, 1, 2, 0]] = 0.8  # Five correct predictions, two others.
    with (folder / "final" / "predictions.csv").open("w", newline="") as table:
        lines = ([name_of(at), LABELS[label], "", *rows[at]] for at, label in enumerate(TRUE))
        csv.writer(table).writerows([["file", "true", "predicted", *LABELS], *lines])
    metrics = scores(np.array(TRUE), rows, LABELS) | {"unreadable": [f"{EVIL}: damaged"]}
    (folder / "final" / "metrics.json").write_text(json.dumps(metrics))
    return folder


TRUE = [0, 0, 0, 1, 1, 2, 2]


def name_of(at):
    return f"{LABELS[TRUE[at]]}/{at}<img src=x>.png"


def sources_in(folder):
    model, search = folder / "final" / "our.keras", folder / "search"
    return Sources(model, model.parent, model.parent, search, f"{EVIL} caf\udce9")


def photos_in(folder):
    return [
        Labelled(folder / "photo.png", name_of(at), LABELS[label]) for at, label in enumerate(TRUE)
    ]


def page_of(folder, photos=None):
    photos = photos_in(folder) if photos is None else photos
    sources = sources_in(folder)
    write_report(sources, photos, folder / "report.html", load_classifier(sources.model).model)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(run):
    """Return the whole page."""
    return page_of(run)


@pytest.fixture
def folder(run, tmp_path):
    """Return a copy of the run that a test may change."""
    return shutil.copytree(run, tmp_path / "run")


def test_names_are_text_whatever_they_contain(page):
    assert not page.all("script")
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    assert all((image["src"] or "").startswith("data:image/jpeg;") for image in page.all("img"))
    assert page.words.count(EVIL) > 10
    assert "c&amp;" in page.words  # Escaped once, and not twice.
    assert "caf\\udce9" in page.words


def test_page_needs_no_other_file(page):
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    names = ("src", "href", "xlink:href")
    addresses = [given[name] for _, given in page.elements for name in names if name in given]
    assert all((address or "").startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page.words
    policy = page.all("meta")[2]["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_link_leads_to_one_place(page):
    places = [given["id"] for _, given in page.elements if "id" in given]
    assert len(places) == len(set(places))
    links = {(link["href"] or "")[1:] for link in page.all("a")}
    assert links <= set(places)
    assert {"cell-0-0", "cell-0-1", "cell-2-0", "losses", "setup"} <= links


def test_page_can_be_read_without_seeing_it(page):
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(one["aria-label"] and one["role"] == "img" for one in page.all("svg"))
    assert all(one.get("scope") for one in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_sections_follow_each_other(page):
    order = "training matrix mistakes classes losses cells calibration coverage novelty search"
    assert [section["id"] for section in page.all("section")] == [*order.split(), "setup"]
    verdict = "Accuracy 71.4 %: 5 of 7 photos classified correctly, 95 % interval 35.9 to 91.8 %"
    assert verdict in page.words
    assert "Best trials" in page.words


def test_with_few_photos_cross_validation_comes_first(folder):
    scores = {"accuracy": 0.7, "accuracy_interval": [0.4, 0.9], "correct": 7, "photos": 10}
    found = {**scores, "balanced_accuracy": 0.6, "measured": "the head"}
    file = folder / "final" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cross_validation": found}))
    words = page_of(folder).words
    first = "Cross-validated accuracy 0.7000 (7 of 10), 95 % interval 0.400 to 0.900"
    second = "On the few photos of the test split: accuracy 71.4 %"
    assert words.index(first) < words.index("expect less") < words.index(second)


def test_what_is_missing_is_said(folder):
    for name in ("training.json", "history.csv", "config.json", "predictions.csv", "metrics.json"):
        (folder / "final" / name).unlink()
    page = page_of(folder, [])
    assert "There is no test score" in page.words
    assert "75.0 %" in page.words  # The validation accuracy is in the saved file.
    assert "There is no history of the training next to our.keras." in page.words
    assert "There is no search that our.keras is known to come from." in page.words
    assert page.words.count("There are no test photos.") == 7
    assert not page.all("img")


def test_history_of_another_training_is_not_shown(folder):
    other = {"validation": {"accuracy": 0.9, "loss": 0.1}}
    (folder / "final" / "training.json").write_text(json.dumps(other))
    page = page_of(folder)
    assert "The history next to our.keras is that of another training run." in page.words
    assert "The configuration of the training is not known." in page.words


@pytest.mark.parametrize(
    ("winner", "photos", "reason"),
    [
        ({"learning_rate": 0.01}, "a", "other hyperparameters"),
        ({"learning_rate": 0.001, "augmented_copies": 3}, "a", "other hyperparameters"),
        ({}, "a", "other hyperparameters"),
        (WINNER, "b", "used other photos"),
        (WINNER, "a", ""),
        ({"learning_rate": 0.001, "augmented_copies": 1}, "", ""),
    ],
)
def test_only_the_search_that_a_file_comes_from_is_shown(winner, photos, reason, folder):
    write_winner(folder, winner, fingerprint=photos)
    (folder / "final" / "predictions.csv").unlink()
    content = gather(sources_in(folder), [], None)
    assert reason in content["search"].get("missing", "")
    assert bool(reason) == ("missing" in content["search"])
    assert [run["stage"] for run in content["runs"]] == ([] if reason else ["search"])


@pytest.mark.parametrize("rate", [0.0003, 0.5])
def test_the_search_of_fine_tuning_is_shown_if_the_file_comes_from_it(rate, folder):
    command = {"seconds": 3.0, "machine": "2 cores", "python": "3", "command": "search"}
    write_winner(folder, WINNER | {"droprate": 0.9}, fingerprint="a", run=command)
    tuned = {"droprate": Config.droprate, "fine_tuning_learning_rate": rate}
    place = folder / "search" / "fine_tuning"
    place.mkdir()
    (place / "trials.csv").write_text(TUNED)
    numbers = {"winner": tuned, "validation_log_loss": 0.25, "image_size": 150}
    (place / "search.json").write_text(json.dumps(numbers))
    page = page_of(folder)
    shown = "Then 2 trials of fine-tuning at 150 px found a log loss of 0.2500 on validation."
    assert (shown in page.words) == (rate == Config.fine_tuning_learning_rate)
    assert ("other hyperparameters" in page.words) != (shown in page.words)


def test_temperature_of_the_saved_file_is_shown(page, folder):
    assert "The saved file has no temperature other than 1" in page.words
    add_metadata(folder / "final" / "our.keras", {"temperature": 0.5})
    page = page_of(folder)
    assert "Temperature 0.500, fitted on the validation photos." in page.words
    assert "before temperature scaling" in page.words


def test_what_is_none_of_these_is_shown(page, folder):
    assert "our.keras answers each photo with a category: it knows no others." in page.words
    known = {"threshold": 0.25, "passed": 0.75, "photos": 4, "refused": 0.5, "others": 2}
    add_metadata(folder / "final" / "our.keras", {"novelty": known})
    file = folder / "final" / "metrics.json"
    more = {"none_of_these": 1, "other": {"photos": 9, "none_of_these": 8}}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    words = page_of(folder).words
    assert "There are no distances next to our.keras." in words
    assert "none of these: 1 of 7 test photos, and 8 of 9 photos in the folder other." in words
    rows = "a,validation,0.1\nb,other,0.3\n"
    (folder / "final" / "distances.csv").write_text(f"file,split,distance\n{rows}")
    page = page_of(folder)
    assert "75.0 % pass this threshold; of 2 photos of none of the categories 50.0 %" in page.words
    (chart,) = (one for one in page.all("svg") if "None of these" in (one["aria-label"] or ""))
    assert "threshold: 2 points" in (chart["aria-label"] or "")


@pytest.mark.slow
def test_the_released_results_give_a_page(folder):
    released = ROOT / "results" / "released"
    for name in ("config.json", "training.json", "history.csv"):
        shutil.copy(released / name, folder / "final")
    shutil.copytree(released / "search", folder / "search", dirs_exist_ok=True)
    training = json.loads((released / "training.json").read_text())
    add_metadata(folder / "final" / "our.keras", {"validation": training["validation"]})
    page = page_of(folder)
    for words in ("Fine-tuning: loss", "ema epochs", "Accuracy for each droprate", "90 trials"):
        assert words in page.words


def contrast(one, other):
    """Return the ratio of WCAG 2: of relative luminances."""
    channels = np.array([[int(x[at : at + 2], 16) / 255 for at in (1, 3, 5)] for x in (one, other)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("number", range(3), ids=["light", "dark", "print"])
def test_colours_have_the_contrast_of_wcag_aa(number):
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(), flags=re.DOTALL)
    palette = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[number]))
    cells = [f"{kind}{level}" for kind in ("correct", "wrong") for level in (1, 2, 3, 4)]
    texts = [("text", "page"), ("soft", "page"), ("link", "page"), ("text", "field")]
    for text, ground in [*texts, *((f"on-{cell}", cell) for cell in cells)]:
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    assert contrast(palette["focus"], palette["page"]) >= 3
