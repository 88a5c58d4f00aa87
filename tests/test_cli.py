"""Tests of what all commands share: options, exit codes, progress lines and provenance."""

import argparse
import importlib.metadata
import itertools
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from fashion_keras import cli
from fashion_keras.config import Config, InputError, names
from tests.builders import ROOT, python

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def options(*fields, base=None):
    parser = cli.parser("Does things.", "fashion_keras.things", "Example:\n  things")
    cli.add_config_options(parser, fields, base or Config())
    cli.add_folder_options(parser)
    return parser


def ending(main, capsys):
    """Return the exit code of a command and what it prints on standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_names_that_a_pipe_cannot_hold_are_escaped(encoding):
    program = "from fashion_keras import cli; cli.run(lambda: print('写真 ü'))"
    variables = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, env=variables, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    expected = "写真 ü".encode(encoding, errors="backslashreplace")
    assert ended.stdout.strip() == expected


def test_a_silent_stage_says_that_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_LINE_EVERY", 0.05)
    with cli.stage("waiting"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert set(lines) == {"waiting: 0 s so far"}


@pytest.fixture
def clock(monkeypatch):
    """Let 70 seconds pass between any two looks at the clock."""
    ticks = itertools.count(0, 70)
    monkeypatch.setattr("fashion_keras.cli.time.monotonic", lambda: next(ticks))


def test_options_override_only_what_is_given():
    base = Config(seed=9, augmented_copies=0)
    parser = options(*names())
    assert cli.chosen(parser.parse_args([]), base) == base
    given = parser.parse_args(["--droprate", "0.5", "--image-size", "150", "--results", "there"])
    expected = Config(seed=9, augmented_copies=0, droprate=0.5, image_size=150)
    assert cli.chosen(given, base) == expected
    assert given.results == Path("there")


def test_next_command_has_what_was_given_and_found_and_nothing_usual(monkeypatch):
    monkeypatch.delenv("FASHION_KERAS_CACHE", raising=False)
    parser = options("data", "weights", "learning_rate")

    def command(*given, **found):
        arguments = parser.parse_args([*given])
        return cli.next_command("a.b", parser, arguments, ["data", "learning_rate"], **found)

    assert command("--results", "results", "--weights", "w.h5") == "python -m a.b"
    assert command("--cache", "my cache", "--data", "it's") == (
        """python -m a.b --data 'it'"'"'s' --cache 'my cache'"""
    )
    assert command("--learning-rate", "1", learning_rate="2") == "python -m a.b --learning-rate 2"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("--epochs many", "argument --epochs: invalid int value: 'many'"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),
        ("--workers 0", "argument --workers: expected an integer from 1 to 100000. Received: 0"),
        (
            "--workers 2",
            'more than 1 on a cluster needs Ray: pip install "fashion_keras[ray]',
        ),
    ],
)
def test_wrong_options_end_with_code_2(given, error, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # Ray is not installed.
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    parser = options("epochs")
    cli.add_workers_option(parser)
    with pytest.raises(SystemExit, match="^2$"):
        parser.parse_args(given.split())
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1.1", "-0.1", "nan", "half"])
def test_probabilities_are_numbers_from_0_to_1(text):
    assert (cli.probability("0"), cli.probability("1")) == (0, 1)
    with pytest.raises(argparse.ArgumentTypeError, match=f"from 0 to 1. Received: {text}"):
        cli.probability(text)


def test_help_shows_the_defaults_of_the_base():
    text = options("droprate", base=Config(droprate=0.4)).format_help()
    for part in ("--droprate FLOAT", "(default: 0.4)", "usage: python -m fashion_keras.things"):
        assert part in text
    assert "Example:\n  things" in text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("give a folder"), "give a folder\n"),
        (OSError("give a folder"), "give a folder\n"),
        (ModuleNotFoundError("", name="matplotlib.pyplot"), "This needs matplotlib.pyplot,"),
    ],
)
def test_error_that_the_user_can_fix_is_one_line_and_code_2(error, message, capsys):
    def main():
        raise error

    code, shown = ending(main, capsys)
    assert (code, shown.count("\n")) == (2, 1)
    assert shown.startswith(f"error: {message}")


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, MemoryError, ModuleNotFoundError])
def test_our_own_mistakes_keep_their_traceback(kind):
    def main():
        raise kind("a mistake")

    with pytest.raises(kind, match="a mistake"):
        cli.run(main)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("other", [False, True])
def test_a_signal_cleans_up_and_says_what_is_kept_even_as_another_error(number, other, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs ignore it.
    cleaned = []

    def main():
        try:
            os.kill(os.getpid(), number)
            time.sleep(20)
        except KeyboardInterrupt as error:
            cleaned.append(True)
            raise SystemError("bad argument to internal function") if other else error from None

    assert ending(main, capsys) == (128 + number, f"interrupted; {cli.GOES_ON}\n")
    assert cleaned == [True]


def test_success_does_not_end_the_process(capsys):
    cli.run(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


def test_quick_work_prints_only_its_last_line(capsys):
    assert list(cli.progress(range(1000), 1000, "photos")) == list(range(1000))
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("photos: 1000 in 0 s (")


@pytest.mark.parametrize(
    ("batches", "total", "lines"),
    [
        # Each takes 70 s; the first photo counts for no estimate.
        (["a", "b", "c"], 3, ["1/3, 0.0/s", "2/3, 0.0/s, 70 s left", "3 in 5 min"]),
        (["abc", "d"], 4, ["3/4, 0.0/s, 23 s left", "4 in 4 min"]),
        (["", "a"], 1, ["0/1, 0.0/s", "1 in 4 min"]),
        (["a", "b"], 0, ["1/?, 0.0/s", "2/?, 0.0/s", "2 in 4 min"]),
        ([], 5, ["0 in 70 s"]),
    ],
)
def test_progress_off_a_terminal_prints_a_line_every_30_seconds(
    batches, total, lines, clock, capsys
):
    assert list(cli.progress(batches, total, "photos", len)) == batches
    *states, last = (f"photos: {line}" for line in lines)
    assert capsys.readouterr().out.splitlines() == [*states, f"{last} (0.0/s)"]


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert list(cli.progress([[1, 2], [3]], 3, "photos", len)) == [[1, 2], [3]]
    output = capsys.readouterr().out
    assert output.startswith("\rphotos:   0%")
    assert "3/3" in output


def test_a_stage_is_logged_and_kept_in_the_provenance(clock, capsys):
    @cli.stage("a test")
    def work():
        return 3

    assert work() == 3
    assert capsys.readouterr() == ("", "a test: took 70 s\n")
    assert cli.provenance(0)["stages"]["a test"] == 70


def test_duration_for_people():
    seconds = (0, 41.4, 99.4, 99.5, 5939, 5940, 11520)
    texts = ["0 s", "41 s", "99 s", "2 min", "99 min", "1.6 h", "3.2 h"]
    assert [cli.duration(one) for one in seconds] == texts


@pytest.mark.parametrize("value", ["elsewhere", ""])
def test_cache_is_where_the_environment_says_or_in_the_home_folder(value, monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_KERAS_CACHE", value)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    expected = Path("elsewhere") if value else tmp_path / ".cache" / "fashion_keras"
    assert options().parse_args([]).cache == expected


def test_provenance_has_command_time_and_versions(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python", "-m", "tuning.search", "--seed", "2"])
    facts = cli.provenance(time.monotonic() - 61)
    assert facts["command"] == "python -m tuning.search --seed 2"
    assert facts["seconds"] == pytest.approx(61, abs=1)
    assert set(facts["versions"]) == {"keras", "tensorflow", "keras-tuner", "numpy", "pillow"}
    assert facts["versions"]["pillow"] == importlib.metadata.version("pillow")
    assert " cores, " in facts["machine"]


@pytest.mark.parametrize(
    ("platform", "held", "expected"),
    [("linux", 2_500_000, 2.56), ("darwin", 2_560_000_000, 2.56), ("win32", None, None)],
)
def test_peak_memory_is_in_gb_whatever_the_system_counts_in(platform, held, expected, monkeypatch):
    usage = types.SimpleNamespace(ru_maxrss=held)
    resource = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setitem(sys.modules, "resource", resource if held else None)
    monkeypatch.setattr(sys, "platform", platform)
    assert cli.peak_memory() == expected


@posix
def test_a_second_signal_ends_at_once():
    ended = python(
        "-c",
        """
import os, signal
from fashion_keras import cli
def main():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("still alive")
cli.run(main)
""",
    )
    assert (ended.returncode, ended.stdout) == (143, "")


@posix
def test_a_signal_that_the_garbage_collector_drops_is_sent_again():
    ended = python(
        "-c",
        """
import os, signal, time, weakref
from fashion_keras import cli
class Thing:
    pass
def main():
    thing = Thing()
    known = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing  # Python drops what the callback raises.
    print("goes on", flush=True)
    time.sleep(30)
cli.run(main)
""",
    )
    assert (ended.returncode, ended.stdout) == (143, "goes on\n")
    assert ended.stderr.startswith("interrupted; what was finished is kept")


@posix
def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cli.run(lambda: None)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_package_imports_no_keras_until_the_classifier_is_asked_for():
    ended = python("-c", "import fashion_keras, sys; assert 'keras' not in sys.modules")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    import fashion_keras

    assert "load_classifier" in dir(fashion_keras)
    assert callable(fashion_keras.load_classifier)
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        fashion_keras.load_model  # noqa: B018


def test_messages_of_an_import_are_shown_if_it_fails_or_they_are_asked_for(tmp_path):
    program, keras = "import fashion_keras.backend", tmp_path / "keras.py"
    keras.write_text("import os; os.write(2, b'no driver'); raise OSError(1)")
    words, variables = ("-c", program), {"PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    assert python(*words, **variables).stderr.startswith("no driverTraceback")
    keras.write_text(
        "import os; from unittest.mock import Mock; os.write(2, b'hello'); config = Mock()"
    )
    assert python(*words, **variables).stderr == ""
    assert python(*words, **variables | {"TF_CPP_MIN_LOG_LEVEL": "0"}).stderr == "hello"


@pytest.mark.parametrize(
    ("photos", "error", "advice"),
    [
        (32, RuntimeError("RESOURCE_EXHAUSTED: no 4 GB"), "32 .* try `--batch-size 16`"),
        (1, MemoryError(), "1 photos .* a smaller `--image-size`"),
        (8, RuntimeError("Dst tensor is not initialized"), "size 4`"),
        (8, RuntimeError("DefaultCPUAllocator: can't allocate memory"), "size 4`"),
    ],
)
def test_too_little_memory_says_what_to_try(photos: int, error: Exception, advice: str) -> None:
    with pytest.raises(InputError, match=advice), cli.memory_advice("--batch-size", photos):
        raise error


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="a bug"), cli.memory_advice("--batch-size", 8):
        raise RuntimeError("a bug")
