"""The bodies of requests and answers, as the OpenAPI description shows them."""

from http import HTTPStatus
from typing import Any

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator


class EncodedPhoto(BaseModel):
    """One photo in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    base64: Base64Bytes
    file: str = Field(default="", description="its name in the answer")


class EncodedPhotos(BaseModel):
    """A JSON body with any number of photos, or with the values of a single one."""

    model_config = ConfigDict(extra="forbid")

    photos: list[EncodedPhoto]

    @model_validator(mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        alone = isinstance(value, dict) and "photos" not in value
        return {"photos": [value]} if alone else value


class Guess(BaseModel):
    """One category and its probability."""

    category: str
    probability: float = Field(ge=0, le=1.0001)


class PhotoAnswer(BaseModel):
    """The prediction of one photo; see `rows.row_of`."""

    file: str = Field(description="the photo's name, as it was sent")
    category: str = Field(
        description="`none of these`, `uncertain` below the threshold, empty if not readable"
    )
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
    photos: list[PhotoAnswer] = Field([], description="each with its reason, if none can be read")


class State(BaseModel):
    """State of the service."""

    status: str
    model: str = Field(default="", description="name of the file and the start of its SHA-256")


class Labels(BaseModel):
    """The categories of the model, and what the service accepts."""

    labels: list[str]
    threshold: float = Field(description="below it the category is `uncertain`")
    explains: bool = Field(description="whether /explain answers; not with an .onnx file")
    model: str
    max_photos: int = Field(description="in one request")
    max_photo_bytes: int


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a path for these statuses."""
    return {code: {"model": Refusal, "description": HTTPStatus(code).phrase} for code in statuses}


_BINARY = {"type": "string", "format": "binary"}
_PHOTO = EncodedPhoto.model_json_schema()


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    photos = {"type": "array", "items": item, "minItems": 1}
    return {"type": "object", "properties": {"photos": photos}, "required": ["photos"]}


# FastAPI derives no body from a route that reads it itself.
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _list_of(_BINARY)},
            "application/json": {
                "schema": {"anyOf": [_PHOTO, _list_of(_PHOTO) | {"additionalProperties": False}]}
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
