"""One process of the service: from the command line's options to its end."""

import argparse
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable

import uvicorn

from fashion_keras.config import InputError
from fashion_keras.serve.app import build_app
from fashion_keras.serve.connections import guarded_protocol
from fashion_keras.serve.desk import Desk, Manner
from fashion_keras.serve.limits import Limits
from fashion_keras.serve.observation import Figures
from fashion_keras.serve.served import batch_sizes, load_served


def serve(given: argparse.Namespace, limits: Limits, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was asked.

    Args:
        given: `model`, `batch_size`, `top`, `threshold` and `addresses` are used.
        limits: What is taken.
        listener: Where to listen.

    Raises:
        InputError: If the model cannot be loaded.
    """
    figures = Figures()
    sizes = batch_sizes(given.batch_size)
    load = functools.partial(load_served, given.model, sizes, figures.batch)
    desk = Desk(Manner(load, limits, given.top, given.threshold, given.addresses), figures)
    failures: list[Exception] = []

    def failed(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(configuration(build_app(desk, failed), limits, figures.turned_away))
    _write_log_lines()
    # When it has ended, uvicorn raises the signal again; then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run([listener])
    if failures:
        raise InputError(f"The model was not loaded: {failures[0] or type(failures[0]).__name__}")
    if not desk.ready:
        os._exit(0)  # The thread that loads cannot be stopped, and nobody waits for it any more.


def configuration(app: object, limits: Limits, turned_away: Callable[[], None]) -> uvicorn.Config:
    """Return how uvicorn shall serve an application; `turned_away` is told of each connection."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=guarded_protocol(limits, turned_away),
        ws="none",
        log_config=None,  # As `_write_log_lines` says.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(limits.deadline + limits.seconds_to_send),
    )


def _write_log_lines() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("fashion_keras", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
