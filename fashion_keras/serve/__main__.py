"""A web service that predicts the category of photos: `python -m fashion_keras.serve [MODEL]`."""

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import signal
import socket
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import RELEASED, InputError
from fashion_keras.inspection import check_file, find_model, is_onnx
from fashion_keras.serve.settings import Settings

_DESCRIPTION = """\
Serve a classifier: a page to drop photos on, and an interface for programs (see /docs).

While the model is being loaded the service already answers /health; /ready succeeds once it is
warmed up. On SIGTERM the service finishes its requests and ends with exit code 0. On SIGHUP it
loads the model's file again; the new model takes over only if it loads and answers.

There is no password and no encryption, and slow clients keep their connection: put a reverse proxy
in front if strangers can reach the port. Needs the extra: pip install 'fashion_keras[serve]'"""
_EXAMPLES = """\
examples:
  python -m fashion_keras.serve
  python -m fashion_keras.serve my_own.keras --host 0.0.0.0 --port 80 --workers 4
  curl -F photos=@hat.jpg -F photos=@shoes.jpg http://127.0.0.1:8000/predict
  curl --data-binary @hat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict"""
_PACKAGES = ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client")


def options() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = cli.parser(_DESCRIPTION, "fashion_keras.serve", _EXAMPLES)
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        default=RELEASED,
        metavar="MODEL",
        help="a .keras file made by `python -m fashion_keras.final`, or its export to .onnx, which "
        "needs no Keras and starts quickly, but has no heat maps (default: the released model)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for all of this computer (default: %(default)s, which "
        "only this computer reaches)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=cli.count,
        default=1,
        metavar="INT",
        help="processes that share the port and the cores, each with its own model and limits "
        "(default: %(default)s)",
    )
    for field in dataclasses.fields(Settings)[1:]:
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.metadata["type"],
            default=field.default,
            metavar="FLOAT" if field.metadata["type"] is cli.probability else "INT",
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    return parser


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; connections wait on it until they are accepted.

    Raises:
        InputError: If the port is taken or no port, or the host no address of this computer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if port not in range(65536):  # Python would leave a socket open.
            raise OSError("expected a number from 0 to 65535")
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"Cannot listen on {host}, port {port}: {error}") from error
    # Connections inherit it. Without it, the second write of each answer waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _stop(number: int, _: object) -> None:
    """End at once: uvicorn has finished its requests, or there are none yet."""
    with contextlib.suppress(OSError):
        os.write(1, b"stopped\n")
    os._exit(0)  # A thread that still loads the model could not be stopped.


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check it, and serve until SIGTERM or Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Until there is a model to load again.
    given = vars(options().parse_args(arguments))
    host, port, workers = (given.pop(name) for name in ("host", "port", "workers"))
    given["model"] = find_model(given["model"])
    settings = Settings(**given)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"The service needs {', '.join(missing)}: pip install 'fashion_keras[serve]'"
        )
    from fashion_keras.serve.server import serve, serve_with_workers

    if not is_onnx(settings.model):
        check_file(settings.model)
    elif not settings.model.is_file():  # To check more of an .onnx file is to load it.
        raise InputError(f"No model file {settings.model}.")
    listener = listen(host, port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {settings.model} on http://{shown}:{port}, documented at /docs", flush=True)
    if workers == 1:
        serve(settings, listener)
    else:
        serve_with_workers(settings, listener, workers)


if __name__ == "__main__":
    cli.run(main, "nothing was served")
