"""Rows, limits, deadlines, and the change of models."""

import asyncio
import dataclasses
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from fashion_keras.data.photo import read_photo
from fashion_keras.predict.rows import row_of
from fashion_keras.serve.model import ServedModel
from fashion_keras.serve.service import Service
from fashion_keras.serve.settings import Settings
from fashion_keras.serve.uploads import Upload
from tests.builders import never_near
from tests.predict.conftest import same_rows
from tests.serve.running import LABELS, SETTINGS, Gate, photo, with_predict

PHOTO = Upload("a.jpg", photo())


def with_service(
    model: ServedModel,
    work: Callable[[Service], Awaitable[Any]],
    settings: Settings = SETTINGS,
    load: Callable[..., ServedModel] | None = None,
) -> Any:
    """Do `work` with a service that has loaded a model."""

    async def go() -> Any:
        service = Service(load or (lambda *_: model), settings)
        await service.load()
        return await work(service)

    return asyncio.run(go())


def test_rows_are_those_of_the_predict_command(model: ServedModel) -> None:
    uploads = [PHOTO, Upload("b", b"no photo"), PHOTO]
    answered, rows = with_service(model, lambda service: service.predict(uploads))
    assert answered is model
    (prediction,) = model.classifier.predict(PHOTO.content)
    expected = row_of(prediction._replace(photo="a.jpg"), LABELS, 3, 0.0)
    assert same_rows([rows[0], rows[2]], [expected, expected])
    assert rows[1].keys() == expected.keys()
    assert rows[1]["reason"].startswith("not a photo")


def test_none_of_these_is_answered_with_the_nearest_on_top(model: ServedModel) -> None:
    strange = never_near(model.classifier)
    served = with_predict(dataclasses.replace(model, classifier=strange), strange.outputs)
    _, (row,) = with_service(served, lambda service: service.predict([PHOTO]))
    (nearest,) = model.classifier.predict(PHOTO.content)
    assert (row["category"], row["top"][0]["category"]) == ("none of these", nearest.category)


def test_a_full_queue_says_when_to_try_again(gated: ServedModel, gate: Gate) -> None:
    async def work(service: Service) -> HTTPException:
        service.metrics.observe_batch(1, 3.0)  # Three seconds a photo.
        first = asyncio.create_task(service.predict([PHOTO] * 3))
        await asyncio.sleep(0)
        with pytest.raises(HTTPException) as raised:
            await service.predict([PHOTO] * 2)
        gate.open.set()
        await first
        return raised.value

    settings = Settings(SETTINGS.model, photos=4, waiting=4)
    error = with_service(gated, work, settings)
    # Half of what waits is answered after 4.5 s.
    assert (error.status_code, error.headers) == (503, {"Retry-After": "5"})
    assert "too many photos" in error.detail


def test_at_the_deadline_waiting_photos_are_dropped(gated: ServedModel, gate: Gate) -> None:
    async def work(service: Service) -> int:
        with pytest.raises(HTTPException) as raised:
            await service.predict([PHOTO] * 5)
        gate.open.set()
        await service.predict([PHOTO])
        return raised.value.status_code

    assert with_service(gated, work, Settings(SETTINGS.model, deadline=0.3)) == 504
    # Only the batch that the model had begun was finished: one or two of the five.
    assert sum(gate.batches) <= 3


def test_no_more_photos_are_decoded_than_keep_the_model_busy(
    gated: ServedModel, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def read(content: Any, most: int) -> Any:
        decoded.append(1)
        return read_photo(content, most)

    async def work(service: Service) -> int:
        asked = asyncio.create_task(service.predict([PHOTO] * 20))
        while len(decoded) < min(busy, 20):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        before = len(decoded)
        gate.open.set()
        await asked
        return before

    busy = 2 * 2 + (os.cpu_count() or 1)
    monkeypatch.setattr("fashion_keras.serve.service.read_photo", read)
    assert with_service(gated, work) == min(busy, 20)
    assert len(decoded) == 20


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top": 1}, {"top": 1, "reason": ""}),
        ({"threshold": 1.0}, {"category": "uncertain", "top": 3}),
        (
            {"photo_megapixels": 0.005},
            {"reason": "too large: 90 x 90 pixels, at most 5000 are read", "top": 0},
        ),
    ],
)
def test_settings_of_rows(model: ServedModel, settings: dict, expected: dict) -> None:
    given = dataclasses.replace(SETTINGS, **settings)
    _, (row,) = with_service(model, lambda service: service.predict([PHOTO]), given)
    assert expected.items() <= (row | {"top": len(row["top"])}).items()


def test_the_model_is_loaded_with_its_settings(model: ServedModel) -> None:
    asked: list[tuple] = []

    async def work(service: Service) -> None:
        assert asked == [(Path("b.keras"), 3, service.metrics.observe_batch)]

    settings = Settings(Path("b.keras"), batch_size=3)
    with_service(model, work, settings, lambda *given: asked.append(given) or model)


def test_without_a_category_the_most_probable_is_explained(model: ServedModel) -> None:
    (best,) = model.classifier.predict(PHOTO.content)

    async def work(service: Service) -> tuple[bytes, bytes]:
        return await service.explain(PHOTO, ""), await service.explain(PHOTO, best.category)

    default, asked = with_service(model, work)
    assert default == asked
    assert Image.open(io.BytesIO(default)).size == (90, 90)


def test_a_new_model_takes_over_only_if_it_loads_and_the_one_before_ends_its_requests(
    model: ServedModel, gated: ServedModel, gate: Gate
) -> None:
    loads: Any = iter([lambda: gated, lambda: 1 / 0, lambda: model])

    async def work(service: Service) -> list[str]:
        asked = asyncio.create_task(service.predict([PHOTO]))
        while not gate.batches:
            await asyncio.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            await service.load()
        assert service.model is gated
        loading = asyncio.create_task(service.load())
        while service.model is gated:
            await asyncio.sleep(0.01)
        gate.open.set()
        before, _ = await asked
        after, _ = await service.predict([PHOTO])
        await loading
        return [before.version, after.version]

    settings = Settings(SETTINGS.model, deadline=1)
    versions = with_service(gated, work, settings, lambda *_: next(loads)())
    assert versions == ["replaced", model.version]
