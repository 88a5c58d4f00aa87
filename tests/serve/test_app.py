"""The service as its clients see it, on a real port."""

import dataclasses
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fashion_keras.serve.model import ServedModel
from tests.serve.running import LABELS, RAW, SETTINGS, Gate, Running, form, photo, running, until

SECRET = "s3cret"  # noqa: S105 (none)
PHOTO = photo()


@pytest.fixture
def service(model: ServedModel) -> Iterator[Running]:
    limits = {"photos": 4, "photo_megabytes": 0.05, "body_megabytes": 0.2, "threshold": 0.1}
    with running(model, dataclasses.replace(SETTINGS, **limits)) as one:
        yield one


def test_each_photo_has_its_answer_or_reason(service: Running) -> None:
    files = form(("a", PHOTO), ("b", b"no"), ("c", photo(90, "PNG")))
    reply = service.ask("POST", "/predict", *files)
    rows = reply.json["photos"]
    assert [(row["file"], bool(row["reason"])) for row in rows] == [("a", 0), ("b", 1), ("c", 0)]
    assert rows[0]["category"] in LABELS
    assert sum(one["probability"] for one in rows[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert reply.json["model"].startswith("small.keras@")
    assert 0 < reply.json["seconds"] < 20
    (alone,) = service.predict().json["photos"]  # As raw bytes.
    assert alone["category"] == rows[0]["category"]
    reply = service.ask("POST", "/predict", *form(("a", b"no"), ("b", b"neither")))
    assert (reply.status, reply.json["reason"]) == (422, "none of the photos can be read")
    assert all(row["reason"].startswith("not a photo") for row in reply.json["photos"])


@pytest.mark.parametrize(
    ("status", "reason", "request_"),
    [
        (404, "Not Found", ("GET", "/nothing")),
        (405, "Method Not Allowed", ("GET", "/predict")),
        (413, "a request may have at most 0.2 MB", ("POST", "/predict", b"x" * 300_000, RAW)),
        (422, "damaged", ("POST", "/predict", PHOTO[:300], RAW)),
        (422, "expected a category of", ("POST", "/explain?category=car", PHOTO, RAW)),
        (422, "not a photo in", ("POST", "/explain", b"no", RAW)),
        (422, "one photo at a time", ("POST", "/explain", *form(("a", PHOTO), ("b", PHOTO)))),
    ],
)
def test_refusals_are_json_with_a_reason(
    service: Running, status: int, reason: str, request_: Any
) -> None:
    reply = service.ask(*request_)
    assert (reply.status, "allow" in reply.headers) == (status, status == 405)
    assert reply.json["reason"].startswith(reason)


def test_the_state_of_a_ready_service(service: Running) -> None:
    assert service.ask("GET", "/health").json["status"] == "alive"
    ready = service.ask("GET", "/ready").json
    assert ready["status"] == "ready"
    labels = service.ask("GET", "/labels").json
    assert (labels["labels"], labels["model"]) == (LABELS, ready["model"])
    limits = (labels["max_photos"], labels["max_photo_bytes"], labels["threshold"])
    assert labels["explains"] is True
    assert limits == (4, 50_000, 0.1)


def test_it_is_alive_but_not_ready_before_the_model_is_loaded() -> None:
    with running(None) as service:
        assert service.ask("GET", "/health").status == 200
        for reply in (service.ask("GET", "/ready"), service.predict()):
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")


def test_metrics_count_what_happened(service: Running) -> None:
    service.ask("POST", "/predict", *form(("a", PHOTO), ("b", b"no")))
    service.ask("GET", f"/{SECRET}")
    expected = {
        'fashion_keras_requests_total{path="/predict",status="200"} 1.0',
        'fashion_keras_requests_total{path="other",status="404"} 1.0',
        'fashion_keras_request_seconds_count{path="/predict"} 1.0',
        'fashion_keras_photos_total{was="predicted"} 1.0',
        'fashion_keras_photos_total{was="unreadable"} 1.0',
        'fashion_keras_model_loads_total{was="loaded"} 1.0',
        "fashion_keras_waiting_photos 0.0",
    }
    assert expected <= set(service.ask("GET", "/metrics").body.decode().splitlines())


def test_access_lines_have_no_secrets(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    body, kind = form((f"{SECRET}.jpg", PHOTO))
    service.ask("POST", f"/predict?key={SECRET}", body, kind | {"Authorization": SECRET})
    service.ask("GET", f"/{SECRET}")
    until(lambda: sum(record.name == "fashion_keras.access" for record in caplog.records) >= 2)
    messages = [one.message for one in caplog.records if one.name == "fashion_keras.access"]
    assert SECRET not in "".join(messages)
    line = next(line for line in map(json.loads, messages) if line["path"] == "/predict")
    assert (line["status"], line["photos"], line["method"]) == (200, 1, "POST")
    assert line.keys() - {"status", "photos", "method", "path"} == {
        *("time", "client", "milliseconds", "sent")
    }


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/static/page.js", "/swagger/swagger-ui.css", "/nothing"]
)
def test_browsers_load_nothing_from_elsewhere(service: Running, path: str) -> None:
    headers = service.ask("HEAD", path).headers
    assert int(headers["content-length"]) > 0
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


def test_openapi_describes_all_answers(service: Running) -> None:
    paths = service.ask("GET", "/openapi.json").json["paths"]
    assert set(paths) == {"/health", "/ready", "/labels", "/metrics", "/predict", "/explain"}
    predict = paths["/predict"]["post"]
    assert set(predict["responses"]) == {*("200", "400", "408", "413", "415", "422", "503", "504")}
    assert {"image/*", "multipart/form-data"} < set(predict["requestBody"]["content"])


def test_a_full_service_refuses_photos_but_is_alive(gated: ServedModel, gate: Gate) -> None:
    with running(gated, dataclasses.replace(SETTINGS, photos=1, waiting=1)) as service:
        first = threading.Thread(target=service.predict)
        first.start()
        until(lambda: gate.batches)
        reply = service.predict()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert service.ask("GET", "/health").status == 200
        gate.open.set()
        first.join()
