"""Answers requests for predictions: decodes, queues, waits within the limits, and refuses."""

import asyncio
import contextlib
import dataclasses
import io
import logging
import math
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from PIL import Image

from fashion_keras.classifier import unread
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.grad_cam import overlay
from fashion_keras.predict.rows import row_of
from fashion_keras.predict.web import MOST_BYTES, fetch_photo
from fashion_keras.serve.limits import Limits, RefusalError, Room
from fashion_keras.serve.observation import Figures
from fashion_keras.serve.served import Served
from fashion_keras.serve.uploads import Upload
from fashion_keras.serve.waiting import Threads, together

_LOG = logging.getLogger("fashion_keras.service")
_FETCHERS, _EXPLANATIONS = 8, 4  # At the same time.
_EXPLAINED_SIDE = 512


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a service answers.

    Attributes:
        load: Loads the model file as it is now; raises `InputError`.
        limits: What is taken.
        top: How many of the most probable categories are told.
        threshold: Below this probability the category is `uncertain`.
        addresses: Whether photos are fetched from the web.
    """

    load: Callable[[], Served]
    limits: Limits
    top: int
    threshold: float
    addresses: bool


class Desk:
    """The one place where requests meet the model; lives in one event loop."""

    def __init__(self, manner: Manner, figures: Figures) -> None:
        self.manner = manner
        self.figures = figures
        limits = manner.limits
        self.held = Room(limits.held_bytes, "too much is being sent at the same time; try later")
        self._photos = Room(limits.waiting, "too many photos are waiting; try later")
        self._explanations = Room(_EXPLANATIONS, "too many explanations are waiting; try later")
        self._decoders = Threads(os.cpu_count() or 1, "decode")
        self._fetchers = Threads(_FETCHERS, "fetch")
        self._explainer = Threads(1, "explain")
        self._loader = Threads(1, "load")
        self._served: Served | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        return self._served is not None

    @property
    def served(self) -> Served:
        """The model.

        Raises:
            RefusalError: 503, as long as it is being loaded.
        """
        if self._served is None:
            raise RefusalError(503, "the model is still being loaded", retry_after=5)
        return self._served

    async def load(self) -> None:
        """Load the model file as it is now; until it has answered, the one before answers on.

        Raises:
            Exception: Whatever kept it from being loaded; the one before goes on answering.
        """
        try:
            new = await self._loader.run(self.manner.load)
        except Exception as error:
            self.figures.loads.labels("refused").inc()
            _LOG.error("the model was not loaded: %s: %s", type(error).__name__, error)
            raise
        before, self._served = self._served, new
        self.figures.loads.labels("loaded").inc()
        _LOG.info("answering with %s, ready after %.1f s", new.version, new.seconds_to_load)
        if before is not None:  # Requests that began with it may still hand it photos.
            await asyncio.sleep(self.manner.limits.deadline + 1)
            await self._loader.run(before.queue.close)

    def close(self) -> None:
        """End all threads; what is being answered should be finished before."""
        for pool in (self._decoders, self._fetchers, self._explainer, self._loader):
            pool.close()
        if self._served is not None:
            self._served.queue.close()

    async def predict(self, uploads: list[Upload]) -> tuple[Served, list[dict]]:
        """Return the model that answered, and a row for each photo (see `rows.row_of`).

        Raises:
            RefusalError: 403 for addresses that are not fetched, 503 if the service is full, 504
                at the deadline.
        """
        served = self.served
        self._check_addresses(uploads)
        count = len(uploads)
        self._photos.enter(count, self._seconds_to_wait())
        self.figures.waiting.inc(count)
        try:
            rows = await self._in_time(together(self._row(served, one) for one in uploads))
        finally:
            self._photos.leave(count)
            self.figures.waiting.dec(count)
        for row in rows:
            self.figures.photos.labels("unreadable" if row["reason"] else "predicted").inc()
        return served, rows

    async def explain(self, upload: Upload, category: str) -> bytes:
        """Return the photo with its heat map as JPEG; see `explain.explainer`.

        Args:
            upload: The photo.
            category: The one asked about; empty for the most probable.

        Raises:
            RefusalError: 422 if the photo cannot be read or there is no such category; else as
                `predict`.
        """
        served = self.served
        labels = served.classifier.labels
        if category and category not in labels:
            raise RefusalError(422, f"there is no category of this name; known: {labels}")
        self._check_addresses([upload])
        self._explanations.enter(1)
        try:
            return await self._in_time(self._heat_map(served, upload, category))
        except PhotoError as error:
            raise RefusalError(422, str(error)) from None
        finally:
            self._explanations.leave(1)

    def _check_addresses(self, uploads: list[Upload]) -> None:
        count = sum(bool(upload.address) for upload in uploads)
        if count and not self.manner.addresses:
            raise RefusalError(
                403, "this service fetches no photos from addresses; send their bytes"
            )
        if count > (most := self.manner.limits.fetched):
            raise RefusalError(413, f"at most {most} photos of a request are fetched")

    def _seconds_to_wait(self) -> int:
        """Guess when half of what waits now will be answered."""
        return max(1, math.ceil(self._photos.inside * self.figures.seconds_a_photo / 2))

    async def _in_time(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self.manner.limits.deadline):
                return await work
        except TimeoutError:
            wait = f"{self.manner.limits.deadline:g}"
            raise RefusalError(
                504, f"there was no answer within {wait} s; send fewer photos"
            ) from None

    def _read(self, content: bytes) -> np.ndarray:
        return read_photo(content, self.manner.limits.photo_pixels).pixels

    @contextlib.asynccontextmanager
    async def _content(self, upload: Upload) -> AsyncIterator[bytes]:
        """Yield the bytes of a photo; those that are fetched count as held, too."""
        if not upload.address:
            yield upload.content
            return
        self.held.enter(MOST_BYTES)
        try:
            content = await self._fetchers.run(fetch_photo, upload.address)
            if len(content) > self.manner.limits.photo_bytes:
                raise PhotoError(f"too large: {len(content)} bytes")
            yield content
        finally:
            self.held.leave(MOST_BYTES)

    async def _row(self, served: Served, upload: Upload) -> dict:
        classifier = served.classifier

        def decode(content: bytes) -> np.ndarray:
            return classifier.resize(self._read(content))

        try:
            async with self._content(upload) as content:
                pixels = await self._decoders.run(decode, content)
        except PhotoError as error:
            prediction = unread(upload.name, str(error))
        else:
            row = await asyncio.wrap_future(served.queue.submit(pixels))
            prediction = classifier.named(upload.name, row)
        return row_of(prediction, classifier.labels, self.manner.top, self.manner.threshold)

    async def _heat_map(self, served: Served, upload: Upload, category: str) -> bytes:
        def draw(content: bytes) -> bytes:
            image = Image.fromarray(self._read(content))
            image.thumbnail((_EXPLAINED_SIDE, _EXPLAINED_SIDE))
            pixels, classifier = np.asarray(image), served.classifier
            asked = category
            if not asked:
                row = served.queue.submit(classifier.resize(pixels)).result()
                asked = classifier.named(upload.name, row).category
            (heat,) = served.explain(pixels, [classifier.labels.index(asked)])
            jpeg = io.BytesIO()
            Image.fromarray(overlay(pixels, heat)).save(jpeg, "JPEG", quality=85)
            return jpeg.getvalue()

        async with self._content(upload) as content:
            return await self._explainer.run(draw, content)
