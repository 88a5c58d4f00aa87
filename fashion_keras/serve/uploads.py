"""Reads the photos of one request within the limits: a form, raw bytes, or JSON."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fashion_keras.serve.schemas import EncodedPhotos
from fashion_keras.serve.settings import Settings

_FORM, _JSON = "multipart/form-data", "application/json"
_ACCEPTED = f"{_FORM}, {_JSON} or the bytes of a photo as image/* or application/octet-stream"
_JSON_FORM = 'expected {"photos": [{"base64": "…", "file": "…"}]}'


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

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        async for chunk in request.stream():
            if taken + len(chunk) > settings.body_megabytes * 1e6:
                raise _too_large("a request", settings.body_megabytes)
            held.take(len(chunk))
            taken += len(chunk)
            yield chunk

    try:
        async with asyncio.timeout(settings.seconds_to_send):
            uploads = await _read(request, chunks(), settings.photos)
        if not uploads:
            raise HTTPException(422, "the request contains no photo")
        for upload in uploads:
            if len(upload.content) > settings.photo_megabytes * 1e6:
                raise _too_large(f"{upload.name}: a photo", settings.photo_megabytes)
        yield uploads
    except TimeoutError:
        seconds = f"{settings.seconds_to_send:g}"
        raise HTTPException(408, f"the request did not arrive within {seconds} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before its body was complete") from None
    finally:
        held.release(taken)


def _too_large(what: str, most: float) -> HTTPException:
    return HTTPException(413, f"{what} may have at most {most:g} MB")


async def _read(request: Request, chunks: AsyncGenerator[bytes, None], most: int) -> list[Upload]:
    header = request.headers.get("content-type", "")
    kind = parse_options_header(header)[0].decode("latin-1").lower()
    if kind == _FORM:
        return await _form(MultiPartParser(request.headers, chunks, max_files=most))
    if kind == _JSON:
        body = b"".join([chunk async for chunk in chunks])
        return await asyncio.to_thread(_decode_json, body, most)
    if kind.startswith("image/") or kind == "application/octet-stream":
        body = b"".join([chunk async for chunk in chunks])
        return [Upload("photo", body)] if body else []
    raise HTTPException(415, f"Content-Type must be {_ACCEPTED}. Received: {kind[:100] or 'none'}")


async def _form(parser: MultiPartParser) -> list[Upload]:
    parser.spool_max_size = sys.maxsize  # All in memory, nothing on disk.
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 413 if error.message.startswith("Too many") else 400
        raise HTTPException(status, f"the form: {error.message}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(file.filename or "photo", await file.read()) for file in files]
    await form.close()
    return uploads


def _decode_json(body: bytes, most: int) -> list[Upload]:
    try:
        photos = EncodedPhotos.model_validate_json(body).photos
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        status = 400 if first["type"] == "json_invalid" else 422
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(status, f"{_JSON_FORM}. Received: {place}: {first['msg']}") from None
    if len(photos) > most:
        raise HTTPException(413, f"at most {most} photos are accepted in one request")
    return [
        Upload(photo.file or f"photo {number}", photo.base64)
        for number, photo in enumerate(photos, 1)
    ]
