"""What all commands share: options made from `Config`, progress lines, errors and exit codes."""

import argparse
import dataclasses
import importlib.metadata
import itertools
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from fashion_keras.config import Config, InputError
from fashion_keras.disk import hush_h5py, told_of_disk
from fashion_keras.ending import EndedError, raise_when_told

Item = TypeVar("Item")


GOES_ON = "what was finished is kept, and the same command goes on from it"
BEGINS_ANEW = "no results were written; the same command begins anew"


def run(main: Callable[[], None], interrupted: str = GOES_ON) -> None:
    """Run a command's `main` and end the process with the right exit code.

    0: all went well; 2: the user can mend it (one line on standard error, no traceback);
    130: interrupted from the keyboard; 143: ended by SIGTERM, which goes the same way out.

    Args:
        main: The command.
        interrupted: What it says of its work when it is told to end.
    """
    hush_h5py()
    raised = raise_when_told()
    try:
        main()
    except BrokenPipeError:  # The reader of the output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        _end(raised[0] if raised else error, interrupted)


def _end(error: BaseException, interrupted: str) -> None:
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(error.code if isinstance(error, EndedError) else 130)
    told = told_of_disk(error)
    if told:
        told = f"{told}; {interrupted}"
    elif isinstance(error, (InputError, OSError)):
        told = str(error)
    else:
        raise error
    print(f"error: {told}", file=sys.stderr)
    sys.exit(2)


def parser(description: str, module: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return an argument parser whose help keeps the line breaks of its texts."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def count(text: str) -> int:
    """Return the whole number, 1 or more, that an option gives."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on. Received: {text}")
    return number


def probability(text: str) -> float:
    """Return the number from 0 to 1 that an option gives."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1. Received: {text}")
    return number


def add_config_options(
    options: argparse.ArgumentParser, names: Iterable[str], base: Config, when: str = ""
) -> None:
    """Add one option for each named knob of `Config`.

    Args:
        options: The parser.
        names: The knobs.
        base: Supplies the defaults shown.
        when: When they count, for the end of each help; always, if empty.
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for name in names:
        default = getattr(base, name)
        options.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=None,
            metavar=type(default).__name__.upper(),
            help=f"{fields[name].metadata['help']} (default: {default}){when}",
        )


def add_folder_options(options: argparse.ArgumentParser) -> None:
    """Add `--results` and `--cache`, the two folders that commands write to."""
    options.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="folder for what the command finds out (default: results)",
    )
    add_cache_option(options)


def add_cache_option(options: argparse.ArgumentParser) -> None:
    """Add `--cache`, the folder for what can be made again."""
    options.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="FOLDER",
        help="folder for downloads, prepared photos, vectors and maps (8 GB and more); may be "
        "deleted at any time (default: %(default)s, or $FASHION_KERAS_CACHE)",
    )


def next_command(
    module: str,
    options: argparse.ArgumentParser,
    given: argparse.Namespace,
    names: Iterable[str] = (),
    **found: str,
) -> str:
    """Return a command for a shell: what was found, and folders and named options as given."""
    kept = {name: getattr(given, name, None) for name in (*names, "results", "cache")}
    told = {name: value for name, value in kept.items() if value != options.get_default(name)}
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in (told | found).items()]
    return shlex.join(["python", "-m", module, *itertools.chain(*words)])


def default_cache() -> Path:
    """Return where to keep what can be made again: $FASHION_KERAS_CACHE or a folder in ~/.cache."""
    return Path(os.environ.get("FASHION_KERAS_CACHE") or Path.home() / ".cache" / "fashion_keras")


def chosen(arguments: argparse.Namespace, base: Config) -> Config:
    """Return `base` with every knob replaced that was given on the command line.

    Raises:
        InputError: If a given value lies outside its knob's range.
    """
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    fields = {field.name for field in dataclasses.fields(Config)}
    return dataclasses.replace(base, **{name: given[name] for name in given.keys() & fields})


def provenance(start: float) -> dict:
    """Return where a number comes from: command, wall time since `start`, versions, machine.

    Args:
        start: `time.monotonic()` when the command began.
    """
    packages = ("keras", "tensorflow", "keras-tuner", "numpy", "pillow")
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "seconds": round(time.monotonic() - start, 1),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }


def peak_memory() -> float | None:
    """Return the most memory this process has held so far, in GB; None where it is not known."""
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def duration(seconds: float) -> str:
    """Return a length of time for people: `41 s`, `12 min`, `3.2 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"


def progress(
    items: Iterable[Item],
    total: int,
    label: str,
    size: Callable[[Item], int] = lambda item: 1,
    stream: TextIO | None = None,
) -> Iterator[Item]:
    """Yield `items` while a line shows how many are done, the rate and the time left.

    On a terminal it is rewritten in place; elsewhere one is printed a minute, and one at the end.

    Args:
        items: What to go through.
        total: Sum of the sizes of all items; 0 if it is not known.
        label: What is being done, for the start of the line.
        size: How many units one item stands for (a batch: its photos).
        stream: Where to show it (default: standard output).
    """
    shown_on = stream or sys.stdout
    terminal = shown_on.isatty()
    start = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if done != total and now - shown >= (0.2 if terminal else 60):
            shown = now
            _show(_state(label, done, total, now - start), shown_on, last=False)
    seconds = time.monotonic() - start
    rate = done / max(seconds, 1e-9)
    _show(f"{label}: {done} in {duration(seconds)} ({rate:.1f}/s)", shown_on, last=True)


def _state(label: str, done: int, total: int, seconds: float) -> str:
    if not total:
        return f"{label}: {done}, {done / seconds:.1f}/s"
    left = (total - done) * seconds / max(done, 1)
    return f"{label}: {done}/{total}, {done / seconds:.1f}/s, {duration(left)} left"


def _show(line: str, stream: TextIO, last: bool) -> None:
    if stream.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="\n" if last else "", flush=True, file=stream)
    else:
        print(line, flush=True, file=stream)
