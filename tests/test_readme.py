"""The README stays true: its commands, its modules and its numbers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("module", sorted(set(commands()) - {"venv", "pytest"}))
def test_commands_know_the_options_they_are_given(module):
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert shown.stderr == ""
    assert all(re.search(rf"{option}\b", shown.stdout) for option in commands()[module])


def test_every_module_is_in_the_table():
    named = re.findall(r"^\| `(\w+)/(\w+)\.py`", README, flags=re.MULTILINE)
    assert {".".join(name) for name in named} == set(ROOMS) - {"fashion_keras", "tuning"}


def test_linked_files_exist():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def read(name):
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_results():
    test, search = read("final/metrics.json")["test"], read("search/search.json")
    low, high = test["accuracy_interval"]
    ratio, vectors = read("benchmarks/search.json"), read("benchmarks/vectors.json")
    for number in (
        f"{test['accuracy']:.3f}",
        f"{test['correct']} of {test['photos']}",
        f"{low:.3f} to {high:.3f}",
        f"{search['validation_accuracy']:.3f}",
        f"{search['trials']} trials",
        f"{ratio['ratio']:.0f} times",
        f"{vectors['ratio']:.2f}",
    ):
        assert number in README, number
