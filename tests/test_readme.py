"""The README stays true: its commands, its modules and its numbers."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.scale import reckon
from tests.test_layout import ROOMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_blocks():
    return re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


def commands():
    """Return each `python -m ...` of the shell blocks as its module and its options."""
    text = "\n".join(shell_blocks()).replace("\\\n", " ")
    found: dict[str, set[str]] = {}
    for line in re.findall(r"python -m ([^\n&]+)", text):
        module, _, rest = line.strip().partition(" ")
        found.setdefault(module, set()).update(re.findall(r"--[a-z-]+", rest))
    return found


def test_the_first_two_blocks_do_everything_and_test_it():
    first, second = shell_blocks()[:2]
    assert [line.split()[2] for line in first.splitlines() if line.startswith("python -m")] == [
        "tuning.search",
        "fashion_keras.final",
        "fashion_keras.predict",
    ]
    assert first.startswith("python3 -m venv")
    assert "python -m pytest" in second


MODULES = sorted(set(commands()) - {"venv", "pytest"})
# Each module as a program of its own, but TensorFlow is imported once for all.
SHOW_HELP = """
import contextlib, io, json, runpy, sys

shown = {}
for module in sys.argv[1:]:
    sys.modules.pop(module, None)  # Another one may have imported it.
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    shown[module] = page.getvalue()
print(json.dumps(shown))
"""


@pytest.fixture(scope="module")
def pages():
    """Return what each command shows as its help."""
    words = [sys.executable, "-c", SHOW_HELP, *MODULES]
    shown = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stderr == ""
    return json.loads(shown.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_commands_know_the_options_they_are_given(module, pages):
    assert pages[module].startswith("usage: ")
    assert all(re.search(rf"{option}\b", pages[module]) for option in commands()[module])


def test_every_module_is_in_the_table_at_its_place():
    named = re.findall(r"^\| `([\w/]+)\.py`", README, flags=re.MULTILINE)
    rooms = [room.replace(".", "/") for room in ROOMS]
    assert named == [room for room in rooms if not (ROOT / room).is_dir()]


def test_linked_files_exist():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def read(name):
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_results():
    test, search = read("final/metrics.json"), read("search/search.json")
    low, high = test["accuracy_interval"]
    ratio, vectors = read("benchmarks/search.json"), read("benchmarks/vectors.json")
    for number in (
        f"{test['accuracy']:.3f}",
        f"{100 * test['accuracy']:.1f} %",
        f"{read('final/training.json')['validation']['accuracy']:.3f}",
        f"{test['correct']} of {test['photos']}",
        f"{low:.3f} to {high:.3f}",
        f"{search['validation_accuracy']:.3f}",
        f"{search['trials']} trials",
        f"{ratio['ratio']:.0f} times",
        f"{vectors['ratio']:.2f}",
    ):
        assert number in README, number


def test_the_costs_are_those_of_the_measurements():
    assert reckon(ROOT / "results") == (ROOT / "results" / "scale.md").read_text(encoding="utf-8")


def test_the_released_model_is_the_one_that_was_scored():
    model = ROOT / "fashion_keras" / "released" / "fashion.keras"
    assert model.stat().st_size <= 50_000_000
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert digest == read("final/metrics.json")["model_sha256"]
    with (ROOT / "results" / "final" / "predictions.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    right = sum(row["true"] == row["predicted"] for row in rows)
    assert (len(rows), right) == (
        read("final/metrics.json")["photos"],
        read("final/metrics.json")["correct"],
    )


def test_the_model_card_tells_the_numbers_of_the_model():
    card = (ROOT / "results" / "final" / "MODEL_CARD.md").read_text(encoding="utf-8")
    metrics = read("final/metrics.json")
    low, high = metrics["accuracy_interval"]
    assert f"{metrics['accuracy']:.3f}" in card
    assert f"{low:.3f} to {high:.3f}" in card
    for label, row in metrics["by_class"].items():
        line = f"| {label} | {row['support']} | {row['precision']:.3f} | {row['recall']:.3f} |"
        assert line in card, line
