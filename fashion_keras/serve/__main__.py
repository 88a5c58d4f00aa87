"""A web service that names the category of photos: `python -m fashion_keras.serve [MODEL]`."""

import argparse
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.inspection import check_file
from fashion_keras.predict.options import RELEASED, check_released
from fashion_keras.serve.limits import MEGABYTE, Limits
from fashion_keras.serve.workers import LISTENER, listen, run_workers

_DESCRIPTION = """\
Serve a classifier: a page to drop photos on, and an interface for programs (see /docs).

The model is loaded while the service already answers /health; /ready tells when it is warmed.
SIGTERM answers what was asked and ends with exit code 0. SIGHUP loads the model's file again; it
takes over only if it loads and answers, and until then the one before goes on.

There is no password and no encryption: put a proxy with both in front, if strangers can reach the
port. Needs the extra: pip install 'fashion_keras[serve]'"""
_EXAMPLES = """\
examples:
  python -m fashion_keras.serve
  python -m fashion_keras.serve my_own.keras --host 0.0.0.0 --port 80 --workers 4
  curl -F photos=@hat.jpg -F photos=@shoes.jpg http://127.0.0.1:8000/predict
  curl --data-binary @hat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict"""
_NEEDED = ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client")


def _options() -> argparse.ArgumentParser:
    options = cli.parser(_DESCRIPTION, "fashion_keras.serve", _EXAMPLES)
    options.add_argument(
        "model",
        nargs="?",
        type=Path,
        default=RELEASED,
        metavar="MODEL",
        help=f"a .keras file made by `python -m fashion_keras.final` (default: {RELEASED})",
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this "
        "computer (default: %(default)s, which only this computer reaches)")  # fmt: skip
    add("--port", type=_port, default=8000, help="port to listen on (default: %(default)s)")
    add("--workers", type=cli.count, default=1, metavar="INT",
        help="processes that share the port and the cores, each with a model of its own "
        "(default: %(default)s)")  # fmt: skip
    add("--top", type=cli.count, default=3, metavar="INT",
        help="how many of the most probable categories to tell (default: %(default)s)")  # fmt: skip
    add("--threshold", type=cli.probability, default=0.5, metavar="FLOAT",
        help="call photos `uncertain` whose best category is less probable than this "
        "(default: %(default)s)")  # fmt: skip
    add("--batch-size", type=cli.count, default=16, metavar="INT",
        help="most photos that go through the model together (default: %(default)s)")  # fmt: skip
    add("--addresses", action="store_true",
        help="also fetch photos from web addresses that programs send, never from this computer "
        "or the local network (default: refused)")  # fmt: skip
    _add_limits(options.add_argument_group("limits of each worker"))
    return options


def _add_limits(group: Any) -> None:
    usual = Limits()
    for option, default, what in (
        ("--photos", usual.photos, "most photos in one request"),
        ("--photo-megabytes", usual.photo_bytes // MEGABYTE, "most megabytes of one photo"),
        ("--photo-megapixels", usual.photo_pixels // 1_000_000, "most megapixels of one photo"),
        ("--body-megabytes", usual.body_bytes // MEGABYTE, "most megabytes of one request"),
        ("--held-megabytes", usual.held_bytes // MEGABYTE, "most megabytes of all requests "
         "at a time"),
        ("--waiting", usual.waiting, "most photos that wait for the model"),
        ("--connections", usual.connections, "most connections at a time"),
        ("--seconds-to-send", round(usual.seconds_to_send), "time in which a request must come"),
        ("--deadline", round(usual.deadline), "seconds after which a request is given up"),
    ):  # fmt: skip
        group.add_argument(
            option,
            type=cli.count,
            default=default,
            metavar="INT",
            help=f"{what} (default: {default})",
        )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535. Received: {text}")
    return int(text)


def limits_of(given: argparse.Namespace) -> Limits:
    """Return the limits that options tell."""
    return Limits(
        photos=given.photos,
        photo_bytes=given.photo_megabytes * MEGABYTE,
        photo_pixels=given.photo_megapixels * 1_000_000,
        body_bytes=given.body_megabytes * MEGABYTE,
        held_bytes=given.held_megabytes * MEGABYTE,
        waiting=given.waiting,
        connections=given.connections,
        seconds_to_send=given.seconds_to_send,
        deadline=given.deadline,
    )


def check(given: argparse.Namespace) -> None:
    """Refuse, before anything slow is done, what cannot work.

    Raises:
        InputError: If the extra is missing, the model is no classifier, or limits contradict.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"The service needs {', '.join(missing)}: pip install 'fashion_keras[serve]'"
        )
    if given.model == RELEASED:
        check_released()
    check_file(given.model)
    limits = limits_of(given)
    if limits.body_bytes > limits.held_bytes:
        raise InputError("`--body-megabytes` must not be more than `--held-megabytes`.")
    if limits.photos > limits.waiting:
        raise InputError("`--photos` must not be more than `--waiting`.")
    if given.workers > 1 and sys.platform == "win32":
        raise InputError("Windows cannot share a port among workers; leave out `--workers`.")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, and serve until told to end."""
    # Until there is something to drain or to load again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    words = sys.argv[1:] if arguments is None else arguments
    given = _options().parse_args(words)
    check(given)
    from fashion_keras.serve.process import serve  # Needs what `check` has looked for.

    inherited = os.environ.pop(LISTENER, "")
    if inherited:
        serve(given, limits_of(given), socket.socket(fileno=int(inherited)))
        return
    listener = listen(given.host, given.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {given.model} on http://{shown}:{port}, its interface on /docs", flush=True)
    if given.workers == 1:
        serve(given, limits_of(given), listener)
        return
    worker = [sys.executable, "-m", "fashion_keras.serve", *words]
    patience = given.deadline + given.seconds_to_send
    sys.exit(run_workers(worker, given.workers, listener, patience))


if __name__ == "__main__":
    cli.run(main, "nothing was served")
