"""What all commands share: options made from `Config`, progress, errors, exit codes, signals."""

import argparse
import collections
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import itertools
import os
import platform
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from fashion_keras.artifacts import disk_problem
from fashion_keras.config import Config, InputError, names

Item = TypeVar("Item")

GOES_ON = "what was finished is kept, and the same command continues from there"
BEGINS_ANEW = "no results were written; the same command starts from the beginning"
# The speed of a machine is measured once, and kept in the cache.
TIME_FOLLOWS = "the whole time follows, when photos are checked and the speed is measured"
_LINE_EVERY = 30.0  # Seconds between two lines of progress where there is no terminal.
# Errors of these names, or with these words: each backend calls it other errors.
_OUT_OF_MEMORY = re.compile(
    "Resource_?Exhausted|MemoryError|out of memory|can't allocate memory|bad_alloc|ALLOC_FAILED|"
    "Dst tensor is not init",
    re.IGNORECASE,
)
_shown = {"last": 0.0}  # When a line of progress was shown last.
_seconds: dict[str, float] = collections.defaultdict(float)  # Of each stage of this process.


def run(main: Callable[[], None], interrupted: str = GOES_ON) -> None:
    """Run a command's `main` and end the process with the right exit code.

    0: success; 2: an error that the user can fix (one line on standard error, no traceback);
    130: interrupted from the keyboard; 143: ended by SIGTERM; both end with the line
    `interrupted`. A second signal ends at once.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Pipes on Windows hold few letters.
            stream.reconfigure(errors="backslashreplace")
    signals = _interrupt_on_signals()
    try:
        main()
    except BrokenPipeError:  # The reader of the output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        # A signal within a library's C code may come out as another error.
        if signals or isinstance(error, KeyboardInterrupt):
            print(f"interrupted; {interrupted}", file=sys.stderr)
            sys.exit(128 + (signals or [signal.SIGINT])[0])
        message = disk_problem(error) or _missing_package(error)
        if message is None and not isinstance(error, InputError | OSError):
            raise
        print(f"error: {message or error}", file=sys.stderr)
        sys.exit(2)


def _missing_package(error: BaseException) -> str | None:
    """Return a line for the user where only a part of what the project needs is installed."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if not name or name.partition(".")[0] in ("fashion_keras", "tuning"):
        return None
    return f"This needs {name}, which is not installed. Install all of fashion_keras (README)."


def _interrupt_on_signals() -> list[int]:
    """Let the first Ctrl-C or SIGTERM interrupt, and the next one end the process at once.

    The list returned receives the number of the first.
    """
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt

    def send_again(dropped: Any) -> None:
        # Python drops an error that is raised while the garbage collector calls something back.
        if received and isinstance(dropped.exc_value, KeyboardInterrupt):
            threading.Timer(0.05, os.kill, [os.getpid(), received.pop()]).start()
        else:
            sys.__unraisablehook__(dropped)

    sys.unraisablehook = send_again
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` and shells' `&` stay in force.
            signal.signal(number, interrupt)
    return received


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
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to 100000. Received: {text}")
    return int(text)


def probability(text: str) -> float:
    """Return the number from 0 to 1 that an option gives."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1. Received: {text}")


def add_config_options(
    options: argparse.ArgumentParser, names: Iterable[str], base: Config, when: str = ""
) -> None:
    """Add one option for each named field of `Config`, with the defaults of `base` in its help.

    `when` ends each help: the condition under which these options apply.
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for name in names:
        default = getattr(base, name)
        if isinstance(default, bool):
            text = f"{fields[name].metadata['help']}{when}"
            off = {"action": "store_const", "const": False, "help": text}
            options.add_argument(f"--no-{name}", dest=name, **off)
            continue
        usual = "none" if default == "" else default
        options.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            metavar=type(default).__name__.upper(),
            help=f"{fields[name].metadata['help']} (default: {usual}){when}",
        )


def add_folder_options(options: argparse.ArgumentParser) -> None:
    """Add `--results` and `--cache`, the two folders that commands write to."""
    add_results_option(options, "results", "the results")
    add_cache_option(options)


def add_results_option(options: argparse.ArgumentParser, default: str, files: str) -> None:
    """Add `--results`, the folder for what `files` says."""
    options.add_argument(
        "--results",
        type=Path,
        default=Path(default),
        metavar="FOLDER",
        help=f"folder for {files} (default: %(default)s)",
    )


def add_cache_option(options: argparse.ArgumentParser) -> None:
    """Add `--cache`, the folder for what can be computed again."""
    options.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="FOLDER",
        help="folder for downloads, prepared photos, features and feature maps (6 GB and more); "
        "may be deleted at any time (default: %(default)s, or $FASHION_KERAS_CACHE)",
    )


def workers(text: str) -> int:
    """Return the number of processes that an option gives; on a cluster, Ray must be there."""
    number, cluster = count(text), os.environ.get("RAY_ADDRESS", "local") != "local"
    if number > 1 and cluster and not importlib.util.find_spec("ray"):
        message = 'more than 1 on a cluster needs Ray: pip install "fashion_keras[ray]"'
        raise argparse.ArgumentTypeError(message)
    return number


def add_workers_option(options: argparse.ArgumentParser, search: bool = False) -> None:
    """Add `--workers`, the number of processes of `parallel.pool`.

    For a search it is None by default, for the number that `parallel.default_workers` returns.
    """
    default = "1; heads on this machine's CPU: one per core, at most 4" if search else "1"
    options.add_argument(
        "--workers",
        type=workers,
        default=None if search else 1,
        metavar="N",
        help="processes that work at the same time, on this machine, or on the Ray cluster that "
        f"$RAY_ADDRESS names (default: {default})",
    )


def add_deterministic_option(options: argparse.ArgumentParser) -> None:
    """Add `--deterministic` (see `backend.enable_determinism`)."""
    options.add_argument(
        "--deterministic",
        action="store_true",
        help="use only operations that give the same bits each time, on graphics cards, too, where "
        "that costs speed: TensorFlow's op determinism, JAX's flag xla_gpu_deterministic_ops, "
        "PyTorch's deterministic algorithms (an operation that has none ends the run)",
    )


def next_command(
    module: str,
    options: argparse.ArgumentParser,
    given: argparse.Namespace,
    names: Iterable[str] = (),
    **values: str,
) -> str:
    """Return a command for a shell: the values, and folders and named options as given."""
    kept = {name: getattr(given, name, None) for name in (*names, "results", "cache")}
    used = {name: value for name, value in kept.items() if value != options.get_default(name)}
    words = [
        (f"--no-{name}",) if value is False else (f"--{name.replace('_', '-')}", str(value))
        for name, value in (used | values).items()
    ]
    return command(module, *itertools.chain(*words))


def command(module: str, *words: object) -> str:
    """Return the command of a module for a shell."""
    return shlex.join(["python", "-m", module, *map(str, words)])


def show_saved(model: Path, page: Path) -> None:
    """Print where a saved model and its report are, and the command that uses it."""
    print(f"saved {model} ({model.stat().st_size / 1e6:.0f} MB); report: {page}")
    print(f"now run: {command('fashion_keras.predict', model, 'PHOTOS')}", flush=True)


def default_cache() -> Path:
    """Return the cache folder: $FASHION_KERAS_CACHE or a folder in ~/.cache."""
    return Path(os.environ.get("FASHION_KERAS_CACHE") or Path.home() / ".cache" / "fashion_keras")


def chosen(arguments: argparse.Namespace, base: Config) -> Config:
    """Return `base` with every field replaced that was given on the command line.

    Raises:
        InputError: If a given value lies outside its range.
    """
    given = {name: getattr(arguments, name, None) for name in names()}
    return dataclasses.replace(base, **{name: x for name, x in given.items() if x is not None})


def provenance(start: float) -> dict:
    """Return where a number comes from; `start` is `time.monotonic()` as the command began."""
    backend = sys.modules.get("fashion_keras.backend")  # Some commands do without Keras.
    packages = ("keras", "tensorflow", "jax", "torch", "keras-tuner", "numpy", "pillow")
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "seconds": round(time.monotonic() - start, 1),
        "stages": {name: round(seconds, 1) for name, seconds in _seconds.items()},
        "versions": versions(packages),
        "python": platform.python_version(),
        "device": backend.device() if backend else "CPU",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Log how long a stage of a command takes; as a decorator, how long a function takes.

    The line goes to standard error, if it took a second or more; `provenance` has all of them.
    Off a terminal a line says every 30 seconds that it goes on, unless `progress` says more.
    """
    start, ended = time.monotonic(), threading.Event()
    if not sys.stderr.isatty():
        threading.Thread(target=_say_so_far, args=(name, start, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
    seconds = time.monotonic() - start
    _seconds[name] += seconds
    if seconds >= 1:
        print(f"{name}: took {duration(seconds)}", file=sys.stderr, flush=True)


def _say_so_far(name: str, start: float, ended: threading.Event) -> None:
    while not ended.wait(_LINE_EVERY):
        now = time.monotonic()
        if now - _shown["last"] >= _LINE_EVERY:
            _shown["last"] = now
            print(f"{name}: {duration(now - start)} so far", file=sys.stderr, flush=True)


@contextlib.contextmanager
def memory_advice(option: str, photos: int) -> Iterator[None]:
    """Turn an out-of-memory error into an `InputError`: a smaller value of the option `option`.

    On a CPU the system often ends the process without an error instead.
    """
    try:
        yield
    except Exception as error:
        if not _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
            raise
        smaller = f"`{option} {photos // 2}`" if photos > 1 else "a smaller `--image-size`"
        raise InputError(
            f"Out of memory with {photos} photos in a batch: try {smaller}, or end other programs."
        ) from error


def peak_memory() -> float | None:
    """Return the peak memory of this process so far, in GB; None where it is not known."""
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
    """Yield `items` while it is shown how many are done, the rate and the time left.

    On a terminal that is a bar; elsewhere a line every 30 seconds, and one at the end.

    Args:
        items: What to go through.
        total: Sum of the sizes of all items; 0 if it is not known.
        label: What is being done.
        size: How many units one item stands for (a batch: its photos).
        stream: Where to show it (default: standard output).
    """
    target: TextIO = stream or sys.stdout
    if not target.isatty():
        yield from _lines(items, total, label, size, target)
        return
    from tqdm import tqdm

    with tqdm(total=total or None, desc=label, file=target, dynamic_ncols=True) as bar:
        for item in items:
            yield item
            bar.update(size(item))


def _lines(
    items: Iterable[Item], total: int, label: str, size: Callable[[Item], int], stream: TextIO
) -> Iterator[Item]:
    start = shown = since = time.monotonic()
    done = first = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if done == 1:  # It takes longer than others: a model is loaded, for example.
            first, since = done, now
        if done != total and now - shown >= _LINE_EVERY:
            shown, seconds = now, now - start
            _shown["last"] = now
            each = (now - since) / (done - first) if done > first else 0
            left = f", {duration((total - done) * each)} left" if total and each else ""
            state = f"{label}: {done}/{total or '?'}, {done / seconds:.1f}/s{left}"
            print(state, flush=True, file=stream)
    seconds = time.monotonic() - start
    rate = done / max(seconds, 1e-9)
    print(f"{label}: {done} in {duration(seconds)} ({rate:.1f}/s)", flush=True, file=stream)
