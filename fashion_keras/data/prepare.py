"""Checks every photo of a source once and lays out readable ones for Keras to read in batches."""

import collections
import csv
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fashion_keras.config import InputError
from fashion_keras.data.inspected import Inspected, inspect_all
from fashion_keras.data.scan import SPLITS, SourcePhoto, find_photos
from fashion_keras.data.split import assign_splits, group_copies
from fashion_keras.files import one_at_a_time
from fashion_keras.stopwatch import stage

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


@stage("prepare")
def prepare(data: str, cache: Path, seed: int = 1) -> Prepared:
    """Find a data set's photos, check each, and lay the readable ones out by split and class.

    Clean photos are linked, others are rewritten (see `photo.read_photo`), unreadable ones are
    listed with the reason. Nothing in the source is changed. A second call costs a look at the
    files' sizes and dates; after a kill it goes on. A source without splits is split by class,
    80/10/10, with copies (see `split.group_copies`) on one side.

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
    work = folder.with_name(f"{folder.name}.tmp")  # What was inspected; it outlives a kill.
    if work.exists() or not (folder / "photos.csv").exists():
        with one_at_a_time(folder.with_name(f".{folder.name}.lock"), "these photos ready"):
            if not (folder / "photos.csv").exists():  # Else the other process has done it.
                _lay_out(sources, folder, work, seed)
            shutil.rmtree(work, ignore_errors=True)
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


def _lay_out(sources: list[SourcePhoto], folder: Path, work: Path, seed: int) -> None:
    """Make the prepared folder under another name, then give it its own: never half of it."""
    inspected = inspect_all(sources, work)
    readable = [one for one in inspected if not one.reason]
    rejected = [Rejected(one.photo.name, one.reason) for one in inspected if one.reason]
    _check_readable(sources, readable, rejected)
    if not sources[0].split:
        readable = _with_splits(readable, seed)
    placed = work / "placed"
    shutil.rmtree(placed, ignore_errors=True)
    photos = _place(readable, placed, sorted({photo.label for photo in sources}))
    _write_rows(placed / "quarantine.csv", Rejected._fields, rejected)
    _write_rows(placed / "photos.csv", PreparedPhoto._fields, photos)
    shutil.rmtree(folder, ignore_errors=True)  # What a deletion that was stopped left behind.
    if os.name == "posix":
        os.sync()  # Or a power cut could leave the folder, but torn files in it.
    os.replace(placed, folder)


def _check_readable(
    sources: list[SourcePhoto], readable: list[Inspected], rejected: list[Rejected]
) -> None:
    kept = {(one.photo.split, one.photo.label) for one in readable}
    for photo in sources:
        if (photo.split, photo.label) not in kept:
            reason = next(one.reason for one in rejected if one.file == photo.name)
            raise InputError(
                f"No photo in {photo.path.parent} can be read ({photo.path.name}: {reason}). "
                "Mend or replace them, or remove the folder."
            )


def _with_splits(readable: list[Inspected], seed: int) -> list[Inspected]:
    labels = [one.photo.label for one in readable]
    looks = [one.looks for one in readable if one.looks]
    groups = group_copies(looks, [one.sha256 for one in readable])
    splits = assign_splits(labels, groups, seed)
    divided = [
        one._replace(photo=one.photo._replace(split=split))
        for one, split in zip(readable, splits, strict=True)
    ]
    return sorted(divided, key=lambda one: (one.photo.split, one.photo.label, one.photo.path))


def _place(readable: list[Inspected], placed: Path, labels: list[str]) -> list[PreparedPhoto]:
    for split in sorted({one.photo.split for one in readable}):
        for label in labels:  # A class without photos in this split needs its folder all the same.
            (placed / split / label).mkdir(parents=True)
    photos = []
    for number, one in enumerate(readable):
        suffix = ".png" if one.rewritten or one.photo.path.suffix.lower() == ".png" else ".jpg"
        place = f"{one.photo.split}/{one.photo.label}/{number:07d}{suffix}"
        if one.rewritten:
            _move(one.rewritten, placed / place)
        else:
            link_or_copy(one.photo.path, placed / place)
        photos.append(
            PreparedPhoto(one.photo.split, one.photo.label, place, one.photo.name, one.sha256)
        )
    return photos


def _move(rewritten: Path, place: Path) -> None:
    try:
        os.link(rewritten, place)  # If this is stopped, the next run finds it where it was.
    except OSError:  # A file system without second names: the next run writes it again.
        os.replace(rewritten, place)


def link_or_copy(original: Path, link: Path) -> None:
    """Make a link to a file, or a copy of it where links are not possible."""
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
