"""Checks every photo of a source once and lays out readable ones for Keras to read in batches."""

import collections
import csv
import hashlib
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fashion_keras.command import progress
from fashion_keras.config import InputError
from fashion_keras.files import one_at_a_time, sha256_of
from fashion_keras.photo import PhotoError, read_photo
from fashion_keras.source import SPLITS, SourcePhoto, find_photos
from fashion_keras.split import Looks, assign_splits, group_copies, looks_of
from fashion_keras.stopwatch import stage, waited

_LAYOUT = "1"  # Raise it when prepared folders of older versions must not be used any more.
_DIVISION = "2"  # Raise it when photos without splits are divided in another way.


class PreparedPhoto(NamedTuple):
    """One readable photo: its place in the prepared folder and where it came from."""

    split: str
    label: str
    prepared: str  # Path below the prepared folder.
    file: str  # The user's own file, below the source's folder.
    sha256: str  # Of the prepared file's bytes.


class Rejected(NamedTuple):
    """One file that cannot be used, and why."""

    file: str
    reason: str


class Prepared(NamedTuple):
    """A data set that is ready to be read.

    Attributes:
        folder: Holds `<split>/<label>/<number>.<jpg or png>`, `photos.csv` and `quarantine.csv`.
        labels: Names of the classes, sorted.
        photos: All readable photos, in the order in which a split is read.
        rejected: All unreadable files.
    """

    folder: Path
    labels: list[str]
    photos: list[PreparedPhoto]
    rejected: list[Rejected]

    def split(self, name: str) -> list[PreparedPhoto]:
        """Return the photos of one split, in the order in which it is read."""
        return [photo for photo in self.photos if photo.split == name]


class _Inspected(NamedTuple):
    photo: SourcePhoto
    reason: str  # Empty if the photo can be read.
    sha256: str
    looks: Looks | None  # None where the source has splits, and nothing is compared.
    rewritten: Path | None  # The photo as PNG, where the file itself cannot be used.


@stage("prepare")
def prepare(data: str, cache: Path, seed: int = 1) -> Prepared:
    """Find a data set's photos, check each, and lay the readable ones out by split and class.

    Clean photos are linked, others are rewritten (see `photo.read_photo`), unreadable ones are
    listed with the reason. Nothing in the source is changed. A second call costs a look at the
    files' sizes and dates. A source without splits is split by class, 80/10/10, with copies
    (see `split.group_copies`) on one side.

    Args:
        data: See `source.find_photos`.
        cache: Folder for prepared photos.
        seed: Seed of the split, and of the drawn sample.

    Returns:
        The prepared data set.

    Raises:
        InputError: If the source is unusable, or a class keeps no readable photo.
    """
    sources = find_photos(data, cache, seed)
    folder = cache / "prepared" / _key(sources, seed)
    if not (folder / "photos.csv").exists():
        with one_at_a_time(folder.with_name(f".{folder.name}.lock"), "these photos ready"):
            if not (folder / "photos.csv").exists():  # Else the other process has done it.
                _lay_out(sources, folder, seed)
    photos = [PreparedPhoto(*row) for row in _read_rows(folder / "photos.csv")]
    rejected = [Rejected(*row) for row in _read_rows(folder / "quarantine.csv")]
    labels = sorted({photo.label for photo in photos})
    return Prepared(folder, labels, photos, rejected)


def summary(prepared: Prepared) -> str:
    """Return what was found, in a few lines for people."""
    count = collections.Counter(photo.split for photo in prepared.photos)
    splits = ", ".join(f"{count[split]} {split}" for split in SPLITS)
    text = f"photos: {splits}; {len(prepared.labels)} classes: {', '.join(prepared.labels)}"
    if prepared.rejected:
        first = prepared.rejected[0]
        text += (
            f"\n{len(prepared.rejected)} files cannot be used ({first.file}: {first.reason}); "
            f"all are listed in {prepared.folder / 'quarantine.csv'}"
        )
    return text


def _key(sources: list[SourcePhoto], seed: int) -> str:
    """Hash what decides the outcome: names, sizes and dates of the files, and the split's seed."""
    digest = hashlib.sha256(_LAYOUT.encode())
    for photo in sources:
        status = photo.path.stat() if photo.path.exists() else photo.path.lstat()
        line = (str(photo.path), photo.split, status.st_size, status.st_mtime_ns)
        digest.update(repr(line).encode())
    if not sources[0].split:
        digest.update(f"{seed} {_DIVISION}".encode())
    return digest.hexdigest()[:16]


def _lay_out(sources: list[SourcePhoto], folder: Path, seed: int) -> None:
    """Make the prepared folder under another name, then give it its own: never half of it."""
    work = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    (work / "rewritten").mkdir(parents=True)
    inspected = _inspect_all(sources, work / "rewritten")
    readable = [one for one in inspected if not one.reason]
    rejected = [Rejected(one.photo.name, one.reason) for one in inspected if one.reason]
    _check_readable(sources, readable, rejected)
    if not sources[0].split:
        readable = _with_splits(readable, seed)
    photos = _place(readable, work, sorted({photo.label for photo in sources}))
    (work / "rewritten").rmdir()
    _write_rows(work / "quarantine.csv", Rejected._fields, rejected)
    _write_rows(work / "photos.csv", PreparedPhoto._fields, photos)
    shutil.rmtree(folder, ignore_errors=True)  # What a deletion that was stopped left behind.
    os.replace(work, folder)


def _inspect_all(sources: list[SourcePhoto], rewritten: Path) -> list[_Inspected]:
    # Pillow decodes outside Python's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        targets = (rewritten / f"{number:07d}.png" for number in range(len(sources)))
        results = waited("decode", pool.map(_inspect, sources, targets))
        return list(progress(results, len(sources), "checking photos"))


def _inspect(photo: SourcePhoto, target: Path) -> _Inspected:
    try:
        pixels, clean = read_photo(photo.path)
    except PhotoError as error:
        return _Inspected(photo, str(error), "", None, None)
    if not clean:
        Image.fromarray(pixels).save(target, compress_level=1)
    file = photo.path if clean else target
    sha256 = sha256_of(file)
    looks = None if photo.split else looks_of(Image.fromarray(pixels))
    return _Inspected(photo, "", sha256, looks, None if clean else target)


def _check_readable(
    sources: list[SourcePhoto], readable: list[_Inspected], rejected: list[Rejected]
) -> None:
    kept = {(one.photo.split, one.photo.label) for one in readable}
    for photo in sources:
        if (photo.split, photo.label) not in kept:
            reason = next(one.reason for one in rejected if one.file == photo.name)
            raise InputError(
                f"No photo in {photo.path.parent} can be read ({photo.path.name}: {reason}). "
                "Mend or replace them, or remove the folder."
            )


def _with_splits(readable: list[_Inspected], seed: int) -> list[_Inspected]:
    labels = [one.photo.label for one in readable]
    looks = [one.looks for one in readable if one.looks]
    groups = group_copies(looks, [one.sha256 for one in readable])
    splits = assign_splits(labels, groups, seed)
    divided = [
        one._replace(photo=one.photo._replace(split=split))
        for one, split in zip(readable, splits, strict=True)
    ]
    return sorted(divided, key=lambda one: (one.photo.split, one.photo.label, one.photo.path))


def _place(readable: list[_Inspected], work: Path, labels: list[str]) -> list[PreparedPhoto]:
    for split in sorted({one.photo.split for one in readable}):
        for label in labels:  # A class without photos in this split needs its folder all the same.
            (work / split / label).mkdir(parents=True)
    photos = []
    for number, one in enumerate(readable):
        suffix = ".png" if one.rewritten or one.photo.path.suffix.lower() == ".png" else ".jpg"
        place = f"{one.photo.split}/{one.photo.label}/{number:07d}{suffix}"
        if one.rewritten:
            os.replace(one.rewritten, work / place)
        else:
            _link(one.photo.path, work / place)
        photos.append(
            PreparedPhoto(one.photo.split, one.photo.label, place, one.photo.name, one.sha256)
        )
    return photos


def _link(original: Path, link: Path) -> None:
    try:
        link.symlink_to(original)
    except OSError:  # Windows without the right to make links, or a file system without them.
        shutil.copyfile(original, link)


def _write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    # A name that is not UTF-8 is written with its bytes as \udcff: it is there to be read only.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]
