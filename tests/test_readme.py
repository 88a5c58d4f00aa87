"""The README stays true: its commands, its links and its numbers."""

import json
import re

from fashion_keras.artifacts import sha256_of
from fashion_keras.config import RELEASED
from tests.builders import ROOT, python, rows_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "results" / "released"


def shell_blocks():
    return re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


def commands():
    """Return each `python -m ...` of the README as its module and its options."""
    text = "\n".join(shell_blocks()).replace("\\\n", " ")
    text += "\n".join(re.findall(r"`python -m ([^`]+)`", README)).replace("fashion", "\nfashion")
    found: dict[str, set[str]] = {}
    for line in re.findall(r"(?:^|python -m )((?:fashion_keras|tuning)\.[^\n&]+)", text, re.M):
        module, _, rest = line.strip().partition(" ")
        found.setdefault(module, set()).update(re.findall(r"--[a-z-]+", rest))
    return found


def test_the_first_two_blocks_run_everything_and_test_it():
    first, second = shell_blocks()[:2]
    modules = re.findall(r"^python -m (\S+)", first, flags=re.M)
    assert modules == ["tuning.search", "fashion_keras.final", "fashion_keras.predict"]
    assert first.startswith("python3 -m venv")
    assert "python -m pytest" in second


HELP = """
import runpy, sys
for module in sys.argv[1:]:
    sys.argv = ["x", "--help"]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as ended:
        assert not ended.code and "keras" not in sys.modules, module
"""


def test_commands_answer_help_without_keras_and_know_their_options():
    shown = python("-W", "ignore::RuntimeWarning", "-c", HELP, *commands())
    assert (shown.returncode, shown.stderr) == (0, "")
    texts = re.split("^usage: ", shown.stdout, flags=re.M)[1:]
    for (module, options), text in zip(commands().items(), texts, strict=True):
        assert text.startswith(f"python -m {module} ")
        assert {option for option in options if not re.search(rf"{option}\b", text)} == set()


def test_links_lead_to_files():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page, link)


def test_places_in_the_layout_exist():
    for name in re.findall(r"`((?:fashion_keras|tuning|tests|results)/[\w/.]*)`", README):
        assert (ROOT / name).exists() or name in {"results/search/", "results/final/"}, name


def read(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_results():
    scores, search = read("metrics.json"), read("search/search.json")
    low, high = scores["accuracy_interval"]
    for number in (
        f"{scores['accuracy']:.3f}",
        f"{100 * scores['accuracy']:.1f} %",
        f"{read('training.json')['validation']['accuracy']:.3f}",
        f"{scores['correct']} of {scores['photos']}",
        f"{low:.3f} to {high:.3f}",
        f"{search['validation_accuracy']:.3f}",
        f"{search['trials']} trials",
    ):
        assert number in README, number


def test_the_released_model_is_the_one_that_was_scored():
    scores = read("metrics.json")
    assert RELEASED.stat().st_size <= 50_000_000
    assert sha256_of(RELEASED) == scores["model_sha256"]
    rows = rows_of(RESULTS / "predictions.csv")
    correct = sum(row["true"] == row["predicted"] for row in rows)
    assert (len(rows), correct) == (scores["photos"], scores["correct"])


def test_the_model_card_has_the_numbers_of_the_model():
    card = (RESULTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    scores = read("metrics.json")
    low, high = scores["accuracy_interval"]
    lines = [f"{scores['accuracy']:.3f}", f"{low:.3f} to {high:.3f}"]
    for label, row in scores["by_class"].items():
        lines += [f"| {label} | {row['support']} | {row['precision']:.3f} | {row['recall']:.3f} |"]
    assert [line for line in lines if line not in card] == []
