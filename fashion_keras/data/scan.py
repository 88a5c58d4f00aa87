"""Where photos come from: a folder, the drawn sample or a download, as one list of photos."""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from fashion_keras.cli import progress
from fashion_keras.config import InputError
from fashion_keras.data.sample import draw_sample
from fashion_keras.files import made_once

SPLITS = ("train", "validation", "test")
_OTHER_NAMES = {"val": "validation", "valid": "validation", "training": "train"}

CLOTHING_COMMIT = "11961516512414bf9f6c150a832cfd21b54a6b54"
CLOTHING_ADDRESS = (
    f"https://codeload.github.com/alexeygrigorev/clothing-dataset-small/zip/{CLOTHING_COMMIT}"
)
# GitHub packs archives anew at any time, so the photos are checked, not the archive's bytes.
CLOTHING_DIGEST = "c6aa7f631ab7f8e366112fde4141d59f60d7b7034c7f33724711740e32875af4"
_ADVICE = "Name a folder with a copy of the photos instead, or try `sample`."
_TIMEOUT = 20  # Seconds without a single byte before a download is given up.


class SourcePhoto(NamedTuple):
    """One file that should be a photo; `split` is empty where the source has no splits."""

    path: Path
    name: str  # The path below the source's folder.
    split: str
    label: str


def find_photos(data: str, cache: Path, seed: int = 1) -> list[SourcePhoto]:
    """List every photo file of a data set, sorted by split, label and path.

    Args:
        data: `clothing`, `sample`, or a folder: either with `train` and `validation` (also
            `val`, `valid`) and perhaps `test` inside, each holding one folder per class, or
            holding the class folders itself.
        cache: Folder for the download and the drawn sample.
        seed: Seed of the drawn sample.

    Returns:
        The files; hidden files and folders are passed over.

    Raises:
        InputError: If the folder does not exist or does not hold at least two classes with
            photos, if a class is empty, or if a split has a class that train lacks.
    """
    folder = folder_of(data, cache.resolve(), seed)
    if splits := _split_folders(folder):
        missing = [split for split in ("train", "validation") if split not in splits]
        if missing:
            raise InputError(
                f"{folder} must hold both train and validation (or class folders only, which are "
                f"then split). Missing: {', '.join(missing)}"
            )
        photos = [
            photo for split in sorted(splits) for photo in _in_split(folder, splits[split], split)
        ]
    else:
        photos = _in_split(folder, folder, "")
    _check_classes(folder, photos)
    return photos


def folder_of(data: str, cache: Path, seed: int) -> Path:
    """Return the folder that `data` means; see `find_photos`."""
    if data == "clothing":
        return download_clothing(cache)
    if data == "sample":
        return made_once(drawn := cache / f"sample-{seed}", lambda: draw_sample(drawn, seed=seed))
    folder = Path(data).expanduser()
    if not data or not folder.is_dir():
        what = f"{folder} is not a folder" if folder.is_file() else f"No folder {folder}"
        raise InputError(
            f"{what}. Expected `clothing`, `sample`, or a folder of class folders or of splits."
        )
    return folder.resolve()


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder but hidden ones, by name: paths ignore case on Windows."""
    folders = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(folders, key=lambda path: path.name)


def split_of(name: str) -> str:
    """Return the split that a folder of this name stands for, or the name in small letters."""
    return _OTHER_NAMES.get(name.lower(), name.lower())


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the split folders by split; empty if the folder has none."""
    splits: dict[str, Path] = {}
    for path in subfolders(folder):
        if (split := split_of(path.name)) in SPLITS and any(subfolders(path)):
            if split in splits:
                raise InputError(
                    f"{folder} has two folders for {split}: {splits[split].name} and {path.name}."
                )
            splits[split] = path
    return splits


def _in_split(folder: Path, split_folder: Path, split: str) -> list[SourcePhoto]:
    photos = []
    for class_folder in subfolders(split_folder):
        if not class_folder.name.isprintable():
            raise InputError(
                f"The name of the class folder {str(class_folder)!r} cannot be shown: rename it."
            )
        if not (files := files_below(class_folder)):
            raise InputError(f"The class folder {class_folder} is empty: add photos or remove it.")
        photos += [
            SourcePhoto(path, path.relative_to(folder).as_posix(), split, class_folder.name)
            for path in files
        ]
    return photos


def files_below(folder: Path) -> list[Path]:
    """Return all files in a folder and below, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(parent, name) for name in files if name[0] != "."]
    return sorted(found)


def _check_classes(folder: Path, photos: list[SourcePhoto]) -> None:
    first = "train" if photos and photos[0].split else ""
    labels = {photo.label for photo in photos if photo.split == first}
    where = folder / first if first else folder
    if not labels:
        raise InputError(
            f"No class folders with photos in {where}: put each class's photos into a folder of "
            "its own."
        )
    if {split_of(label) for label in labels} <= set(SPLITS):
        raise InputError(
            f"{folder} holds {' and '.join(sorted(labels))} without class folders: put each "
            "class's photos into a folder of its own inside them."
        )
    if len(labels) == 1:
        raise InputError(
            f"Only one class in {where}: {labels.pop()}. A classifier needs at least two."
        )
    for photo in photos:
        if photo.label not in labels:
            raise InputError(
                f"The class {photo.label!r} is in {photo.split} but not in train: add photos of it "
                f"to {where / photo.label} or remove {photo.path.parent}."
            )


def download_clothing(cache: Path) -> Path:
    """Download clothing-dataset-small once and return its folder.

    It is pinned to one commit, goes on where an earlier try stopped, and is used only if all photos
    have the expected bytes. CC0 1.0, https://github.com/alexeygrigorev/clothing-dataset-small.

    Raises:
        InputError: If it cannot be downloaded, or its content is not what it should be.
    """
    folder = cache / f"clothing-dataset-small-{CLOTHING_COMMIT[:7]}"
    return made_once(folder, lambda: _download_to(folder))


def _download_to(folder: Path) -> None:
    archive = folder.with_name(f"{folder.name}.zip.part")
    download(CLOTHING_ADDRESS, archive, _ADVICE)
    unpacked = _unpack(archive, folder.with_name(f"{folder.name}.tmp"))
    if photos_digest(unpacked) != CLOTHING_DIGEST:
        archive.unlink()
        shutil.rmtree(unpacked)
        raise InputError(
            f"The download from {CLOTHING_ADDRESS} is damaged or was changed; it has been removed. "
            f"Run the command again. {_ADVICE}"
        )
    os.replace(unpacked, folder)
    archive.unlink()


def download(address: str, file: Path, advice: str) -> None:
    """Download `address` to `file`, going on behind the bytes that `file` holds already.

    Raises:
        InputError: At the first failure, with the address, the reason and `advice`.
    """
    held = file.stat().st_size if file.exists() else 0
    headers = {"Range": f"bytes={held}-"} if held else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 -- not from the user.
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            goes_on = response.status == 206
            total = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(1 << 20), b"")
            with file.open("ab" if goes_on else "wb") as target:
                for chunk in progress(chunks, total, f"{address} (bytes)", len):
                    target.write(chunk)
                received = target.tell() - (held if goes_on else 0)
        if received < total:
            raise OSError(f"the connection ended after {received} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Nothing is left to send: the file was complete already.
            return
        raise InputError(f"Cannot download {address}: {error}. {advice}") from error
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"Cannot download {address}: {getattr(error, 'reason', error)}. {advice}"
        ) from error


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the one top folder of a zip archive to `folder`, replacing what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    outside = folder.with_suffix(".unpacking")
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(outside)
        top = next(outside.iterdir())
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, StopIteration) as error:
        archive.unlink()
        raise InputError(
            f"The download {archive} is damaged and has been removed; run the command again."
        ) from error
    os.replace(top, folder)
    outside.rmdir()
    return folder


def photos_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of all photos below the folder's splits."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for file in files_below(folder / split):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
