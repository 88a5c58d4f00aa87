"""The desk: rows, refusals, deadlines, clients that leave, and the change of models."""

import asyncio
import dataclasses
import io
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_keras.config import InputError
from fashion_keras.serve.batching import ModelQueue
from fashion_keras.serve.desk import Desk, Manner
from fashion_keras.serve.limits import Limits, RefusalError
from fashion_keras.serve.observation import Figures
from fashion_keras.serve.served import Served
from fashion_keras.serve.uploads import Upload
from fashion_keras.serve.waiting import unless_left
from tests.serve.running import LABELS, photo

PHOTO = Upload("a.jpg", photo())


def with_desk(served: Served, work: Any, limits: Limits | None = None, **more: Any) -> Any:
    """Open a desk, do `work` with it, and close it."""

    async def go() -> Any:
        manner = Manner(lambda: served, limits or Limits(), 2, 0.0, addresses=False)
        desk = Desk(dataclasses.replace(manner, **more), Figures())
        await desk.load()
        try:
            return await work(desk)
        finally:
            desk.close()

    return asyncio.run(go())


class Gate:
    """A model that answers when it is let: each photo is of the last class for certain."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Wait, then answer."""
        self.batches.append(len(pixels))
        assert self.open.wait(20)
        return np.tile(np.array([0, 0, 1], "float32"), (len(pixels), 1))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def gated(served: Served, gate: Gate) -> Served:
    return dataclasses.replace(served, queue=ModelQueue(gate, [1, 2]), version="gated")


def test_rows_are_those_of_the_predict_command(served: Served) -> None:
    answered, rows = with_desk(
        served, lambda desk: desk.predict([PHOTO, Upload("b", b"no photo"), PHOTO])
    )
    assert answered is served
    (expected,) = served.classifier.predict(PHOTO.content)
    assert [row["file"] for row in rows] == ["a.jpg", "b", "a.jpg"]
    assert rows[0] == rows[2]
    assert rows[0]["category"] == expected.category
    assert rows[0]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert len(rows[0]["top"]) == 2
    assert rows[1]["reason"].startswith("not a photo")
    assert rows[1]["probability"] is None


def test_below_the_threshold_photos_are_uncertain(served: Served) -> None:
    _, (row,) = with_desk(served, lambda desk: desk.predict([PHOTO]), threshold=1.0)
    assert row["category"] == "uncertain"
    assert row["top"][0]["category"] in LABELS


def refused(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, RefusalError]:
    async def go() -> RefusalError:
        with pytest.raises(RefusalError) as raised:
            await work
        return raised.value

    return go()


def test_without_a_model_it_asks_for_patience(served: Served) -> None:
    async def go() -> RefusalError:
        manner = Manner(lambda: served, Limits(), 2, 0.0, addresses=False)
        return await refused(Desk(manner, Figures()).predict([PHOTO]))

    error = asyncio.run(go())
    assert (error.status, error.retry_after) == (503, 5)


def test_a_full_queue_refuses_at_once_and_has_room_again_later(served: Served, gate: Gate) -> None:
    async def work(desk: Desk) -> RefusalError:
        desk.figures.batch(1, 3.0)  # Three seconds a photo, so ten for half of what waits.
        first = asyncio.create_task(desk.predict([PHOTO] * 3))
        await asyncio.sleep(0)
        error = await refused(desk.predict([PHOTO] * 2))
        gate.open.set()
        await first
        await desk.predict([PHOTO] * 4)
        return error

    error = with_desk(gated(served, gate), work, Limits(waiting=4))
    assert (error.status, error.retry_after) == (503, 5)
    assert "too many photos" in error.reason


def test_at_the_deadline_it_gives_up_and_what_waits_is_dropped(served: Served, gate: Gate) -> None:
    async def work(desk: Desk) -> RefusalError:
        error = await refused(desk.predict([PHOTO] * 3))
        gate.open.set()
        await desk.predict([PHOTO])
        return error

    error = with_desk(gated(served, gate), work, Limits(deadline=0.3))
    assert (error.status, error.reason[:25]) == (504, "there was no answer withi")
    # Only what the model had begun with was finished: one of the three, or two together.
    assert sum(gate.batches) <= 3


class Client:
    """Stands in for a request: tells when its client leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        """Wait for the client to leave."""
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_a_client_that_leaves_cancels_its_photos(served: Served, gate: Gate) -> None:
    async def work(desk: Desk) -> RefusalError:
        client: Any = Client()
        busy = asyncio.create_task(desk.predict([PHOTO]))
        while not gate.batches:
            await asyncio.sleep(0.01)
        asking = asyncio.create_task(refused(unless_left(client, desk.predict([PHOTO] * 2))))
        await asyncio.sleep(0.2)
        client.left.set()
        error = await asking
        gate.open.set()
        await busy
        return error

    assert with_desk(gated(served, gate), work).status == 499
    assert gate.batches == [1]


def test_addresses_are_fetched_only_if_allowed_and_never_from_here(served: Served) -> None:
    upload = Upload("x", b"", "http://127.0.0.1:1/hat.jpg")
    error = with_desk(served, lambda desk: refused(desk.predict([upload])))
    assert error.status == 403


def test_an_address_of_the_local_network_is_an_unreadable_photo(served: Served) -> None:
    upload = Upload("x", b"", "http://127.0.0.1:1/hat.jpg")
    _, (row,) = with_desk(served, lambda desk: desk.predict([upload]), addresses=True)
    assert row["reason"] == "points to an address of the local network"


def test_a_fetched_photo_is_answered_unless_it_is_too_large(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.serve.desk.fetch_photo", lambda address: PHOTO.content)
    upload = Upload("x", b"", "http://example.org/hat.jpg")
    _, (row,) = with_desk(served, lambda desk: desk.predict([upload]), addresses=True)
    assert row["category"] in LABELS


def test_a_fetched_photo_over_the_limit_is_unreadable(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.serve.desk.fetch_photo", lambda address: PHOTO.content)
    upload = Upload("x", b"", "http://example.org/hat.jpg")
    limits = Limits(photo_bytes=100)
    _, (row,) = with_desk(served, lambda desk: desk.predict([upload]), limits, addresses=True)
    assert row["reason"].startswith("too large")


def test_more_addresses_than_may_be_fetched_are_refused(served: Served) -> None:
    uploads = [Upload("x", b"", "http://example.org/hat.jpg")] * 5
    error = with_desk(served, lambda desk: refused(desk.predict(uploads)), addresses=True)
    assert (error.status, error.reason[:9]) == (413, "at most 4")


def test_what_is_fetched_is_held_until_it_is_decoded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_keras.serve.desk.fetch_photo", lambda address: PHOTO.content)
    uploads = [Upload("x", b"", "http://example.org/hat.jpg")] * 3

    async def work(desk: Desk) -> tuple[RefusalError, int]:
        return await refused(desk.predict(uploads)), desk.held.inside

    limits = Limits(held_bytes=100_000_000)  # Two of them.
    error, held = with_desk(served, work, limits, addresses=True)
    assert (error.status, held) == (503, 0)


def test_photos_of_more_pixels_than_allowed_are_unreadable(served: Served) -> None:
    limits = Limits(photo_pixels=90 * 90 - 1)
    _, (row,) = with_desk(served, lambda desk: desk.predict([PHOTO]), limits)
    assert row["reason"] == "too large: 90 x 90 pixels, at most 8099 are read"


def test_an_explanation_is_the_photo_with_colours(served: Served) -> None:
    jpeg = with_desk(served, lambda desk: desk.explain(PHOTO, LABELS[1]))
    assert Image.open(io.BytesIO(jpeg)).size == (90, 90)


def test_without_a_category_the_most_probable_is_explained(served: Served) -> None:
    (best,) = served.classifier.predict(PHOTO.content)

    async def work(desk: Desk) -> tuple[bytes, bytes]:
        return await desk.explain(PHOTO, ""), await desk.explain(PHOTO, best.category)

    told, asked = with_desk(served, work)
    assert told == asked


def test_explanations_of_nonsense_are_refused(served: Served) -> None:
    error = with_desk(served, lambda desk: refused(desk.explain(PHOTO, "car")))
    assert (error.status, "no category" in error.reason) == (422, True)


def test_what_is_no_photo_is_not_explained(served: Served) -> None:
    error = with_desk(served, lambda desk: refused(desk.explain(Upload("x", b"no"), "")))
    assert (error.status, error.reason[:11]) == (422, "not a photo")


def test_a_new_model_takes_over_only_if_it_loads(served: Served, gate: Gate) -> None:
    new = gated(served, gate)
    gate.open.set()
    models = iter([served, InputError("damaged"), MemoryError(), new])

    def load() -> Served:
        found = next(models)
        if isinstance(found, Exception):
            raise found
        return found

    async def work(desk: Desk) -> list[str]:
        versions = [(await desk.predict([PHOTO]))[0].version]
        for error in (InputError, MemoryError):
            with pytest.raises(error):
                await desk.load()
        versions.append((await desk.predict([PHOTO]))[0].version)
        await desk.load()
        versions.append((await desk.predict([PHOTO]))[0].version)
        return versions

    limits = Limits(deadline=0.1)
    assert with_desk(served, work, limits, load=load) == [served.version, served.version, "gated"]


def test_the_model_before_is_let_go_when_its_requests_must_be_over(
    served: Served, gate: Gate
) -> None:
    gate.open.set()
    models = iter([gated(served, gate), served])

    async def work(desk: Desk) -> None:
        before = desk.served
        loading = asyncio.create_task(desk.load())
        while desk.served is before:
            await asyncio.sleep(0.01)
        assert before.queue._thread.is_alive()
        await loading
        assert not before.queue._thread.is_alive()

    with_desk(served, work, Limits(deadline=0.1), load=lambda: next(models))
