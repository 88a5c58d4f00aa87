"""Opens every photo of a data set once: size, mode, EXIF orientation, perceptual hash, faults."""

import collections
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.artifacts import sha256_of
from fashion_keras.check.findings import Finding
from fashion_keras.cli import progress
from fashion_keras.data.photo import FORMATS, PhotoError, read_photo
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SourcePhoto, shown
from fashion_keras.data.split import PerceptualHash, perceptual_hash

_NARROW = 3.0  # Photos are stretched to a square; from this ratio of the sides on it shows.
_ORIENTATION = 0x0112  # EXIF tag.
EXIF_TURNS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its left side",
    7: "on its side and mirrored",
    8: "on its right side",
}


class CheckedPhoto(NamedTuple):
    """One file of a data set; what follows `reason` is known of readable ones only."""

    name: str  # Its path below the data set's folder, as it can be printed.
    split: str  # Where it is used; empty if that is not decided.
    label: str
    path: Path
    reason: str  # Why it cannot be read; empty if it can.
    size: tuple[int, int] = (0, 0)  # Width and height in pixels, as stored.
    mode: str = ""  # Pillow's name, as that of the format.
    format: str = ""
    turn: int = 1  # EXIF orientation, 1 for upright.
    sha256: str = ""  # Of the file's bytes.
    hash: PerceptualHash | None = None


def check_photos(photos: Sequence[SourcePhoto], prepared: Prepared | None) -> list[CheckedPhoto]:
    """Open every photo; the same photos prepared, where that is possible, decide their splits."""
    splits = {photo.file: photo.split for photo in prepared.photos} if prepared else {}

    def check(photo: SourcePhoto) -> CheckedPhoto:
        name = shown(photo.name)
        return _opened(name, splits.get(name, photo.split), photo.label, photo.path)

    if not photos:
        return []
    # Pillow decodes outside Python's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(check, photos), len(photos), "examining photos"))


def _opened(name: str, split: str, label: str, path: Path) -> CheckedPhoto:
    try:
        hashed = perceptual_hash(Image.fromarray(read_photo(path).pixels))
    except PhotoError as error:
        return CheckedPhoto(name, split, label, path, str(error))
    with Image.open(path, formats=FORMATS) as image:
        turn, kind = image.getexif().get(_ORIENTATION, 1), image.format or ""
        known = (image.size, image.mode, kind, turn, sha256_of(path), hashed)
    return CheckedPhoto(name, split, label, path, "", *known)


def summary(photos: Sequence[CheckedPhoto]) -> dict:
    """Return the percentiles 5, 50 and 95 of `width`, `height` and `aspect_ratio`, and counts.

    Of unreadable photos nothing is counted.
    """
    readable = [photo for photo in photos if not photo.reason]
    if not readable:
        return {}
    upright = [photo.size[:: -1 if photo.turn in (5, 6, 7, 8) else 1] for photo in readable]
    width, height = np.array(upright, dtype=float).T
    values = {"width": width, "height": height, "aspect_ratio": width / height}
    points = {name: np.percentile(value, [5, 50, 95]) for name, value in values.items()}
    turns = (EXIF_TURNS[photo.turn] for photo in readable if photo.turn in EXIF_TURNS)
    return {
        **{name: value.round(2).tolist() for name, value in points.items()},
        "formats": dict(collections.Counter(photo.format for photo in readable)),
        "modes": dict(collections.Counter(photo.mode for photo in readable)),
        "exif_turns": dict(collections.Counter(turns)),
    }


def photo_findings(photos: Sequence[CheckedPhoto]) -> list[Finding]:
    """Return what is wrong with single photos: unreadable, very narrow, turned by EXIF."""
    unreadable = [f"{photo.name}: {photo.reason}" for photo in photos if photo.reason]
    readable = [photo for photo in photos if not photo.reason]
    narrow = [
        f"{photo.name}: {photo.size[0]} x {photo.size[1]} pixels"
        for photo in readable
        if max(photo.size) >= _NARROW * min(photo.size)
    ]
    turned = [f"{one.name}: {EXIF_TURNS[one.turn]}" for one in readable if one.turn in EXIF_TURNS]
    return [
        Finding("unreadable", unreadable),
        Finding("narrow", narrow, ratio=_NARROW),
        Finding("turned", turned),
    ]
