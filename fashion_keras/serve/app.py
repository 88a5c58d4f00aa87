"""The application: which address answers what."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fashion_keras import __version__
from fashion_keras.serve.answers import (
    BODY,
    REASONS,
    Answer,
    Labels,
    Refusal,
    State,
    Unreadable,
    refusals,
)
from fashion_keras.serve.desk import Desk
from fashion_keras.serve.limits import RefusalError
from fashion_keras.serve.observation import Observed
from fashion_keras.serve.uploads import uploads_of
from fashion_keras.serve.waiting import unless_left

STATIC = Path(__file__).parent / "static"
_BUSY = (400, 403, 408, 413, 415, 503, 504)
# Nothing from elsewhere is loaded or told anything; the description's page styles itself.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_SAFE = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def build_app(desk: Desk, failed: Callable[[Exception], None]) -> Any:
    """Return the service as an ASGI application; it loads its model when it is started.

    Args:
        desk: What answers.
        failed: Told the error if the model cannot be loaded at the start.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(desk, failed))
        _load_on_signal(desk)
        yield
        loading.cancel()
        desk.close()

    app = FastAPI(
        title="fashion_keras",
        version=__version__,
        description="Names the category of clothing photos.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_state_routes(app, desk)
    _add_photo_routes(app, desk)
    _add_pages(app)
    _add_refusals(app)
    paths = {getattr(route, "path", "") for route in app.routes}
    return Observed(_with_safe_headers(app), desk.figures, paths)


async def _load(desk: Desk, failed: Callable[[Exception], None]) -> None:
    try:
        await desk.load()
    except Exception as error:  # No model, no service.
        failed(error)


def _load_on_signal(desk: Desk) -> None:
    """Load the model's file again on SIGHUP, where there is such a signal."""
    loading: set[asyncio.Task] = set()  # A task that nobody holds may vanish.

    def load() -> None:
        task = asyncio.ensure_future(_load(desk, lambda _: None))  # The log tells of an error.
        loading.add(task)
        task.add_done_callback(loading.discard)

    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, load)


def _add_state_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/health", tags=["state"])
    async def health() -> State:
        """Tell that the process is alive."""
        return State(status="alive")

    @app.get("/ready", tags=["state"], responses=refusals(503))
    async def ready() -> State:
        """Tell whether the model is loaded and warmed."""
        return State(status="ready", model=desk.served.version)

    @app.get("/labels", tags=["state"], responses=refusals(503))
    async def labels() -> Labels:
        """Return the categories, and what the service takes."""
        limits = desk.manner.limits
        return Labels(
            labels=desk.served.classifier.labels,
            threshold=desk.manner.threshold,
            model=desk.served.version,
            most_photos=limits.photos,
            most_photo_bytes=limits.photo_bytes,
        )

    @app.get(
        "/metrics",
        tags=["state"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    )
    async def metrics() -> Response:
        """Return figures for Prometheus."""
        return Response(desk.figures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_photo_routes(app: FastAPI, desk: Desk) -> None:
    limits = desk.manner.limits

    @app.post(
        "/predict",
        tags=["photos"],
        response_model=Answer,
        responses={**refusals(*_BUSY), 422: {"model": Unreadable, "description": REASONS[422]}},
        openapi_extra=BODY,
    )
    async def predict(request: Request) -> Any:
        """Name the category of each photo; a photo that cannot be read has a reason instead."""
        async with uploads_of(request, limits, desk.held) as uploads:
            start = time.monotonic()
            request.scope["photos"] = len(uploads)
            served, rows = await unless_left(request, desk.predict(uploads))
        answer = {"photos": rows, "model": served.version, "seconds": time.monotonic() - start}
        if any(not row["reason"] for row in rows):
            return answer
        several = "no photo can be read" if len(rows) > 1 else rows[0]["reason"]
        return JSONResponse(answer | {"reason": several}, 422)

    @app.post(
        "/explain",
        tags=["photos"],
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}, "description": "the photo with its heat map"},
            **refusals(*_BUSY, 422),
        },
        openapi_extra=BODY,
    )
    async def explain(request: Request, category: str = "") -> Response:
        """Show which part of one photo speaks for a category, or for the most probable one."""
        async with uploads_of(request, limits, desk.held) as uploads:
            if len(uploads) > 1:
                raise RefusalError(422, "one photo at a time is explained")
            jpeg = await unless_left(request, desk.explain(uploads[0], category))
        return Response(jpeg, media_type="image/jpeg")


def _add_pages(app: FastAPI) -> None:
    # Of this package only the files of Swagger UI are used: its own page needs inline scripts.
    swagger = Path(fastapi_offline.__file__).parent / "static"
    app.mount("/static", StaticFiles(directory=STATIC))
    app.mount("/swagger", StaticFiles(directory=swagger))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def description() -> FileResponse:
        return FileResponse(STATIC / "docs.html")


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RefusalError)
    async def refuse(_: Request, error: Any) -> JSONResponse:
        after = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return JSONResponse(Refusal(reason=error.reason).model_dump(), error.status, after)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: Any) -> JSONResponse:
        reason = REASONS.get(error.status_code, str(error.detail))
        return JSONResponse({"reason": reason}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"reason": "an error of the service; its log tells more"}, 500)


def _with_safe_headers(app: Any) -> Any:
    """Return an application that tells browsers to load nothing from elsewhere, and knows HEAD."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SAFE]
            await send(message)

        if scope.get("method") == "HEAD":  # Uvicorn leaves the body out.
            scope = {**scope, "method": "GET"}
        await app(scope, receive, sending)

    return answer
