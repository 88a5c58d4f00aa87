"""Opens every photo of a data set once: size, mode, EXIF orientation, perceptual hash, faults."""

import collections
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.artifacts import sha256_of
from fashion_keras.check.findings import Finding, Suspect
from fashion_keras.cli import progress
from fashion_keras.data.files import shown
from fashion_keras.data.photo import FORMATS, PhotoError, is_flat, read_photo
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SourcePhoto
from fashion_keras.data.split import PerceptualHash, perceptual_hash

_NARROW = 3.0  # Photos are stretched to a square; from this ratio of the sides on it shows.
_LEAST_SIDE = 80
_ORIENTATION = 0x0112  # EXIF tag; 1 means upright, from 5 on the photo is on its side.


class CheckedPhoto(NamedTuple):
    """One file of a data set; what follows `reason` is known of readable ones only."""

    name: str  # Its path below the data set's folder, as it can be printed.
    split: str  # Where it is used; empty if that is not decided.
    label: str
    path: Path
    reason: str  # Why it cannot be read; empty if it can.
    size: tuple[int, int] = (0, 0)  # Width and height in pixels, upright.
    mode: str = ""  # Pillow's name, as that of the format.
    format: str = ""
    orientation: int = 1  # As in EXIF.
    sha256: str = ""  # Of the file's bytes.
    hash: PerceptualHash | None = None
    flat: bool = False  # Of a single colour.

    def suspect(self, reason: str, likelier: str = "", same: Sequence[str] = ()) -> Suspect:
        """Return the photo for the review; see `Suspect`."""
        return Suspect(self.name, self.label, self.path, (reason,), likelier, tuple(same))


def check_photos(photos: Sequence[SourcePhoto], prepared: Prepared | None) -> list[CheckedPhoto]:
    """Open every photo; the same photos prepared, where that is possible, decide their splits."""
    splits = {photo.file: photo.split for photo in prepared.photos} if prepared else {}
    # Pillow decodes outside Python's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda photo: _check(photo, splits), photos)
        return list(progress(checked, len(photos), "examining photos"))


def _check(photo: SourcePhoto, splits: Mapping[str, str]) -> CheckedPhoto:
    name, path = shown(photo.name), photo.path
    known = (name, splits.get(name, photo.split), photo.label, path)
    try:
        pixels = read_photo(path).pixels
        hashed = perceptual_hash(Image.fromarray(pixels))
    except PhotoError as error:
        return CheckedPhoto(*known, str(error))
    formats = [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]
    with Image.open(path, formats=formats) as image:
        orientation, (width, height) = image.getexif().get(_ORIENTATION, 1), image.size
        size = (height, width) if orientation in range(5, 9) else (width, height)
        kind = (image.mode, image.format or "", orientation)
    return CheckedPhoto(*known, "", size, *kind, sha256_of(path), hashed, is_flat(pixels))


def summary(photos: Sequence[CheckedPhoto]) -> dict:
    """Return the percentiles 5, 50 and 95 of `width`, `height` and `aspect_ratio`, and counts.

    Of unreadable photos nothing is counted.
    """
    readable = [photo for photo in photos if not photo.reason]
    if not readable:
        return {}
    width, height = np.array([photo.size for photo in readable], dtype=float).T
    points = np.percentile([width, height, width / height], [5, 50, 95], axis=1).T.round(2)
    names = ("width", "height", "aspect_ratio")
    return dict(zip(names, points.tolist(), strict=True)) | {
        "formats": dict(collections.Counter(photo.format for photo in readable)),
        "modes": dict(collections.Counter(photo.mode for photo in readable)),
    }


def photo_findings(photos: Sequence[CheckedPhoto], image_size: int) -> list[Finding]:
    """Return what is wrong with single photos: unreadable, very narrow, turned by EXIF, small."""
    sides = {photo.name: max(photo.size) for photo in photos if not photo.reason}
    small = {name: side for name, side in sides.items() if side < image_size}
    # That of nine out of ten photos, as a multiple of ten that every backbone takes.
    usual = int(np.percentile([*sides.values()], 90)) if sides else 0
    proposed = min(image_size, max(_LEAST_SIDE, usual // 10 * 10))
    enlarged = [
        f"{name}: {side} pixels, enlarged {image_size / side:.1f} times"
        for name, side in sorted(small.items(), key=lambda one: one[1])
    ]
    narrow = [
        f"{photo.name}: {photo.size[0]} x {photo.size[1]} pixels"
        for photo in photos
        if not photo.reason and max(photo.size) >= _NARROW * min(photo.size)
    ]
    flat = [photo for photo in photos if photo.flat]
    turned = [
        f"{photo.name}: orientation {photo.orientation}"
        for photo in photos
        if photo.orientation in range(2, 9)
    ]
    return [
        Finding("unreadable", [f"{one.name}: {one.reason}" for one in photos if one.reason]),
        Finding("flat", [one.name for one in flat], [one.suspect("one colour") for one in flat]),
        Finding("narrow", narrow, ratio=_NARROW),
        Finding("turned", turned),
        Finding("enlarged", enlarged, side=image_size, proposed=proposed),
    ]
