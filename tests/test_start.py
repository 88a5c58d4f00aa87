"""Importing the package: silent when all is well, and not when it is not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def started(path: Path, code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_nothing_is_written_on_import(tmp_path):
    ended = started(tmp_path, "import fashion_keras")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_reason_of_a_failing_import_is_shown(tmp_path):
    (tmp_path / "keras.py").write_text(
        "import os; os.write(2, b'no such driver'); raise OSError(1)"
    )
    ended = started(tmp_path, "import fashion_keras")
    assert ended.returncode == 1
    assert ended.stderr.startswith("no such driverTraceback")
    assert "OSError: 1" in ended.stderr


def test_messages_are_shown_to_those_who_ask_for_them(tmp_path):
    (tmp_path / "keras.py").write_text("import os; os.write(2, b'hello')")
    # What follows the import of this Keras fails, because there is nothing in it.
    code = """
import contextlib, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
with contextlib.suppress(AttributeError):
    import fashion_keras
"""
    assert started(tmp_path, code).stderr == "hello"
