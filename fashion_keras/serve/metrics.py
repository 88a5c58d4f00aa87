"""Metrics for Prometheus, and one line per request in the log."""

import datetime
import json
import logging
import os
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64)
# Browsers load nothing from elsewhere and send nothing there; Swagger UI sets styles by script.
_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Metrics:
    """The metrics of one process; with several workers, `text` sums them up."""

    def __init__(self) -> None:
        self.seconds_per_photo = 0.0  # In the latest batch.
        self._registry = CollectorRegistry()
        common: Any = {"namespace": "fashion_keras", "registry": self._registry}
        timed = common | {"buckets": _SECONDS}
        self.requests = Counter("requests", "Requests answered.", ["path", "status"], **common)
        self.seconds = Histogram("request_seconds", "Time from head to answer.", ["path"], **timed)
        self.photos = Counter("photos", "Photos, by what became of them.", ["was"], **common)
        self.batches = Histogram("batch_photos", "Photos of a batch.", buckets=_PHOTOS, **common)
        self.model_seconds = Histogram("model_seconds", "Time of a batch in the model.", **timed)
        self.waiting = Gauge(
            "waiting_photos",
            "Photos being decoded, waiting for the model or in it.",
            multiprocess_mode="livesum",
            **common,
        )
        self.loads = Counter("model_loads", "Times the model was loaded.", ["was"], **common)

    def observe_batch(self, photos: int, seconds: float) -> None:
        """Record one batch of the model."""
        self.seconds_per_photo = seconds / photos
        self.batches.observe(photos)
        self.model_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


class AccessLog:
    """ASGI middleware: counts each request, logs one line of JSON, adds security headers.

    Neither query nor headers nor names of photos are logged, as any of them may hold a secret; of
    an unknown path only that it is unknown. HEAD is answered as GET: uvicorn leaves the body out.

    Args:
        app: An ASGI application; it may put the number of `photos` into a request's scope.
        metrics: Where to count.
        paths: Those that are counted and logged by name.
    """

    def __init__(self, app: Any, metrics: Metrics, paths: set[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths
        self._log = logging.getLogger("fashion_keras.access")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, sent = time.monotonic(), 500, 0

        async def send_on(message: Any) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS]
            sent += len(message.get("body", b""))
            await send(message)

        inner = scope | {"method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, receive, send_on)
        finally:
            self._record(scope, status, sent, time.monotonic() - start)

    def _record(self, scope: Any, status: int, sent: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, status).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ["unknown"])[0],
            "method": scope["method"][:10],
            "path": path,
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "sent": sent,
            "photos": scope.get("photos", 0),
        }
        self._log.info(json.dumps(line))
