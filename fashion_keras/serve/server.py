"""Runs the service under uvicorn: in this process, or in several behind one socket."""

import functools
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from typing import Any

import uvicorn
from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from fashion_keras.config import InputError
from fashion_keras.serve.settings import Settings

_KEEP_ALIVE = 75  # Seconds; longer than the 60 that reverse proxies keep idle connections.
_HEALTHY = 60  # Seconds in which a worker must answer its supervisor, also while it imports Keras.


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests.

    Raises:
        InputError: If the model cannot be loaded.
    """
    failures: list[Exception] = []

    def failed(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = _application(settings, failed)
    server = uvicorn.Server(configuration(app, settings))
    server.run([listener])
    if failures:
        raise InputError(f"The model was not loaded: {failures[0] or type(failures[0]).__name__}")


def serve_with_workers(settings: Settings, listener: socket.socket, count: int) -> None:
    """Serve with several processes until SIGTERM or SIGINT; one that dies is replaced.

    Raises:
        InputError: If a worker cannot load the model when it starts.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    _configure_logging(uvicorn_level=logging.INFO)
    with tempfile.TemporaryDirectory(prefix="fashion_keras-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        app = functools.partial(_worker, settings)
        workers = _Workers(configuration(app, settings, factory=True, workers=count), [listener])
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise InputError("The model was not loaded; the log of the worker above has the reason.")


def configuration(app: Any, settings: Settings, **more: Any) -> uvicorn.Config:
    """Return the configuration of uvicorn for an application or, with `factory`, for its maker."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,  # See `_configure_logging`.
        access_log=False,  # It would contain queries.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.deadline + settings.seconds_to_send),
        timeout_worker_healthcheck=_HEALTHY,
        **more,
    )


class _Workers(Multiprocess):
    """Workers of uvicorn, which reload their model on SIGHUP instead of being replaced.

    uvicorn's own replacement would answer 503 until the new model is loaded, or for good if it
    cannot be loaded.
    """

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid and process.process.is_alive():
                os.kill(process.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:  # Else a worker that dies looks busy until `_HEALTHY`.
            process.child_conn.close()
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for dead in before - {process.pid for process in self.processes}:
            multiprocess.mark_process_dead(dead)  # Its gauges no longer count.


def _worker(settings: Settings) -> Any:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # uvicorn starts no other worker after this exit code, but ends them all.
    return _application(settings, lambda _: os._exit(STARTUP_FAILURE))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # Finishes its requests.


def _application(settings: Settings, failed: Any) -> Any:
    from fashion_keras.serve.app import build_app
    from fashion_keras.serve.model import load_model
    from fashion_keras.serve.service import Service

    _configure_logging()
    return build_app(Service(load_model, settings), failed)


def _configure_logging(uvicorn_level: int = logging.WARNING) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("fashion_keras", logging.INFO), ("uvicorn", uvicorn_level)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
