"""Tests of what all commands share: options, exit codes, progress lines and provenance."""

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


def options(*fields, base=None):
    parser = cli.parser("Does things.", "fashion_keras.things", "Example:\n  things")
    cli.add_config_options(parser, fields, base or Config())
    return parser


def raising(error):
    def main():
        raise error

    return main


@pytest.fixture
def clock(monkeypatch):
    """Let 70 seconds pass between any two looks at the clock."""
    ticks = itertools.count(0, 70)
    monkeypatch.setattr("fashion_keras.cli.time.monotonic", lambda: next(ticks))


def test_options_override_only_what_is_given():
    arguments = options(*names()).parse_args(["--droprate", "0.5", "--image-size", "150"])
    base = Config(seed=9, augmented_copies=0)
    expected = Config(seed=9, augmented_copies=0, droprate=0.5, image_size=150)
    assert cli.chosen(arguments, base) == expected


def test_no_options_leave_the_base_as_it_is():
    base = Config(epochs=3)
    assert cli.chosen(options(*names()).parse_args([]), base) == base


def test_options_that_are_not_fields_are_ignored():
    parser = options("seed")
    cli.add_folder_options(parser)
    arguments = parser.parse_args(["--seed", "2", "--results", "there"])
    assert cli.chosen(arguments, Config()) == Config(seed=2)
    assert arguments.results == Path("there")


def test_next_command_has_what_was_given_and_found_and_nothing_usual(monkeypatch):
    monkeypatch.delenv("FASHION_KERAS_CACHE", raising=False)
    parser = options("data", "weights", "learning_rate")
    cli.add_folder_options(parser)

    def command(*given, **found):
        arguments = parser.parse_args([*given])
        return cli.next_command("a.b", parser, arguments, ["data", "learning_rate"], **found)

    assert command("--results", "results", "--weights", "w.h5") == "python -m a.b"
    assert command("--cache", "my cache", "--data", "it's") == (
        """python -m a.b --data 'it'"'"'s' --cache 'my cache'"""
    )
    assert command("--learning-rate", "1", learning_rate="2") == "python -m a.b --learning-rate 2"


def test_option_out_of_range_is_an_input_error():
    arguments = options("seed").parse_args(["--seed", "0"])
    with pytest.raises(InputError, match="`seed` must lie between 1 and"):
        cli.chosen(arguments, Config())


def test_option_of_the_wrong_type_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        options("epochs").parse_args(["--epochs", "many"])
    assert ended.value.code == 2
    assert "argument --epochs: invalid int value: 'many'" in capsys.readouterr().err


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        options("epochs").parse_args(["--epoch", "3"])
    assert "unrecognized arguments: --epoch 3" in capsys.readouterr().err


def test_help_shows_the_defaults_of_the_base():
    text = options("droprate", base=Config(droprate=0.4)).format_help()
    assert "--droprate FLOAT" in text
    assert "(default: 0.4)" in text
    assert "usage: python -m fashion_keras.things" in text
    assert "Example:\n  things" in text


@pytest.mark.parametrize("error", [InputError("give a folder"), OSError("give a folder")])
def test_error_that_the_user_can_fix_is_one_line_and_code_2(error, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(raising(error))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: give a folder\n")


def test_missing_file_is_named_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: print(Path("no such file").read_bytes()))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: [Errno 2] No such file or directory: 'no such file'\n"


def test_interrupt_is_code_130_and_says_what_is_kept(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(raising(KeyboardInterrupt()))
    assert ended.value.code == 130
    expected = f"interrupted; {cli.GOES_ON}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, MemoryError])
def test_our_own_mistakes_keep_their_traceback(kind):
    with pytest.raises(kind, match="a mistake"):
        cli.run(raising(kind("a mistake")))


def test_sigterm_goes_the_same_way_out_with_code_143(capsys):
    cleaned = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 143
    assert cleaned == [True]
    assert "what was finished is kept" in capsys.readouterr().err


def test_success_does_not_end_the_process(capsys):
    cli.run(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


def test_progress_yields_everything_in_order():
    assert list(cli.progress("cab", 3, "letters")) == ["c", "a", "b"]


def test_quick_work_prints_only_its_last_line(capsys):
    list(cli.progress(range(1000), 1000, "photos"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("photos: 1000 in 0 s (")


def test_progress_off_a_terminal_prints_a_line_every_30_seconds(clock, capsys):
    list(cli.progress(range(3), 3, "photos"))
    assert capsys.readouterr().out.splitlines() == [
        "photos: 1/3, 0.0/s, 2 min left",  # After 70 s; two times 70 s are to come.
        "photos: 2/3, 0.0/s, 70 s left",
        "photos: 3 in 5 min (0.0/s)",
    ]


def test_progress_counts_the_sizes_of_batches(clock, capsys):
    list(cli.progress([[1, 2, 3], [4]], 4, "photos", len))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["photos: 3/4, 0.0/s, 23 s left", "photos: 4 in 4 min (0.0/s)"]


def test_progress_with_unknown_total_shows_what_is_done(clock, capsys):
    list(cli.progress(range(2), 0, "bytes"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["bytes: 1, 0.0/s", "bytes: 2, 0.0/s", "bytes: 2 in 4 min (0.0/s)"]


@pytest.mark.parametrize("total", [0, 5])
def test_progress_without_items_says_so(total, capsys):
    assert list(cli.progress([], total, "photos")) == []
    assert capsys.readouterr().out == "photos: 0 in 0 s (0.0/s)\n"


def test_empty_items_do_not_stop_the_progress(clock, capsys):
    assert list(cli.progress([[], [1]], 1, "photos", len)) == [[], [1]]
    assert capsys.readouterr().out.splitlines()[0].startswith("photos: 0/1")


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert list(cli.progress([[1, 2], [3]], 3, "photos", len)) == [[1, 2], [3]]
    output = capsys.readouterr().out
    assert output.startswith("\rphotos:   0%")
    assert "3/3" in output


def test_a_stage_is_logged_and_kept_in_the_provenance(clock, capsys):
    @cli.stage("features")
    def work():
        return 3

    assert work() == 3
    assert capsys.readouterr() == ("", "features: took 70 s\n")
    assert cli.provenance(0)["stages"]["features"] == 70


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (41.4, "41 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (720, "12 min"),
        (5939, "99 min"),
        (5940, "1.6 h"),
        (11520, "3.2 h"),
    ],
)
def test_duration_for_people(seconds, text):
    assert cli.duration(seconds) == text


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_KERAS_CACHE", str(tmp_path))
    parser = options()
    cli.add_folder_options(parser)
    assert cli.default_cache() == tmp_path
    assert parser.parse_args([]).cache == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_cache_is_in_the_home_folder_otherwise(value, monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_KERAS_CACHE", value or "")
    if value is None:
        monkeypatch.delenv("FASHION_KERAS_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cli.default_cache() == tmp_path / ".cache" / "fashion_keras"


def test_provenance_has_command_time_and_versions(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python", "-m", "tuning.search", "--seed", "2"])
    facts = cli.provenance(time.monotonic() - 61)
    assert facts["command"] == "python -m tuning.search --seed 2"
    assert facts["seconds"] == pytest.approx(61, abs=1)
    assert set(facts["versions"]) == {"keras", "tensorflow", "keras-tuner", "numpy", "pillow"}
    assert facts["versions"]["pillow"] == importlib.metadata.version("pillow")
    assert " cores, " in facts["machine"]


@pytest.mark.parametrize(("platform", "held"), [("linux", 2_500_000), ("darwin", 2_560_000_000)])
def test_peak_memory_is_in_gb_whatever_the_system_counts_in(platform, held, monkeypatch):
    usage = types.SimpleNamespace(ru_maxrss=held)
    resource = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(sys, "platform", platform)
    assert cli.peak_memory() == 2.56


def test_peak_memory_is_unknown_on_windows(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert cli.peak_memory() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to be caught")
def test_a_signal_that_comes_out_as_another_error_is_a_signal_all_the_same(capsys):
    def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise SystemError("bad argument to internal function") from None

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 143
    assert capsys.readouterr().err.startswith("interrupted; ")


posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
ROOT = Path(__file__).parents[1]


def python(*words, path=(), **variables):
    """Run Python as a user would, with more folders to import from."""
    paths = os.pathsep.join(map(str, [*path, ROOT]))
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    if not variables:
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=120
    )


@posix
def test_a_second_signal_ends_at_once():
    program = """
import os, signal
from fashion_keras import cli
def main():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("still alive")
cli.run(main)
"""
    ended = python("-c", program)
    assert (ended.returncode, ended.stdout) == (143, "")


@posix
def test_a_signal_that_the_garbage_collector_drops_is_sent_again():
    program = """
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
"""
    ended = python("-c", program)
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


def test_importing_the_package_is_silent_and_imports_no_keras():
    ended = python("-c", "import fashion_keras, sys; assert 'keras' not in sys.modules")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_classifier_is_imported_when_it_is_asked_for():
    import fashion_keras

    assert "load_classifier" in dir(fashion_keras)
    assert callable(fashion_keras.load_classifier)
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        fashion_keras.load_model  # noqa: B018


def test_messages_of_an_import_are_shown_if_it_fails_or_they_are_asked_for(tmp_path):
    (tmp_path / "keras.py").write_text("import os; os.write(2, b'no driver'); raise OSError(1)")
    ended = python("-c", "import fashion_keras.backend", path=[tmp_path])
    assert ended.returncode == 1
    assert ended.stderr.startswith("no driverTraceback")
    (tmp_path / "keras.py").write_text("import os; os.write(2, b'hello')")
    assert python("-c", "import fashion_keras.backend", path=[tmp_path]).stderr == ""
    shown = python("-c", "import fashion_keras.backend", path=[tmp_path], TF_CPP_MIN_LOG_LEVEL="0")
    assert shown.stderr == "hello"
