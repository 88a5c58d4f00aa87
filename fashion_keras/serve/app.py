"""The ASGI application: which path answers what."""

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
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fashion_keras import __version__
from fashion_keras.serve.metrics import AccessLog
from fashion_keras.serve.schemas import BODY, Answer, Labels, State, refusals
from fashion_keras.serve.service import Service
from fashion_keras.serve.uploads import uploads_of

_STATIC = Path(__file__).parent / "static"
# Of this package only the files of Swagger UI are used: its own page needs inline scripts.
_SWAGGER = Path(fastapi_offline.__file__).parent / "static"
_REFUSALS = refusals(400, 408, 413, 415, 422, 503, 504)


def build_app(service: Service, failed: Callable[[Exception], None]) -> AccessLog:
    """Return the service as an ASGI application, which loads its model when it is started.

    Args:
        service: Answers.
        failed: Called with the error if the model cannot be loaded at the start.
    """

    def load(failed: Callable[[Exception], None]) -> None:
        app.state.loading = asyncio.create_task(_load(service, failed))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        load(failed)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            # If it fails, the log shows the error, and the model before stays.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, load, lambda _: None)
        yield

    app = FastAPI(
        title="fashion_keras",
        version=__version__,
        description="Predicts the category of clothing photos.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_state_routes(app, service)
    _add_photo_routes(app, service)
    _add_pages(app)
    _add_error_handlers(app)
    return AccessLog(app, service.metrics, {getattr(route, "path", "") for route in app.routes})


async def _load(service: Service, failed: Callable[[Exception], None]) -> None:
    try:
        await service.load()
    except Exception as error:
        failed(error)


def _add_state_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["state"])
    async def health() -> State:
        """Answer as long as the process is alive."""
        return State(status="alive")

    @app.get("/ready", tags=["state"], responses=refusals(503))
    async def ready() -> State:
        """Answer as soon as the model is loaded and warmed up."""
        return State(status="ready", model=service.model.version)

    @app.get("/labels", tags=["state"], responses=refusals(503))
    async def labels() -> Labels:
        """Return the categories, and what the service accepts."""
        return Labels(
            labels=service.model.classifier.labels,
            threshold=service.settings.threshold,
            model=service.model.version,
            max_photos=service.settings.photos,
            explains=service.model.explain is not None,
            max_photo_bytes=round(service.settings.photo_megabytes * 1e6),
        )

    @app.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return metrics in Prometheus' text format."""
        text = service.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_photo_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        tags=["photos"],
        response_model=Answer,
        responses=_REFUSALS,
        openapi_extra=BODY,
    )
    async def predict(request: Request) -> Any:
        """Predict the category of each photo; one that cannot be read has a reason instead."""
        async with uploads_of(request, service.settings, service.held) as uploads:
            start = time.monotonic()
            request.scope["photos"] = len(uploads)
            model, rows = await service.predict(uploads)
        answer = {"photos": rows, "model": model.version, "seconds": time.monotonic() - start}
        if any(not row["reason"] for row in rows):
            return answer
        reason = rows[0]["reason"] if len(rows) == 1 else "none of the photos can be read"
        return JSONResponse(answer | {"reason": reason}, 422)

    @app.post(
        "/explain",
        tags=["photos"],
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}, "description": "the photo with its heat map"},
            **_REFUSALS,
            **refusals(501),
        },
        openapi_extra=BODY,
    )
    async def explain(request: Request, category: str = "") -> Response:
        """Show which areas of a photo contribute to a category, by default the most probable."""
        async with uploads_of(request, service.settings, service.held) as uploads:
            if len(uploads) > 1:
                raise HTTPException(422, "one photo at a time is explained")
            request.scope["photos"] = 1
            jpeg = await service.explain(uploads[0], category)
        return Response(jpeg, media_type="image/jpeg")


def _add_pages(app: FastAPI) -> None:
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.mount("/swagger", StaticFiles(directory=_SWAGGER))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: Any) -> JSONResponse:
        return JSONResponse({"reason": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def report(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"reason": "an error of the service; see its log"}, 500)
