"""Reads the photos of one request within the limits: a form, raw bytes, or JSON."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

import pydantic_core
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fashion_keras.serve.schemas import EncodedPhotos
from fashion_keras.serve.settings import MILLION, Settings

_Hold = Callable[[int], None]  # Counts bytes before they are kept; raises 503 if too many.
_FORM, _JSON = "multipart/form-data", "application/json"
_ACCEPTED = f"{_FORM}, {_JSON} or the bytes of a photo as image/* or application/octet-stream"
_JSON_FORM = 'expected {"photos": [{"base64": "…", "file": "…"}]}'
_FIELDS = 16  # Of a form, besides the photos.
_SIGNS = 10  # Of JSON, for each photo: what separates its values; base64 has none of them.


class Upload(NamedTuple):
    """One photo of a request."""

    name: str
    content: bytes


class Capacity:
    """A number of places, and the reason given when they do not suffice; not for threads."""

    def __init__(self, most: int, full: str) -> None:
        self._most, self._full, self.used = most, full, 0

    def take(self, count: int, retry_after: int = 1) -> None:
        """Take places; raises 503 with Retry-After if so many are not free."""
        if self.used + count > self._most:
            raise HTTPException(503, self._full, {"Retry-After": str(retry_after)})
        self.used += count

    def release(self, count: int) -> None:
        """Give places back."""
        self.used -= count


@contextlib.asynccontextmanager
async def uploads_of(
    request: Request, settings: Settings, held: Capacity
) -> AsyncIterator[list[Upload]]:
    """Read the photos of a request; their bytes are taken from `held` until the block ends.

    Raises:
        HTTPException: 400 if the request is malformed, 408 if it is sent too slowly, 413 if it is
            too large, 415 if it is of an unknown type, 422 if it has no photo, 503 if too much is
            held already.
    """
    taken = 0

    def hold(count: int) -> None:
        nonlocal taken
        held.take(count)
        taken += count

    try:
        try:
            async with asyncio.timeout(settings.seconds_to_send):
                uploads = await _read(request, settings, hold)
        except TimeoutError:
            seconds = f"{settings.seconds_to_send:g}"
            raise HTTPException(408, f"the request did not arrive within {seconds} s") from None
        if not uploads:
            raise HTTPException(422, "the request has no photo")
        yield uploads
    finally:
        held.release(taken)


async def _read(request: Request, settings: Settings, hold: _Hold) -> list[Upload]:
    header = request.headers.get("content-type", "")
    kind = parse_options_header(header)[0].decode("latin-1").lower()
    if kind == _FORM:
        return await _form(request, _chunks(request, settings.body_megabytes, hold), settings)
    if kind == _JSON:
        body = await _body(request, settings.body_megabytes, hold)
        return await asyncio.to_thread(_decode_json, body, settings)
    if kind.startswith("image/") or kind == "application/octet-stream":
        body = await _body(request, settings.photo_megabytes, hold)
        return [Upload("photo", body)] if body else []
    raise HTTPException(415, f"Content-Type must be {_ACCEPTED}. Received: {kind[:100] or 'none'}")


async def _body(request: Request, most: float, hold: _Hold) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most * MILLION:
        raise _too_large(most)
    return b"".join([chunk async for chunk in _chunks(request, most, hold)])


async def _chunks(request: Request, most: float, hold: _Hold) -> AsyncGenerator[bytes, None]:
    """Yield the body piece by piece, each counted before it is kept."""
    count = 0
    try:
        async for chunk in request.stream():
            count += len(chunk)
            if count > most * MILLION:
                raise _too_large(most)
            hold(len(chunk))
            yield chunk
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before its body was complete") from None


def _too_large(most: float) -> HTTPException:
    return HTTPException(413, f"a request may have {most:g} MB at most")


class _Form(MultiPartParser):
    """Starlette's parser of forms, which notices a missing end and a file that is too large."""

    complete = False
    most_megabytes = 0.0  # Of one file.
    _size = 0

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        self._size = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._current_part.file is not None:
            _check_size(self._size, str(self._current_part.file.filename), self.most_megabytes)
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.complete = True


async def _form(
    request: Request, chunks: AsyncGenerator[bytes, None], settings: Settings
) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.complete:
            raise MultiPartException("It has no end.")

    parser = _Form(request.headers, stream(), max_files=settings.photos, max_fields=_FIELDS)
    parser.most_megabytes = settings.photo_megabytes
    parser.spool_max_size = sys.maxsize  # All in memory, nothing on disk.
    try:
        form = await parser.parse()
    except MultiPartException as error:
        too_much = error.message.startswith(("Too many", "Part exceeded"))
        raise HTTPException(413 if too_much else 400, f"the form: {error.message}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(file.filename or "photo", await file.read()) for file in files]
    await form.close()
    return uploads


def _decode_json(body: bytes, settings: Settings) -> list[Upload]:
    # So many parts would take long, and much memory.
    if sum(body.count(sign) for sign in b"[{,:") > _SIGNS * (settings.photos + 1):
        raise _too_many(settings.photos)
    try:
        value = pydantic_core.from_json(body)
        if isinstance(value, dict) and "photos" not in value:
            value = {"photos": [value]}
        photos = EncodedPhotos.model_validate(value).photos
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise HTTPException(422, f"{_JSON_FORM}. Received: {place}: {first['msg']}") from None
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None
    if len(photos) > settings.photos:
        raise _too_many(settings.photos)
    uploads = [
        Upload(photo.file or f"photo {number}", photo.base64)
        for number, photo in enumerate(photos, 1)
    ]
    for upload in uploads:
        _check_size(len(upload.content), upload.name, settings.photo_megabytes)
    return uploads


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"at most {most} photos are accepted in one request")


def _check_size(size: int, name: str, most: float) -> None:
    if size > most * MILLION:
        raise HTTPException(413, f"{name}: a photo may have {most:g} MB at most; make it smaller")
