"""The rules that hold for the code as a whole."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The order in which the data walks through the rooms: a module imports only modules above it.
ROOMS = [
    "fashion_keras",
    "fashion_keras.ending",
    "fashion_keras.config",
    "fashion_keras.files",
    "fashion_keras.export.replacing",
    "fashion_keras.disk",
    "fashion_keras.cli",
    "fashion_keras.stopwatch",
    "fashion_keras.data.sample",
    "fashion_keras.data.photo",
    "fashion_keras.data.download",
    "fashion_keras.data.scan",
    "fashion_keras.data.split",
    "fashion_keras.data.prepare",
    "fashion_keras.pieces",
    "fashion_keras.data.batches",
    "fashion_keras.backbone",
    "fashion_keras.model",
    "fashion_keras.devices",
    "fashion_keras.headroom",
    "fashion_keras.memory",
    "fashion_keras.forward",
    "fashion_keras.growing",
    "fashion_keras.features",
    "fashion_keras.optimizer",
    "fashion_keras.training_state",
    "fashion_keras.training",
    "fashion_keras.ensemble",
    "fashion_keras.fine_tuner",
    "fashion_keras.fine_tuning",
    "fashion_keras.vectors",
    "fashion_keras.learning_rate",
    "fashion_keras.auto_rate",
    "fashion_keras.budget",
    "fashion_keras.inspection",
    "fashion_keras.saving",
    "fashion_keras.classifier",
    "fashion_keras.describe",
    "fashion_keras.predict.web",
    "fashion_keras.predict.inputs",
    "fashion_keras.predict.rows",
    "fashion_keras.predict.journal",
    "fashion_keras.predict.sorting",
    "fashion_keras.predict.imagenet",
    "fashion_keras.predict.cloud",
    "fashion_keras.predict.photo_tables",
    "fashion_keras.predict.ray_cluster",
    "fashion_keras.predict.ray_worker",
    "fashion_keras.predict.ray_engine",
    "fashion_keras.predict.options",
    "fashion_keras.predict",
    "fashion_keras.export.formats",
    "fashion_keras.export.runtimes",
    "fashion_keras.export",
    "fashion_keras.metrics",
    "fashion_keras.figures",
    "fashion_keras.check.findings",
    "fashion_keras.check.photo_facts",
    "fashion_keras.check.class_balance",
    "fashion_keras.check.twins",
    "fashion_keras.check.directions",
    "fashion_keras.check.label_errors",
    "fashion_keras.check.vector_map",
    "fashion_keras.check",
    "fashion_keras.evaluate",
    "fashion_keras.grad_cam",
    "fashion_keras.report.outcome",
    "fashion_keras.report.gallery",
    "fashion_keras.report.sections",
    "fashion_keras.report.html",
    "fashion_keras.report.search_page",
    "fashion_keras.report.page",
    "fashion_keras.report",
    "fashion_keras.finish",
    "fashion_keras.report.tensor_board",
    "fashion_keras.final",
    "fashion_keras.service",
    "fashion_keras.serve.workers",
    "fashion_keras.serve.limits",
    "fashion_keras.serve.batching",
    "fashion_keras.serve.served",
    "fashion_keras.serve.uploads",
    "fashion_keras.serve.connections",
    "fashion_keras.serve.answers",
    "fashion_keras.serve.observation",
    "fashion_keras.serve.waiting",
    "fashion_keras.serve.desk",
    "fashion_keras.serve.app",
    "fashion_keras.serve.process",
    "fashion_keras.serve",
    "tuning",
    "tuning.space",
    "tuning.hypermodel",
    "tuning.trials",
    "tuning.snapshot",
    "tuning.oracle",
    "tuning.plan",
    "tuning.task",
    "tuning.hyperband",
    "tuning.line",
    "tuning.chief",
    "tuning.worker",
    "tuning.fleet",
    "tuning.compare",
    "tuning.pictures",
    "tuning.page",
    "tuning.search_options",
    "tuning.search",
    "tuning.lr_find",
]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def code_files() -> list[Path]:
    return sorted([*ROOT.glob("fashion_keras/**/*.py"), *ROOT.glob("tuning/*.py")])


def imported_rooms(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & set(ROOMS)


def test_every_module_has_its_place_in_the_order() -> None:
    assert {module_name(file) for file in code_files()} == set(ROOMS)


def test_modules_import_only_modules_above_them() -> None:
    for file in set(code_files()) - {ROOT / "fashion_keras" / "__init__.py"}:
        place = ROOMS.index(module_name(file))
        below = {room for room in imported_rooms(file) if ROOMS.index(room) >= place}
        assert not below, f"{file.name} imports {below}"


def test_the_front_door_hands_out_the_classifier_alone() -> None:
    door = ROOT / "fashion_keras" / "__init__.py"
    assert imported_rooms(door) == {"fashion_keras.ending", "fashion_keras.classifier"}


def test_only_the_tuning_package_knows_keras_tuner() -> None:
    for file in ROOT.glob("fashion_keras/**/*.py"):
        assert "keras_tuner" not in file.read_text(encoding="utf-8"), file.name


def test_the_test_split_is_named_only_where_it_is_read() -> None:
    allowed = {"budget.py", "final.py", "sample.py", "source.py", "split.py"}  # `budget` counts.
    allowed |= {"describe.py", "finish.py", "report.py"}
    for file in code_files():
        strings = {
            node.value
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        }
        assert "test" not in strings or file.name in allowed, file.name


def test_files_and_functions_stay_short() -> None:
    for file in code_files():
        source = file.read_text(encoding="utf-8")
        assert source.count("\n") <= 250, file.name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 40, f"{file.name}: {node.name}"
