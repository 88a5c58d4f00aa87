"""The rules for the code as a whole: who imports whom, and how long things are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The main line: each imports only those before it.
MAIN_LINE = (
    "backbones",
    "config",
    "artifacts",
    "cli",
    "backend",
    "parallel",
    "data",
    "onnx_file",
    "inspection",
    "model",
    "engine",
    "features",
    "training",
    "fine_tuning",
    "timing",
    "learning_rate",
    "saving",
    "classifier",
    "metrics",
    "figures",
    "grad_cam",
    "evaluate",
    "novelty",
    "describe",
    "final",
)
WINGS = {"predict", "check", "report", "export", "serve"}
ALLOWED = {("final", "report"), ("tuning", "report"), ("serve", "predict")}
FILES = sorted([*ROOT.glob("fashion_keras/**/*.py"), *ROOT.glob("tuning/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))


def imports(file: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports from this project."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(file: Path) -> str:
    """Return the file's place in the listing: `config`, `data`, `predict`, `tuning` ..."""
    package, *rest = file.relative_to(ROOT).with_suffix("").parts
    return rest[0] if package == "fashion_keras" else package


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_follow_the_main_line(file):
    here = place(file)
    for name in imports(file):
        package, _, rest = name.partition(".")
        there = rest.partition(".")[0] if package == "fashion_keras" else package
        if there == here or there not in {*MAIN_LINE, *WINGS, "tuning"}:
            continue
        if there in WINGS or there == "tuning":
            assert (here, there) in ALLOWED, name
        elif here in MAIN_LINE:
            assert MAIN_LINE.index(there) < MAIN_LINE.index(here), name


def test_only_the_backend_imports_keras_and_only_tuning_keras_tuner():
    for file in FILES:
        names = set(imports(file))
        roots = {name.partition(".")[0] for name in names}
        assert "keras" not in roots or file.name == "backend.py", file
        assert "keras_tuner" not in roots or place(file) == "tuning", file
        assert "tensorflow" not in roots or file.name == "backend.py", file


def test_the_listing_stays_short():
    for package, most in (("fashion_keras", 32), ("tuning", 11)):
        assert len({path.name for path in (ROOT / package).iterdir()} - {"__pycache__"}) <= most


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Yield name and number of lines, without the docstring, of each function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_stay_short():
    lengths = [length for file in FILES for _, length in functions(file)]
    assert sorted(lengths)[len(lengths) // 2] < 10
    for file in FILES:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file
        assert {(name, length) for name, length in functions(file) if length > 40} == set(), file


@pytest.mark.parametrize(("files", "budget"), [(FILES, 14_920), (TESTS, 16_115)])
def test_the_code_stays_within_its_budget(files, budget):
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= budget


def test_the_test_split_is_named_only_where_it_is_read_or_laid_out():
    allowed = {"final.py", "describe.py", "report", "data"}
    for file in FILES:
        if file.name in allowed or place(file) in allowed:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert "test" not in strings, file
