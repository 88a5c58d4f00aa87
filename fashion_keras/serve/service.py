"""Answers requests with the model: decodes, queues, keeps the deadline, swaps models."""

import asyncio
import io
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException

from fashion_keras.classifier import unread
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.predict.rows import row_of
from fashion_keras.serve.metrics import Metrics
from fashion_keras.serve.model import ServedModel
from fashion_keras.serve.settings import Settings
from fashion_keras.serve.uploads import Capacity, Upload

Result = TypeVar("Result")

_LOG = logging.getLogger("fashion_keras.serve")
_EXPLANATIONS = 4  # At the same time.
_EXPLAINED_SIDE = 512
_NOT_EXPLAINED = "an .onnx file cannot be explained; Grad-CAM needs the .keras file"


class Service:
    """The model and everything in front of it; used in one event loop.

    Args:
        load: See `model.load_model`.
        settings: How to answer.
    """

    def __init__(self, load: Callable[..., ServedModel], settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        held = round(settings.held_megabytes * 1e6)
        self.held = Capacity(held, "too much is being sent at once; try later")
        self._photos = Capacity(settings.waiting, "too many photos are waiting; try later")
        self._explanations = Capacity(_EXPLANATIONS, "too many explanations wait; try later")
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._explainer = ThreadPoolExecutor(1, "explain")
        self._loader = ThreadPoolExecutor(1, "load")
        self._ahead = asyncio.Semaphore()  # Photos that are decoded, until they are answered.
        self._load = load
        self._model: ServedModel | None = None

    @property
    def model(self) -> ServedModel:
        """The loaded model; raises 503 until there is one."""
        if self._model is None:
            raise HTTPException(503, "the model is still being loaded", {"Retry-After": "5"})
        return self._model

    async def load(self) -> None:
        """Load the model's file as it is now; the model before answers until then.

        Raises:
            Exception: What went wrong; the model before stays.
        """
        start, asked = time.monotonic(), (self.settings.model, self.settings.batch_size)
        try:
            model = await self._run(self._loader, self._load, *asked, self.metrics.observe_batch)
        except Exception as error:
            self.metrics.loads.labels("refused").inc()
            _LOG.error("the model was not loaded: %s: %s", type(error).__name__, error)
            raise
        before, self._model = self._model, model
        # As many as keep the model busy; the others wait as they were sent, in less memory.
        self._ahead = asyncio.Semaphore(2 * model.queue.largest + (os.cpu_count() or 1))
        self.metrics.loads.labels("loaded").inc()
        _LOG.info("answering with %s, ready after %.1f s", model.version, time.monotonic() - start)
        if before is not None:  # Requests that began with it may still submit photos.
            await asyncio.sleep(self.settings.deadline + 1)
            await self._run(self._loader, before.queue.close)

    async def predict(self, uploads: list[Upload]) -> tuple[ServedModel, list[dict]]:
        """Return the model that answered, and a row for each photo; see `rows.row_of`.

        Raises:
            HTTPException: 503 if the service is full or not ready, 504 at the deadline.
        """
        model, count = self.model, len(uploads)
        half_of_the_queue = self._photos.used * self.metrics.seconds_per_photo / 2
        self._photos.take(count, retry_after=max(1, math.ceil(half_of_the_queue)))
        self.metrics.waiting.inc(count)
        try:
            rows = await self._before_deadline(self._rows(model, uploads))
        finally:
            self._photos.release(count)
            self.metrics.waiting.dec(count)
        for row in rows:
            self.metrics.photos.labels("unreadable" if row["reason"] else "predicted").inc()
        return model, rows

    async def explain(self, upload: Upload, category: str) -> bytes:
        """Return a photo with its heat map as JPEG; see `grad_cam.explainer`.

        Args:
            upload: The photo.
            category: The category to explain; empty for the most probable.

        Raises:
            HTTPException: 422 if there is no such category or photo, 501 if the model is an
                `.onnx` file; else as `predict`.
        """
        model = self.model
        if model.explain is None:
            raise HTTPException(501, _NOT_EXPLAINED)
        if category and category not in (labels := model.classifier.labels):
            raise HTTPException(422, f"expected a category of {labels}. Received: {category:.99}")
        self._explanations.take(1)
        try:
            return await self._before_deadline(
                self._run(self._explainer, self._heat_map, model, upload, category)
            )
        except PhotoError as error:
            raise HTTPException(422, str(error)) from None
        finally:
            self._explanations.release(1)

    async def _run(
        self, pool: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    async def _before_deadline(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with asyncio.timeout(self.settings.deadline):
                return await work
        except TimeoutError:
            seconds = f"{self.settings.deadline:g}"
            raise HTTPException(504, f"no answer within {seconds} s; send fewer photos") from None

    async def _rows(self, model: ServedModel, uploads: list[Upload]) -> list[dict]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._row(model, upload)) for upload in uploads]
        return [task.result() for task in tasks]

    async def _row(self, model: ServedModel, upload: Upload) -> dict:
        classifier = model.classifier
        try:
            async with self._ahead:
                pixels = await self._run(
                    self._decoders, lambda: classifier.resize(self._read(upload))
                )
                row = await asyncio.wrap_future(model.queue.submit(pixels))
        except PhotoError as error:
            prediction = unread(upload.name, str(error))
        else:
            prediction = classifier.named(upload.name, row)
        return row_of(prediction, classifier.labels, self.settings.top, self.settings.threshold)

    def _read(self, upload: Upload) -> np.ndarray:
        most_pixels = round(self.settings.photo_megapixels * 1e6)
        return read_photo(upload.content, most_pixels).pixels

    def _heat_map(self, model: ServedModel, upload: Upload, category: str) -> bytes:
        from fashion_keras.grad_cam import overlay  # Imports Keras.

        image = Image.fromarray(self._read(upload))
        image.thumbnail((_EXPLAINED_SIDE, _EXPLAINED_SIDE))
        pixels, classifier = np.asarray(image), model.classifier
        if category:
            number = classifier.labels.index(category)
        else:
            row = model.queue.submit(classifier.resize(pixels)).result()
            number = row[: len(classifier.labels)].argmax()
        (heat,) = cast(Any, model.explain)(pixels, [number])
        jpeg = io.BytesIO()
        Image.fromarray(overlay(pixels, heat)).save(jpeg, "JPEG", quality=85)
        return jpeg.getvalue()
