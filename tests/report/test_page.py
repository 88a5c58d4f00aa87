"""Tests of the page: names stay text, all links work, it can be read by everybody."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config, to_json
from fashion_keras.evaluate import Labelled
from fashion_keras.metrics import scores
from fashion_keras.model import build_head
from fashion_keras.report.html import TEMPLATES, render, write_page
from fashion_keras.report.page import Sources, gather
from fashion_keras.saving import add_metadata, save_classifier
from tests.report.html_page import EVIL, Page
from tests.report.test_search_page import TRIALS

ROOT = Path(__file__).parents[2]
LABELS = [EVIL, 'b" onload="x', "c&amp;"]
VALIDATION = {"accuracy": 0.75, "loss": 0.5}
HISTORY = "stage,epoch,loss,accuracy,val_loss,val_accuracy,seconds\nhead,1,0.5,0.6,0.7,0.5,2\n"
WINNER = {"learning_rate": 0.001, "augmented_copies": 1}


def write_winner(sources, winner, **others):
    numbers = {"validation_accuracy": 0.8, "spread": 0.01, "seeds": 3, "image_size": 150}
    text = json.dumps({"winner": winner, **numbers, "run": {"seconds": 1}} | others)
    (sources.search / "search.json").write_text(text)


@pytest.fixture
def sources(tiny_backbone, tmp_path):
    """Write all that a run writes, with labels and names of files that look like code."""
    folder, search = tmp_path / "final", tmp_path / "search"
    folder.mkdir()
    search.mkdir()
    head = build_head(Config(inner_size=0), 3)
    data = {"name": "photos", "fingerprint": "a", "photos": {}}
    metadata = {"validation": VALIDATION, "licences": {"data": EVIL}, "data": data}
    save_classifier(tiny_backbone, head, LABELS, 71, folder / "our.keras", metadata)
    (folder / "training.json").write_text(json.dumps({"validation": VALIDATION}))
    (folder / "history.csv").write_text(HISTORY)
    (folder / "config.json").write_text(to_json(Config(learning_rate=0.001)))
    (search / "trials.csv").write_text(TRIALS)
    found = Sources(folder / "our.keras", folder, folder, search, EVIL)
    run = {"seconds": 3.0, "machine": EVIL, "python": "3", "command": EVIL}
    write_winner(found, WINNER, fingerprint="a", run=run)
    return found


@pytest.fixture
def photos(sources, tmp_path):
    """Draw seven photos, and write predictions for them: five correct, two not."""
    Image.fromarray(np.full((40, 30, 3), 99, "uint8")).save(tmp_path / "photo.png")
    true = np.array([0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 1, 1, 1, 2, 0])
    rows = np.full((7, 3), 0.1)
    rows[np.arange(7), predicted] = 0.8
    names = [f"{LABELS[label]}/{at}<img src=x>.png" for at, label in enumerate(true)]
    lines = [["file", "true", "predicted", *LABELS]] + [
        [name, LABELS[label], LABELS[other], *map(str, row)]
        for name, label, other, row in zip(names, true, predicted, rows, strict=True)
    ]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
    (sources.tested / "predictions.csv").write_text("\n".join(quoted))
    metrics = scores(true, rows, LABELS) | {"unreadable": [f"{EVIL}: damaged"]}
    (sources.tested / "metrics.json").write_text(json.dumps(metrics))
    return [
        Labelled(tmp_path / "photo.png", name, LABELS[label])
        for name, label in zip(names, true, strict=True)
    ]


def page_of(sources, photos):
    return Page(render("report.html", gather(sources, photos)))


@pytest.fixture
def page(sources, photos):
    """Return the whole page."""
    return page_of(sources, photos)


def test_names_are_text_whatever_they_contain(page):
    assert not page.all("script")
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    assert all((image["src"] or "").startswith("data:image/jpeg;") for image in page.all("img"))
    assert page.words.count(EVIL) > 10
    assert "c&amp;" in page.words  # Escaped once, and not twice.


def test_page_needs_no_other_file(page):
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    addresses = [
        given[name]
        for _, given in page.elements
        for name in ("src", "href", "xlink:href")
        if name in given
    ]
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
    order = "training matrix mistakes classes losses cells calibration coverage search setup"
    assert [section["id"] for section in page.all("section")] == order.split()
    verdict = "Accuracy 71.4 %: 5 of 7 photos classified correctly, 95 % interval 35.9 to 91.8 %"
    assert verdict in page.words
    assert "Best trials" in page.words


def test_what_is_missing_is_said(sources):
    for name in ("training.json", "history.csv", "config.json"):
        (sources.trained / name).unlink()
    page = page_of(sources, [])
    assert "There is no test score" in page.words
    assert "75.0 %" in page.words  # The validation accuracy is in the saved file.
    assert "There is no history of the training next to our.keras." in page.words
    assert "There is no search that our.keras is known to come from." in page.words
    assert page.words.count("There are no test photos.") == 7
    assert not page.all("img")


def test_history_of_another_training_is_not_shown(sources, photos):
    other = {"validation": {"accuracy": 0.9, "loss": 0.1}}
    (sources.trained / "training.json").write_text(json.dumps(other))
    content = gather(sources, photos)
    assert "of another training run" in content["curves"]["missing"]
    assert content["config"] == {}


@pytest.mark.parametrize(
    ("winner", "photos", "reason"),
    [
        ({"learning_rate": 0.01}, "a", "other hyperparameters"),
        ({"learning_rate": 0.001, "views": 3}, "a", "other hyperparameters"),
        ({}, "a", "other hyperparameters"),
        (WINNER, "b", "used other photos"),
        (WINNER, "a", ""),
        ({"learning_rate": 0.001, "views": 1}, "", ""),
    ],
)
def test_only_the_search_that_a_file_comes_from_is_shown(winner, photos, reason, sources):
    write_winner(sources, winner, fingerprint=photos)
    content = gather(sources, [])
    assert reason in content["search"].get("missing", "")
    assert bool(reason) == ("missing" in content["search"])
    assert [run["stage"] for run in content["runs"]] == ([] if reason else ["search"])


def test_temperature_of_the_saved_file_is_shown(sources, photos):
    assert "The saved file has no temperature other than 1" in page_of(sources, photos).words
    add_metadata(sources.model, {"temperature": 0.5})
    page = page_of(sources, photos)
    assert "Temperature 0.500, fitted on the validation photos." in page.words
    assert "before temperature scaling" in page.words


def test_results_of_an_earlier_version_give_a_page(sources, photos):
    released = ROOT / "results" / "released"
    for name in ("config.json", "training.json", "history.csv"):
        shutil.copy(released / name, sources.trained)
    shutil.copytree(released / "search", sources.search, dirs_exist_ok=True)
    training = json.loads((released / "training.json").read_text())
    add_metadata(sources.model, {"validation": training["validation"]})
    page = page_of(sources, photos)
    for words in ("Fine-tuning: loss", "ema epochs", "Accuracy for each droprate", "90 trials"):
        assert words in page.words


def test_a_name_that_is_no_utf_8_does_no_harm(tmp_path):
    write_page("caf\udce9", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "caf\\udce9"


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
