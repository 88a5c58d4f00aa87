"""Tests of the page: nothing in it is code, all links lead somewhere, all texts can be read."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import Config, to_json
from fashion_keras.evaluate import Labelled
from fashion_keras.metrics import photo_rows, scores
from fashion_keras.model import build_head
from fashion_keras.report.page import TEMPLATES, Sources, gather, render, write_page
from fashion_keras.saving import add_metadata, save_classifier

EVIL = "<script>alert(1)</script>"
LABELS = [EVIL, 'b" onload="x', "c&amp;"]
VALIDATION = {"accuracy": 0.75, "loss": 0.5}
HISTORY = "stage,epoch,loss,accuracy,val_loss,val_accuracy,seconds\nhead 1,1,0.5,0.6,0.7,0.5,2\n"
TRIALS = (
    "trial,status,learning_rate,inner_size,droprate,copies,last_epoch,val_accuracy,seconds\n"
    "0000,COMPLETED,0.001,100,0.2,1,4,0.8,1.5\n"
)


class Page(HTMLParser):
    """Lists the elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.words += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture
def sources(tiny_backbone: keras.Model, tmp_path: Path) -> Sources:
    """Write all that a run writes, with labels and names of files that look like code."""
    folder = tmp_path / "final"
    folder.mkdir()
    head = build_head(Config(inner_size=0), 3)
    facts = {"validation": VALIDATION, "licences": {"data": EVIL}}
    save_classifier(tiny_backbone, head, LABELS, 71, folder / "our.keras", facts)
    (folder / "training.json").write_text(json.dumps({"validation": VALIDATION}))
    (folder / "history.csv").write_text(HISTORY)
    config = Config(learning_rate=0.001, inner_size=100, droprate=0.2)
    (folder / "config.json").write_text(to_json(config))
    search = tmp_path / "search"
    search.mkdir()
    (search / "trials.csv").write_text(TRIALS)
    knobs = {"learning_rate": 0.001, "inner_size": 100, "droprate": 0.2}
    numbers = {"validation_accuracy": 0.8, "spread": 0.01, "seeds": 3, "image_size": 150}
    (search / "search.json").write_text(json.dumps({"winner": knobs, **numbers}))
    return Sources(folder / "our.keras", folder, folder, search, EVIL)


@pytest.fixture
def photos(sources: Sources, tmp_path: Path) -> list[Labelled]:
    """Draw seven photos, and write what was said of them: five rightly, two not."""
    Image.fromarray(np.full((40, 30, 3), 99, "uint8")).save(tmp_path / "photo.png")
    true = np.array([0, 0, 0, 1, 1, 2, 2])
    said = np.array([0, 0, 1, 1, 1, 2, 0])
    rows = np.full((7, 3), 0.1)
    rows[np.arange(7), said] = 0.8
    names = [f"{LABELS[label]}/{at}<img src=x>.png" for at, label in enumerate(true)]
    given = [LABELS[label] for label in true]
    lines = photo_rows(names, given, rows, LABELS)
    header = ["file", "true", "predicted", *LABELS]
    text = "\n".join(
        ",".join('"' + x.replace('"', '""') + '"' for x in r) for r in [header, *lines]
    )
    (sources.tested / "predictions.csv").write_text(text)
    run = {"seconds": 3.0, "machine": EVIL, "python": "3", "command": EVIL}
    unreadable = [f"{EVIL}: damaged"]
    metrics = scores(true, rows, LABELS) | {"run": run, "unreadable": unreadable}
    (sources.tested / "metrics.json").write_text(json.dumps(metrics))
    return [
        Labelled(tmp_path / "photo.png", name, label)
        for name, label in zip(names, given, strict=True)
    ]


@pytest.fixture
def page(sources: Sources, photos: list[Labelled]) -> Page:
    """Return the whole page."""
    return Page(render("report.html", gather(sources, photos)))


def test_names_are_text_whatever_they_hold(page: Page) -> None:
    assert not page.all("script")
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    assert all((image["src"] or "").startswith("data:image/jpeg;") for image in page.all("img"))
    assert page.words.count(EVIL) > 10
    assert "c&amp;" in page.words  # Escaped once, and not twice.


def test_page_needs_no_other_file(page: Page) -> None:
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    addresses = [
        given[name] for _, given in page.elements for name in ("src", "href") if name in given
    ]
    assert all((address or "").startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page.words
    policy = page.all("meta")[2]["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_link_leads_to_one_place(page: Page) -> None:
    places = [given["id"] for _, given in page.elements if "id" in given]
    assert len(places) == len(set(places))
    links = {(link["href"] or "")[1:] for link in page.all("a")}
    assert links <= set(places)
    assert {"cell-0-0", "cell-0-1", "cell-2-0", "losses", "facts"} <= links


def test_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in page.all("svg"))
    assert all(one.get("scope") for one in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_sections_stand_in_their_order(page: Page) -> None:
    order = "training matrix pairs classes losses cells calibration coverage search facts"
    assert [section["id"] for section in page.all("section")] == order.split()
    assert (
        "71.4 % of the photos are named rightly: 5 of 7, 95 % interval 35.9 to 91.8 %" in page.words
    )
    assert "The best trials" in page.words


def test_what_is_missing_is_said(sources: Sources) -> None:
    for name in ("training.json", "history.csv", "config.json"):
        (sources.trained / name).unlink()
    page = Page(render("report.html", gather(sources, [])))
    assert "There is no test score" in page.words
    assert "75.0 %" in page.words  # The card tells the validation score.
    assert "No history of the training lies beside our.keras." in page.words
    assert "No search is known that our.keras came from." in page.words
    assert page.words.count("No photos were tested on.") == 7
    assert not page.all("img")


def test_history_of_another_training_is_not_shown(sources: Sources, photos: list[Labelled]) -> None:
    other = {"validation": {"accuracy": 0.9, "loss": 0.1}}
    (sources.trained / "training.json").write_text(json.dumps(other))
    content = gather(sources, photos)
    assert "of another training run" in content["curves"]["missing"]
    assert content["facts"]["config"] == {}


def stages(content: dict) -> list[str]:
    return [run["stage"] for run in content["facts"]["runs"]]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"winner": {"learning_rate": 0.01}}, "with other values"),
        ({"winner": {"learning_rate": 0.001, "augmented_copies": 3}}, "with other values"),
        ({}, "with other values"),
        ({"winner": {"learning_rate": 0.001}, "fingerprint": "b"}, "on other photos"),
    ],
)
def test_search_that_a_file_does_not_come_from_is_no_stage_of_it(
    found: dict, why: str, sources: Sources
) -> None:
    add_metadata(sources.model, {"data": {"name": "photos", "fingerprint": "a", "photos": {}}})
    own = {"winner": {"learning_rate": 0.001, "augmented_copies": 1}, "fingerprint": "a"}
    for summary, expected in ((own, ["search"]), (found, [])):
        written = json.dumps(summary | {"run": {"seconds": 1}})
        (sources.search / "search.json").write_text(written)
        content = gather(sources, [])
        assert stages(content) == expected
    assert f"our.keras was trained {why}" in content["search"]["missing"]


def test_temperature_of_the_card_is_told(sources: Sources, photos: list[Labelled]) -> None:
    before = Page(render("report.html", gather(sources, photos)))
    assert "The saved file names no temperature other than 1" in before.words
    add_metadata(sources.model, {"temperature": 0.5})
    page = Page(render("report.html", gather(sources, photos)))
    assert "Temperature 0.500, fitted on the validation photos." in page.words
    assert "before temperature scaling" in page.words


def test_a_name_that_is_no_utf_8_does_not_harm(tmp_path: Path) -> None:
    write_page("caf\udce9", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "caf\\udce9"


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def palettes() -> list[Any]:
    text = (TEMPLATES / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks]
    return [
        pytest.param(palette, id=name)
        for palette, name in zip(found, ("light", "dark", "print"), strict=True)
    ]


@pytest.mark.parametrize("palette", palettes())
def test_colours_have_the_contrast_of_wcag_aa(palette: dict[str, str]) -> None:
    cells = [f"{kind}{level}" for kind in ("right", "wrong") for level in (1, 2, 3, 4)]
    texts = [("text", "page"), ("soft", "page"), ("link", "page"), ("text", "field")]
    for text, ground in [*texts, *((f"on-{cell}", cell) for cell in cells)]:
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for line in ("c0", "c1", "c2", "c3"):
        assert contrast(palette[line], palette["page"]) >= 3, line
