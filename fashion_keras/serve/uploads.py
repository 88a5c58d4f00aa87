"""One request becomes photos, read within the limits: form, raw bytes, or JSON."""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fashion_keras.predict.inputs import is_address
from fashion_keras.serve.limits import MEGABYTE, Limits, RefusalError, Room

_LONGEST_NAME = 255
_OTHER_FIELDS = 16  # Of a form, beside the photos.
_VALUES = 10  # Of JSON, for each photo; base64 holds none of the signs that part them.
_KEYS = {"file", "base64", "url"}  # Of a photo in JSON.
_FORM, _JSON = "multipart/form-data", "application/json"
_TAKEN = f"{_FORM}, {_JSON} or the bytes of a photo as image/* or application/octet-stream"


_Hold = Callable[[int], None]  # Counts bytes before they are kept.


class Upload(NamedTuple):
    """One photo of a request: its name, and its bytes or its address."""

    name: str
    content: bytes
    address: str = ""


class _Parts:
    """Gathers the files of a form as their bytes come; they are kept in memory, never on disk."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self._count = 0
        self._limits = limits
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name: str | None = None
        self._content = bytearray()

    def callbacks(self) -> Any:
        return {
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin,
            "on_part_data": self._add,
            "on_part_end": self._end,
        }

    def _end_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _begin(self) -> None:
        _, told = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._headers = {}
        self._name, self._content = None, bytearray()
        if b"filename" in told:  # Fields without a file are of no use here.
            self._name = _shown(told[b"filename"].decode("utf-8", "replace"))
            _check_count(len(self.uploads) + 1, self._limits)
        self._count += 1
        if self._count > 2 * self._limits.photos + _OTHER_FIELDS:
            raise RefusalError(413, "the form has too many fields")

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._content += data[start:end]
            _check_size(len(self._content), self._name, self._limits)

    def _end(self) -> None:
        if self._name is not None:
            self.uploads.append(Upload(self._name, bytes(self._content)))


def _shown(name: str) -> str:
    """Cut a name; JSON may hold halves of characters, which cannot be sent back."""
    return name[:_LONGEST_NAME].encode("utf-8", "replace").decode()


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.photos:
        raise RefusalError(413, f"at most {limits.photos} photos are taken in one request")


def _check_size(size: int, name: str, limits: Limits) -> None:
    if size > limits.photo_bytes:
        most = f"{limits.photo_bytes / MEGABYTE:g}"
        raise RefusalError(413, f"{name}: a photo may have {most} MB at most; make it smaller")


@contextlib.asynccontextmanager
async def uploads_of(request: Request, limits: Limits, held: Room) -> AsyncIterator[list[Upload]]:
    """Read the photos of a request; their bytes count as held until the end of the block.

    Raises:
        RefusalError: 400 if the request is not what it says, 408 if it comes too slowly, 413 if it
            is too large, 415 if it is of an unknown kind, 422 if it holds no photo, 503 if too
            much is held already.
    """
    entered = 0
    uploads: list[Upload] = []

    def hold(count: int) -> None:
        nonlocal entered
        held.enter(count)
        entered += count

    try:
        try:
            async with asyncio.timeout(limits.seconds_to_send):
                uploads = await _read(request, limits, hold)
        except TimeoutError:
            wait = f"{limits.seconds_to_send:g}"
            raise RefusalError(408, f"the request did not come within {wait} s") from None
        if not uploads:
            raise RefusalError(422, "the request holds no photo")
        yield uploads
    finally:
        held.leave(entered)
        uploads.clear()


async def _read(request: Request, limits: Limits, hold: _Hold) -> list[Upload]:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    kind = kind.decode("latin-1").lower()
    if kind == _FORM:
        return await _from_form(request, options.get(b"boundary", b""), limits, hold)
    if kind == _JSON:
        body = await _body(request, limits.body_bytes, hold)
        _check_values(body, limits)
        return await asyncio.to_thread(_from_json, body, limits)
    if kind.startswith("image/") or kind == "application/octet-stream":
        body = await _body(request, min(limits.photo_bytes, limits.body_bytes), hold)
        return [Upload("photo", body)] if body else []
    raise RefusalError(415, f"Content-Type must be {_TAKEN}. Received: {kind[:100] or 'none'}")


async def _body(request: Request, most: int, hold: _Hold) -> bytes:
    body = bytearray()
    async for chunk in _chunks(request, most, hold):
        body += chunk
    return bytes(body)


async def _chunks(request: Request, most: int, hold: _Hold) -> AsyncIterator[bytes]:
    """Yield the body piece by piece, each counted before it is kept."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise RefusalError(413, _too_much(most))
    count = 0
    try:
        async for chunk in request.stream():
            count += len(chunk)
            if count > most:
                raise RefusalError(413, _too_much(most))
            hold(len(chunk))
            yield chunk
    except ClientDisconnect:
        raise RefusalError(400, "the request ended before its body was whole") from None


def _too_much(most: int) -> str:
    return f"a request may have {most / MEGABYTE:g} MB at most"


async def _from_form(
    request: Request, boundary: bytes, limits: Limits, hold: _Hold
) -> list[Upload]:
    parts = _Parts(limits)
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, parts.callbacks() | {"on_end": end})
        async for chunk in _chunks(request, limits.body_bytes, hold):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusalError(400, f"not a form: {error}") from None
    if not ended:
        raise RefusalError(400, "not a form: it breaks off, or has no boundary")
    return parts.uploads


def _check_values(body: bytes, limits: Limits) -> None:
    """Refuse JSON of so many parts that reading it would hold everybody up."""
    if sum(body.count(sign) for sign in b"[{,:") > _VALUES * (limits.photos + 1):
        raise RefusalError(413, f"at most {limits.photos} photos are taken in one request")


def _from_json(body: bytes, limits: Limits) -> list[Upload]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusalError(400, "the body is no JSON") from None
    photos = told.get("photos", [told]) if isinstance(told, dict) else None
    if not isinstance(photos, list):
        raise RefusalError(422, 'expected {"photos": [{"base64": "..."}, {"url": "..."}]}')
    _check_count(len(photos), limits)
    return [_told_photo(one, number, limits) for number, one in enumerate(photos, 1)]


def _told_photo(told: Any, number: int, limits: Limits) -> Upload:
    texts = isinstance(told, dict) and all(isinstance(value, str) for value in told.values())
    if not texts or len(told.keys() & {"base64", "url"}) != 1 or told.keys() - _KEYS:
        raise RefusalError(
            422, f'photo {number}: expected "base64" or "url", and maybe "file", as texts'
        )
    if "url" in told:
        if not is_address(told["url"]):
            raise RefusalError(422, f"photo {number}: the url must begin with http:// or https://")
        return Upload(_shown(told.get("file", told["url"])), b"", told["url"])
    try:
        content = base64.b64decode(told["base64"], validate=True)
    except (binascii.Error, ValueError):
        raise RefusalError(422, f"photo {number}: its base64 is none") from None
    name = _shown(told.get("file", f"photo {number}"))
    _check_size(len(content), name, limits)
    return Upload(name, content)
