"""What the service answers, as its description (OpenAPI) tells it."""

from typing import Any

from pydantic import BaseModel, Field


class Guess(BaseModel):
    """One category and how probable it is."""

    category: str
    probability: float = Field(ge=0, le=1.0001)


class PhotoAnswer(BaseModel):
    """What is told of one photo; see `rows.row_of`."""

    file: str = Field(description="the photo's name, as it was sent")
    category: str = Field(description="`uncertain` below the threshold; empty if not readable")
    probability: float | None = Field(description="of the best category, calibrated")
    top: list[Guess] = Field(description="the most probable categories, best first")
    reason: str = Field(description="why the photo cannot be read; empty if it can")


class Answer(BaseModel):
    """One row for each photo, in the order they were sent."""

    photos: list[PhotoAnswer]
    model: str = Field(description="name of the file and the start of its SHA-256")
    seconds: float = Field(description="from the end of the request to the answer")


class Refusal(BaseModel):
    """Why there is no answer."""

    reason: str


class Unreadable(Refusal):
    """There is no photo, or none of those sent can be read: then each has its reason."""

    photos: list[PhotoAnswer] = []
    model: str = ""
    seconds: float = 0.0


class State(BaseModel):
    """How the service is."""

    status: str
    model: str = Field(default="", description="name of the file and the start of its SHA-256")


class Labels(BaseModel):
    """What the model tells apart, and what the service takes."""

    labels: list[str]
    threshold: float = Field(description="below it the category is `uncertain`")
    model: str
    most_photos: int = Field(description="in one request")
    most_photo_bytes: int


REASONS = {
    400: "the request is broken",
    403: "photos are not fetched from addresses",
    404: "there is nothing of this name",
    405: "this method is not known here",
    408: "the request came too slowly",
    413: "the request, or a photo, is too large",
    415: "this kind of body is not taken",
    422: "there is no photo, or none that can be read",
    503: "the service is full, or not ready yet; see Retry-After",
    504: "there was no time left",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how the description tells of the ways in which a request may be refused."""
    return {status: {"model": Refusal, "description": REASONS[status]} for status in statuses}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PHOTO = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "description": "a name, which comes back"},
        "base64": {"type": "string", "format": "byte"},
        "url": {"type": "string", "format": "uri"},
    },
    "oneOf": [{"required": ["base64"]}, {"required": ["url"]}],
    "additionalProperties": False,
}
_SEVERAL = {
    "type": "object",
    "properties": {"photos": {"type": "array", "items": _PHOTO, "minItems": 1}},
    "required": ["photos"],
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
# FastAPI derives no body from a route that reads it itself.
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"photos": _FILES},
                    "required": ["photos"],
                }
            },
            "application/json": {"schema": {"anyOf": [_PHOTO, _SEVERAL]}},
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}
