"""Opens every photo of a data set once: size, mode, EXIF turn, what it looks like, or why not."""

import collections
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.check.findings import Finding
from fashion_keras.cli import progress
from fashion_keras.data.photo import FORMATS, PhotoError, read_photo
from fashion_keras.data.prepare import Prepared, PreparedPhoto
from fashion_keras.data.scan import SourcePhoto, shown
from fashion_keras.data.split import PerceptualHash, perceptual_hash
from fashion_keras.files import sha256_of

_DRAFT = 144  # Pixels a side that are enough for looks.
_NARROW = 3.0  # Photos are stretched to a square; from this ratio of the sides on they look odd.
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


class PhotoFacts(NamedTuple):
    """One file of a data set.

    Attributes:
        name: Its path below the data set's folder, as it can be printed.
        split: Where it is used; empty if that is not decided.
        label: Its class.
        path: Where it lies.
        reason: Why it cannot be read; empty if it can be, and only then the rest is known.
        size: Width and height in pixels, as stored.
        mode: Pillow's name for the kind of pixels.
        format: Pillow's name for the format.
        turn: EXIF orientation, 1 for upright.
        sha256: Of the file's bytes, or of the pixels where the file had to be rewritten.
        looks: What the photo looks like in each of `split.TURNS`.
    """

    name: str
    split: str
    label: str
    path: Path
    reason: str
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    format: str = ""
    turn: int = 1
    sha256: str = ""
    looks: PerceptualHash | None = None


def gather_facts(photos: Sequence[SourcePhoto], prepared: Prepared | None) -> list[PhotoFacts]:
    """Open every photo.

    Args:
        photos: See `scan.Scan`.
        prepared: The same photos prepared; what that found out is not found out again. None if
            they cannot be prepared: then each one is read here.
    """
    places = {photo.file: photo for photo in prepared.photos} if prepared else {}
    reasons = {one.file: one.reason for one in prepared.rejected} if prepared else {}

    def facts(photo: SourcePhoto) -> PhotoFacts:
        name = shown(photo.name)
        reason = reasons.get(name, "")
        if reason or not prepared:
            return _read_anew(photo, name, reason)
        return _looked_up(photo, places[name], prepared.folder)

    if not photos:
        return []
    # Pillow decodes outside Python's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(facts, photos), len(photos), "looking at photos"))


def _read_anew(photo: SourcePhoto, name: str, reason: str) -> PhotoFacts:
    found = PhotoFacts(name, photo.split, photo.label, photo.path, reason)
    if reason:
        return found
    try:
        pixels = read_photo(photo.path).pixels
    except PhotoError as error:
        return found._replace(reason=str(error))
    sha256 = sha256_of(photo.path)
    return _with_header(
        found._replace(sha256=sha256, looks=perceptual_hash(Image.fromarray(pixels)))
    )


def _looked_up(photo: SourcePhoto, place: PreparedPhoto, folder: Path) -> PhotoFacts:
    with Image.open(folder / place.prepared) as image:
        image.draft("RGB", (_DRAFT, _DRAFT))  # JPEG: decoding a quarter or so is enough.
        looks = perceptual_hash(image)
    found = PhotoFacts(place.file, place.split, photo.label, photo.path, "")
    return _with_header(found._replace(sha256=place.sha256, looks=looks))


def _with_header(found: PhotoFacts) -> PhotoFacts:
    with Image.open(found.path, formats=FORMATS) as image:
        turn = image.getexif().get(_ORIENTATION, 1)
        return found._replace(
            size=image.size, mode=image.mode, format=image.format or "", turn=turn
        )


def summary(facts: Sequence[PhotoFacts]) -> dict:
    """Return sizes, shapes, formats, modes and EXIF turns of all readable photos.

    Returns:
        `width`, `height` and `aspect_ratio` (width by height), each as the values that 5 %, 50 %
        and 95 % of photos do not exceed; `formats`, `modes` and `exif_turns` as counts.
    """
    readable = [one for one in facts if not one.reason]
    if not readable:
        return {}
    sizes = np.array([_upright(one) for one in readable], dtype=float)
    values = {
        "width": sizes[:, 0],
        "height": sizes[:, 1],
        "aspect_ratio": sizes[:, 0] / sizes[:, 1],
    }
    points = {
        name: [round(float(point), 2) for point in np.percentile(value, [5, 50, 95])]
        for name, value in values.items()
    }
    turns = collections.Counter(EXIF_TURNS.get(one.turn, "") for one in readable)
    return points | {
        "formats": dict(collections.Counter(one.format for one in readable)),
        "modes": dict(collections.Counter(one.mode for one in readable)),
        "exif_turns": {turn: count for turn, count in turns.items() if turn},
    }


def _upright(one: PhotoFacts) -> tuple[int, int]:
    width, height = one.size
    return (height, width) if one.turn in (5, 6, 7, 8) else (width, height)


def photo_findings(facts: Sequence[PhotoFacts]) -> list[Finding]:
    """Return what is wrong with single photos: unreadable, very narrow, turned by EXIF."""
    unreadable = [f"{one.name}: {one.reason}" for one in facts if one.reason]
    readable = [one for one in facts if not one.reason]
    narrow = [
        f"{one.name}: {one.size[0]} x {one.size[1]} pixels"
        for one in readable
        if max(one.size) >= _NARROW * min(one.size)
    ]
    turned = [f"{one.name}: {EXIF_TURNS[one.turn]}" for one in readable if one.turn in EXIF_TURNS]
    findings = [
        Finding(
            "unreadable",
            f"files that cannot be read and will not be used: {len(unreadable)}",
            "Mend, replace or remove them.",
            unreadable,
        ),
        Finding(
            "narrow",
            f"photos with one side {_NARROW:g} times the other or more: {len(narrow)}",
            "They are squeezed into a square; crop them to the garment if that matters.",
            narrow,
        ),
        Finding(
            "turned",
            f"photos that EXIF turns: {len(turned)}",
            "They are turned upright here; a program of yours that does not sees them as stored.",
            turned,
        ),
    ]
    return [finding for finding in findings if finding.items]
