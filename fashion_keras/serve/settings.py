"""Settings of the service: how it answers, and its limits, such as that of uploads."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fashion_keras import cli
from fashion_keras.config import InputError


def _option(default: Any, what: str, kind: Callable[[str], Any] = cli.count) -> Any:
    return dataclasses.field(default=default, metadata={"help": what, "type": kind})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one process of the service; each but the model is an option of the command.

    Raises:
        InputError: If two of them contradict each other.
    """

    model: Path
    top: int = _option(3, "number of most probable categories in an answer")
    threshold: float = _option(
        0.5, "call a photo `uncertain` if its best category is less probable", cli.probability
    )
    batch_size: int = _option(
        16, "maximum number of photos that go through the model together; 1 for an .onnx file"
    )
    photos: int = _option(32, "maximum number of photos in one request")
    photo_megabytes: float = _option(15, "maximum size of one photo in megabytes")
    photo_megapixels: float = _option(50, "maximum size of one photo in megapixels")
    body_megabytes: float = _option(60, "maximum size of one request in megabytes")
    held_megabytes: float = _option(300, "maximum size of all requests together in megabytes")
    waiting: int = _option(128, "maximum number of photos that wait for the model")
    seconds_to_send: float = _option(30, "seconds within which a request must arrive")
    deadline: float = _option(30, "seconds after which a request is given up")

    def __post_init__(self) -> None:
        if self.body_megabytes > self.held_megabytes:
            raise InputError("`--body-megabytes` must not be more than `--held-megabytes`.")
        if self.photos > self.waiting:
            raise InputError("`--photos` must not be more than `--waiting`.")
