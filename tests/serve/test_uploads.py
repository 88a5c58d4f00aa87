"""What a request may contain, and the status and reason for each that is refused."""

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from fashion_keras.serve.settings import Settings
from fashion_keras.serve.uploads import Capacity, Upload, uploads_of
from tests.serve.running import form

SETTINGS = Settings(
    Path("any.keras"),
    photos=3,
    photo_megabytes=0.0001,
    body_megabytes=0.002,
    held_megabytes=0.004,
    seconds_to_send=1,
)
ENCODED = base64.b64encode(b"abc").decode()
_, FORM = form()
JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


def read(
    chunks: Sequence[bytes | float], headers: dict[str, str], held: Capacity | None = None
) -> list[Upload]:
    """Read a request whose body comes in chunks; a number is a pause in seconds."""
    held = held or Capacity(4000, "full")
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))  # type: ignore[arg-type]
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def go() -> list[Upload]:
        named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        request = Request({"type": "http", "method": "POST", "headers": named}, receive)
        before = held.used
        try:
            async with uploads_of(request, SETTINGS, held) as uploads:
                assert held.used > before
                return uploads
        finally:
            assert held.used == before

    return asyncio.run(go())


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_the_files_of_a_form_are_read_in_order_and_other_fields_ignored() -> None:
    note = b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\n%s\r\n' % (b"x" * 300)
    body = note + form(("a.jpg", b"one"), ("hüte.png", b"--xy\r\ntwo"))[0]
    expected = [Upload("a.jpg", b"one"), Upload("hüte.png", b"--xy\r\ntwo")]
    assert read([body], FORM) == expected
    assert read([body[at : at + 1] for at in range(len(body))], FORM) == expected


@pytest.mark.parametrize("kind", ["image/jpeg", "IMAGE/PNG; charset=x", "application/octet-stream"])
def test_raw_bytes_are_one_photo(kind: str) -> None:
    assert read([b"ab", b"c"], {"Content-Type": kind}) == [Upload("photo", b"abc")]


def test_json_has_one_photo_or_several() -> None:
    assert read([json_of({"base64": ENCODED})], JSON) == [Upload("photo 1", b"abc")]
    several = {"photos": [{"base64": ENCODED, "file": "ä"}, {"base64": ENCODED}]}
    assert read([json_of(several)], JSON) == [Upload("ä", b"abc"), Upload("photo 2", b"abc")]


@pytest.mark.parametrize(
    ("status", "reason", "headers", "chunks"),
    [
        (415, "Content-Type must be multipart/form-data", {"Content-Type": "text/html"}, [b"x"]),
        (415, "Received: none", {}, [b"x"]),
        (422, "contains no photo", FORM, [form()[0]]),
        (422, "contains no photo", PNG, [b""]),
        (400, "Missing boundary", {"Content-Type": "multipart/form-data"}, [form()[0]]),
        (400, "the body: Invalid JSON", JSON, [b"{"]),
        (422, "the body: Input should be", JSON, [b"[]"]),
        (422, "photos.0.base64: Field required", JSON, [json_of({})]),
        (400, "the form: Invalid", FORM, [b"something else"]),
        (422, "photos.0.url: Extra", JSON, [json_of({"base64": ENCODED, "url": "http://x"})]),
        (422, "photos.0.base64: Base64", JSON, [json_of({"base64": "a$b"})]),
        (413, "Maximum number of files is 3", FORM, [form(*[("b", b"x")] * 4)[0]]),
        (413, "at most 3 photos", JSON, [json_of({"photos": [{"base64": ENCODED}] * 4})]),
        (413, "b: a photo may have at most 0.0001 MB", FORM, [form(("b", b"x" * 101))[0]]),
        (413, "photo 1: a photo may have", JSON, [json_of({"base64": "YWJj" * 40})]),
        (413, "photo: a photo may have", PNG, [b"x" * 101]),
        (413, "a request may have at most 0.002", FORM, [b"--xyz\r\n", b"x" * 1000, b"x" * 1000]),
        (408, "did not arrive within 1 s", PNG, [b"a", 3.0, b"b"]),
        (400, "before its body was complete", PNG, []),
    ],
)
def test_refusals(status: int, reason: str, headers: dict, chunks: list) -> None:
    with pytest.raises(HTTPException) as raised:
        read(chunks, headers)
    assert raised.value.status_code == status
    assert reason in raised.value.detail


def test_bytes_that_are_held_already_count() -> None:
    held = Capacity(110, "too much at a time")
    held.take(60)
    with pytest.raises(HTTPException) as raised:
        read([b"x" * 30, b"x" * 30], PNG, held)
    assert (raised.value.status_code, raised.value.detail) == (503, "too much at a time")
    assert raised.value.headers == {"Retry-After": "1"}
