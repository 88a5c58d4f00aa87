"""What a request may look like, and how each other one is refused, at once and with a reason."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from fashion_keras.serve.limits import Limits, RefusalError, Room
from fashion_keras.serve.uploads import Upload, uploads_of

LIMITS = Limits(photos=3, photo_bytes=100, body_bytes=2000, held_bytes=4000, seconds_to_send=1)
ENCODED = base64.b64encode(b"abc").decode()


def read(
    chunks: Sequence[bytes | float], headers: dict[str, str], held: Room | None = None
) -> list[Upload]:
    """Read a request whose body comes in chunks; a number is a pause in seconds."""
    held = held or Room(LIMITS.held_bytes, "full")
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
        before = held.inside
        try:
            async with uploads_of(request, LIMITS, held) as uploads:
                assert held.inside > before
                return list(uploads)
        finally:
            assert held.inside == before

    return asyncio.run(go())


def form(*parts: tuple[str, bytes], boundary: str = "xyz") -> bytes:
    """Return a form; each part has its Content-Disposition beyond `form-data`."""
    lines = b""
    for told, content in parts:
        lines += f"--{boundary}\r\nContent-Disposition: form-data; {told}\r\n\r\n".encode()
        lines += content + b"\r\n"
    return lines + f"--{boundary}--\r\n".encode()


FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
JSON = {"Content-Type": "application/json"}


def test_the_files_of_a_form_are_taken_in_order_and_fields_are_not() -> None:
    body = form(
        ('name="photos"; filename="a.jpg"', b"one"),
        ('name="note"', b"x" * 300),
        ('name="other"; filename="hüte.png"', b"--xy\r\ntwo"),
    )
    expected = [Upload("a.jpg", b"one"), Upload("hüte.png", b"--xy\r\ntwo")]
    assert read([body], FORM) == expected
    assert read([body[at : at + 1] for at in range(len(body))], FORM) == expected


def test_raw_bytes_are_one_photo() -> None:
    for kind in ("image/jpeg", "IMAGE/PNG; charset=x", "application/octet-stream"):
        assert read([b"ab", b"c"], {"Content-Type": kind}) == [Upload("photo", b"abc")]


def test_json_holds_one_photo_or_several() -> None:
    one = json.dumps({"base64": ENCODED}).encode()
    assert read([one], JSON) == [Upload("photo 1", b"abc")]
    several = {"photos": [{"base64": ENCODED, "file": "a\ud800"}, {"url": "https://x.org/b"}]}
    assert read([json.dumps(several).encode()], JSON) == [
        Upload("a?", b"abc"),
        Upload("https://x.org/b", b"", "https://x.org/b"),
    ]


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("status", "reason", "headers", "chunks"),
    [
        (415, "Content-Type must be multipart/form-data", {"Content-Type": "text/html"}, [b"x"]),
        (415, "Received: none", {}, [b"x"]),
        (422, "holds no photo", FORM, [form()]),
        (422, "holds no photo", FORM, [form(('name="note"', b"x"))]),
        (422, "holds no photo", {"Content-Type": "image/png"}, [b""]),
        (422, "holds no photo", JSON, [json_of({"photos": []})]),
        (400, "not a form", {"Content-Type": "multipart/form-data"}, [form()]),
        (400, "not a form", FORM, [b"something else"]),
        (400, "not a form", FORM, [form(('name="a"; filename="b"', b"x"))[:-9]]),
        (400, "no JSON", JSON, [b"{"]),
        (400, "no JSON", JSON, [b"[" * 30]),
        (400, "no JSON", JSON, [b"\xff\xfe\xfd"]),
        (422, 'expected {"photos"', JSON, [b"[]"]),
        (422, 'expected {"photos"', JSON, [b'{"photos": {}}']),
        (422, "photo 1: expected", JSON, [json_of({})]),
        (422, "photo 1: expected", JSON, [json_of({"base64": 3})]),
        (422, "photo 1: expected", JSON, [json_of({"base64": ENCODED, "url": "http://x"})]),
        (422, "photo 2: expected", JSON, [json_of({"photos": [{"base64": ENCODED}, 3]})]),
        (422, "base64 is none", JSON, [json_of({"base64": "a$b"})]),
        (422, "base64 is none", JSON, [json_of({"base64": "ü"})]),
        (422, "must begin with http", JSON, [json_of({"url": "file:///etc/passwd"})]),
        (413, "at most 3 photos", FORM, [form(*[('name="a"; filename="b"', b"x")] * 4)]),
        (413, "at most 3 photos", JSON, [json_of({"photos": [{"base64": ENCODED}] * 4})]),
        (413, "at most 3 photos", JSON, [b"[[],[],[],[],[],[],[],[],[],[],[],[],[],[]]" * 2]),
        (413, "too many fields", FORM, [form(*[('name="a"', b"")] * 23)]),
        (413, "b: a photo may have", FORM, [form(('name="a"; filename="b"', b"x" * 101))]),
        (413, "a request may have 0.0001 MB", {"Content-Type": "image/png"}, [b"x" * 101]),
        (413, "photo 1: a photo may have", JSON, [json_of({"base64": "YWJj" * 40})]),
        (413, "a request may have", FORM, [b"--xyz\r\n", b"x" * 1000, b"x" * 1000]),
        (413, "a request may have", FORM | {"Content-Length": "2001"}, [b"never read"]),
        (408, "did not come within 1 s", {"Content-Type": "image/png"}, [b"a", 3.0, b"b"]),
    ],
)
def test_refusals(status: int, reason: str, headers: dict, chunks: list) -> None:
    with pytest.raises(RefusalError, match=reason) as raised:
        read(chunks, headers)
    assert raised.value.status == status


def test_a_broken_off_request_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def go() -> None:
        kind = (b"content-type", b"image/png")
        request = Request({"type": "http", "method": "POST", "headers": [kind]}, receive)
        async with uploads_of(request, LIMITS, Room(100, "full")):
            pass

    with pytest.raises(RefusalError, match="before its body was whole"):
        asyncio.run(go())


def test_what_is_held_already_leaves_less_room() -> None:
    held = Room(110, "too much at a time")
    held.enter(60)
    with pytest.raises(RefusalError, match="too much at a time") as raised:
        read([b"x" * 30, b"x" * 30], {"Content-Type": "image/png"}, held)
    assert (raised.value.status, raised.value.retry_after) == (503, 1)
