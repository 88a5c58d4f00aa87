"""What can be seen of a running service: figures for Prometheus, and one line a request."""

import datetime
import json
import logging
import os
import time
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from fashion_keras.serve.workers import FIGURES

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_PREFIX = "fashion_keras_"


class Figures:
    """Counters and histograms of one process; of several workers the sum is shown."""

    def __init__(self) -> None:
        self.seconds_a_photo = 0.0  # In the latest batch.
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter(
            f"{_PREFIX}requests", "Requests answered.", ["path", "status"], **made
        )
        self.seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "Time from a request's head to its answer.",
            ["path"],
            buckets=_SECONDS,
            **made,
        )
        self.photos = Counter(
            f"{_PREFIX}photos", "Photos, by what became of them.", ["was"], **made
        )
        self.batches = Histogram(
            f"{_PREFIX}batch_photos",
            "Photos that went through the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            **made,
        )
        self.model_seconds = Histogram(
            f"{_PREFIX}model_seconds", "Time of one batch in the model.", buckets=_SECONDS, **made
        )
        self.waiting = Gauge(
            f"{_PREFIX}waiting_photos",
            "Photos being decoded, waiting for the model or in it.",
            multiprocess_mode="livesum",
            **made,
        )
        self.loads = Counter(
            f"{_PREFIX}model_loads", "Times the model was loaded.", ["was"], **made
        )

    def turned_away(self) -> None:
        """Note a connection too many."""
        self.requests.labels("connection", 503).inc()

    def batch(self, photos: int, seconds: float) -> None:
        """Note one batch of the model."""
        self.seconds_a_photo = seconds / photos
        self.batches.observe(photos)
        self.model_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        if FIGURES not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return generate_latest(together)


class Observed:
    """ASGI middleware: counts each request and writes one line of JSON for it.

    Neither a query nor a header, nor a name or an address of a photo gets into the line: any of
    them may hold a secret. Of a path that is not known only that is told.
    """

    def __init__(self, app: Any, figures: Figures, paths: set[str]) -> None:
        """Wrap an application.

        Args:
            app: What answers.
            figures: Where to count.
            paths: Those that are told by name.
        """
        self._app = app
        self._figures = figures
        self._paths = paths
        self._log = logging.getLogger("fashion_keras.access")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        told = {"status": 499, "sent": 0}  # If it stays so, nobody was there any more.

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
            else:
                told["sent"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._note(scope, told, time.monotonic() - start)

    def _note(self, scope: Any, told: dict[str, int], seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._figures.requests.labels(path, told["status"]).inc()
        self._figures.seconds.labels(path).observe(seconds)
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ["unknown"])[0],
            "method": scope["method"][:10],
            "path": path,
            "status": told["status"],
            "milliseconds": round(seconds * 1000, 1),
            "sent": told["sent"],
            "photos": scope.get("photos", 0),
        }
        self._log.info(json.dumps(line))
