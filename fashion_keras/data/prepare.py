"""Checks every photo of a data set once, and lays the readable ones out for Keras to read."""

import collections
import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fashion_keras.artifacts import fingerprint, made_once, sha256_of
from fashion_keras.cli import progress, stage
from fashion_keras.config import Config, InputError
from fashion_keras.data.layout import OTHER, SPLITS
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.data.scan import Scan, SourcePhoto, scan
from fashion_keras.data.split import (
    PerceptualHash,
    assign_splits,
    group_duplicates,
    perceptual_hash,
)

_FEW, _FEW_OF_A_CLASS = 50, 5  # Photos for validation.
_MOST_LABELS = 20  # In the line that counts photos.
_NAMED = 3  # Photos that are not used, in the line that counts them.
_SHARED = ("", "train")  # Photos of these splits are shared out where a split is missing.
_LAYOUT = 4  # Raise it when prepared folders of older versions must not be used any more.


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
        notes: What was taken for what in the source, and which of its photos are not used.
        others: All readable photos of none of the classes; their split is `other`.
    """

    folder: Path
    labels: list[str]
    photos: list[PreparedPhoto]
    rejected: list[Rejected]
    notes: tuple[str, ...] = ()
    others: Sequence[PreparedPhoto] = ()

    def split(self, name: str) -> list[PreparedPhoto]:
        """Return the photos of one split, in the order in which it is read."""
        return [photo for photo in self.photos if photo.split == name]


class _Checked(NamedTuple):
    photo: SourcePhoto
    reason: str = ""  # Why it cannot be used; empty if it can be read.
    file: Path = Path()  # The photo itself, or a PNG of it, if it cannot be used as it is.
    sha256: str = ""  # Of the bytes of `file`.
    hash: PerceptualHash | None = None


@stage("prepare")
def prepare(config: Config, cache: Path) -> Prepared:
    """Find the photos of a data set, check each, and lay the readable ones out by split and class.

    Clean photos are linked, others are rewritten (see `photo.read_photo`), unreadable ones are
    listed with the reason. Nothing in the source is changed. As long as names, sizes and dates of
    the files stay, a second call reads no photo. A source without splits is split 80/10/10 by
    class, with duplicates (see `split.group_duplicates`) in the same split; if only validation is
    missing, a tenth of the photos for training becomes that.

    Args:
        config: `split_seed` is the seed of the split; for the others see `scan.scan`.
        cache: Folder for prepared photos.

    Raises:
        InputError: If the source is unusable, or a class keeps no readable photo.
    """
    found, seed = scan(config, cache).usable(), config.split_seed
    sources = [*found.photos, *found.others]
    folder = cache / "prepared" / _key(sources, seed)
    made_once(folder, lambda unfinished: _lay_out(sources, seed, unfinished))
    readable = [PreparedPhoto(*row) for row in _read_rows(folder / "photos.csv")]
    photos = [photo for photo in readable if photo.split != OTHER]
    others = [photo for photo in readable if photo.split == OTHER]
    rejected = [Rejected(*row) for row in _read_rows(folder / "quarantine.csv")]
    labels = sorted({photo.label for photo in photos})
    return Prepared(folder, labels, photos, rejected, tuple(_notes(found)), others)


def _notes(found: Scan) -> Iterator[str]:
    yield from found.notes
    if found.unused:
        count, more = len(found.unused), ", ..." if found.unused[_NAMED:] else ""
        first = ", ".join(found.unused[:_NAMED]) + more
        yield f"photos that are not used, as they are in no class folder: {count} ({first})"


def summary(prepared: Prepared) -> str:
    """Return what was found, in a few lines for people."""
    count = collections.Counter(photo.split for photo in prepared.photos)
    splits = ", ".join(f"{count[split]} {split}" for split in SPLITS)
    labels = ", ".join(prepared.labels[:_MOST_LABELS])
    more = ", ..." if prepared.labels[_MOST_LABELS:] else ""
    text = f"photos: {splits}; {len(prepared.labels)} classes: {labels}{more}"
    for note in prepared.notes:
        text += f"\n{note}"
    if prepared.rejected:
        first = prepared.rejected[0]
        text += (
            f"\n{len(prepared.rejected)} files cannot be used ({first.file}: {first.reason}); "
            f"all are listed in {prepared.folder / 'quarantine.csv'}"
        )
    return text


def validation_warning(prepared: Prepared) -> str:
    """Return a line for people if validation has too few photos to choose by; else nothing."""
    photos = prepared.split("validation")
    count = collections.Counter(dict.fromkeys(prepared.labels, 0))
    count.update(photo.label for photo in photos)
    label, least = min(count.items(), key=lambda item: item[1])
    if len(photos) >= _FEW and least >= _FEW_OF_A_CLASS:
        return ""
    return (
        f"warning: validation has {len(photos)} photos, {least} of {label}: one photo is "
        f"{100 / max(len(photos), 1):.1f} percent, so small differences say nothing; add photos"
    )


def near_duplicates(prepared: Prepared, splits: Sequence[str]) -> list[list[int]]:
    """Group the photos of some splits, one after the other, as `split.group_duplicates` does."""
    photos = [photo for split in splits for photo in prepared.split(split)]

    def hashed(photo: PreparedPhoto) -> PerceptualHash:
        return perceptual_hash(Image.fromarray(read_photo(prepared.folder / photo.prepared).pixels))

    with ThreadPoolExecutor() as pool:
        return group_duplicates(list(pool.map(hashed, photos)), [one.sha256 for one in photos])


def link_or_copy(original: Path, place: Path) -> None:
    """Make a link to a file, or a copy of it where links are not possible."""
    try:
        place.symlink_to(original)
    except OSError:  # Windows without the right to make links, or a file system without them.
        shutil.copyfile(original, place)


def _key(sources: Sequence[SourcePhoto], seed: int) -> str:
    """Return the fingerprint of a source: its files (they are linked), and the split's seed.

    Reading all photos would be slow: sizes and dates stand for their contents.
    """
    files = []
    for photo in sources:
        status = photo.path.stat() if photo.path.exists() else photo.path.lstat()
        place = (photo.split, photo.label)  # They need not be in the path.
        files.append((str(photo.path), *place, status.st_size, status.st_mtime_ns))
    return fingerprint(layout=_LAYOUT, files=files, seed=seed if _missing(sources) else None)


def _lay_out(sources: Sequence[SourcePhoto], seed: int, folder: Path) -> None:
    pngs = [folder / "rewritten" / f"{number}.png" for number in range(len(sources))]
    pngs[0].parent.mkdir(parents=True)
    # Pillow decodes outside Python's lock, so threads use all cores.
    missing = _missing(sources)
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda photo, png: _check(photo, png, bool(missing)), sources, pngs)
        checked = list(progress(results, len(sources), "checking photos"))
    readable = [one for one in checked if not one.reason]
    kept = {(one.photo.split, one.photo.label) for one in readable}
    for photo, reason, *_ in checked:
        if (photo.split, photo.label) not in kept:
            raise InputError(
                f"No photo in {photo.path.parent} can be read ({photo.path.name}: {reason}). "
                "Fix or replace them, or remove the folder."
            )
    if missing:
        readable = _with_splits(readable, missing, seed)
    photos = _place(readable, folder, {label for _, label in kept})
    rejected = [Rejected(one.photo.name, one.reason) for one in checked if one.reason]
    _write_rows(folder / "quarantine.csv", Rejected._fields, rejected)
    _write_rows(folder / "photos.csv", PreparedPhoto._fields, photos)
    (folder / "rewritten").rmdir()


def _missing(sources: Sequence[SourcePhoto]) -> tuple[str, ...]:
    """Return the splits that are taken out of the others, of those in `split.assign_splits`."""
    if not sources[0].split:
        return ("test", "validation")
    return () if any(photo.split == "validation" for photo in sources) else ("validation",)


def _check(photo: SourcePhoto, png: Path, splits: bool) -> _Checked:
    try:
        pixels, clean = read_photo(photo.path)
    except PhotoError as error:
        return _Checked(photo, str(error))
    image, file = Image.fromarray(pixels), photo.path if clean else png
    if not clean:
        image.save(png, compress_level=1)
    hashed = perceptual_hash(image) if splits and photo.split in _SHARED else None
    return _Checked(photo, "", file, sha256_of(file), hashed)


def _with_splits(readable: Sequence[_Checked], missing: Sequence[str], seed: int) -> list[_Checked]:
    shared = [one for one in readable if one.photo.split in _SHARED]
    hashes = [one.hash for one in shared if one.hash]
    groups = group_duplicates(hashes, [one.sha256 for one in shared])
    splits = assign_splits([one.photo.label for one in shared], groups, seed, missing)
    placed = [
        one._replace(photo=one.photo._replace(split=split))
        for one, split in zip(shared, splits, strict=True)
    ]
    placed += [one for one in readable if one.photo.split not in _SHARED]
    return sorted(placed, key=lambda one: (one.photo.split, one.photo.label, one.photo.path))


def _place(readable: Sequence[_Checked], folder: Path, labels: set[str]) -> list[PreparedPhoto]:
    for split in {one.photo.split for one in readable}:
        for label in labels:  # A class without photos in this split needs its folder all the same.
            if (label == OTHER) == (split == OTHER):
                (folder / split / label).mkdir(parents=True)
    photos = []
    for number, (photo, _, file, digest, _) in enumerate(readable):
        suffix = ".png" if file.suffix.lower() == ".png" else ".jpg"
        place = f"{photo.split}/{photo.label}/{number:07d}{suffix}"
        if file == photo.path:
            link_or_copy(file, folder / place)
        else:
            file.rename(folder / place)
        photos.append(PreparedPhoto(photo.split, photo.label, place, photo.name, digest))
    return photos


def _write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    # Bytes of a name that are not UTF-8 are escaped: it is only for people to read.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([header, *rows])


def _read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]
