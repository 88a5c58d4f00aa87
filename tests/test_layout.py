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
    "fashion_keras.replacing",
    "fashion_keras.disk",
    "fashion_keras.command",
    "fashion_keras.stopwatch",
    "fashion_keras.sample",
    "fashion_keras.photo",
    "fashion_keras.source",
    "fashion_keras.split",
    "fashion_keras.inspected",
    "fashion_keras.prepare",
    "fashion_keras.pieces",
    "fashion_keras.data",
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
    "fashion_keras.range_test",
    "fashion_keras.auto_rate",
    "fashion_keras.budget",
    "fashion_keras.archive",
    "fashion_keras.inspection",
    "fashion_keras.artifact",
    "fashion_keras.classifier",
    "fashion_keras.describe",
    "fashion_keras.web",
    "fashion_keras.inputs",
    "fashion_keras.rows",
    "fashion_keras.journal",
    "fashion_keras.sorting",
    "fashion_keras.imagenet",
    "fashion_keras.cloud",
    "fashion_keras.photo_tables",
    "fashion_keras.ray_cluster",
    "fashion_keras.ray_worker",
    "fashion_keras.ray_engine",
    "fashion_keras.predict_options",
    "fashion_keras.predict",
    "fashion_keras.formats",
    "fashion_keras.runtimes",
    "fashion_keras.export",
    "fashion_keras.card",
    "fashion_keras.calibration",
    "fashion_keras.scores",
    "fashion_keras.findings",
    "fashion_keras.census",
    "fashion_keras.photo_facts",
    "fashion_keras.class_balance",
    "fashion_keras.contact_sheet",
    "fashion_keras.twins",
    "fashion_keras.batch_pictures",
    "fashion_keras.directions",
    "fashion_keras.label_errors",
    "fashion_keras.vector_map",
    "fashion_keras.check",
    "fashion_keras.drawings",
    "fashion_keras.evaluate",
    "fashion_keras.charts",
    "fashion_keras.explain",
    "fashion_keras.outcome",
    "fashion_keras.gallery",
    "fashion_keras.sections",
    "fashion_keras.search_section",
    "fashion_keras.page",
    "fashion_keras.report",
    "fashion_keras.finish",
    "fashion_keras.tensor_board",
    "fashion_keras.final",
    "fashion_keras.service",
    "fashion_keras.service.workers",
    "fashion_keras.service.limits",
    "fashion_keras.service.batching",
    "fashion_keras.service.served",
    "fashion_keras.service.uploads",
    "fashion_keras.service.connections",
    "fashion_keras.service.answers",
    "fashion_keras.service.observation",
    "fashion_keras.service.waiting",
    "fashion_keras.service.desk",
    "fashion_keras.service.app",
    "fashion_keras.service.process",
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
