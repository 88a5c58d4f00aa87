"""Finds the photos of a data set, and everything that is wrong with its folders."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fashion_keras.artifacts import made_once
from fashion_keras.config import InputError
from fashion_keras.data.download import download_clothing
from fashion_keras.data.sample import draw_sample

SPLITS = ("train", "validation", "test")
_OTHER_NAMES = {"val": "validation", "valid": "validation", "training": "train"}
_PHOTO = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])$", re.IGNORECASE)


class SourcePhoto(NamedTuple):
    """One file that should be a photo; `split` is empty where the source has no splits."""

    path: Path
    name: str  # The path below the source's folder.
    split: str
    label: str


class Scan(NamedTuple):
    """What the folders of a data set hold; no photo has been opened.

    Attributes:
        classes: Names of the class folders of each split, sorted; the split is empty where the
            source has none.
        photos: All files in class folders, by split, class and path.
        unused: Photos outside the class folders, as paths below the data set's folder.
        faults: What is wrong with the layout, in sentences.
        class_faults: Class folders that are empty or that train lacks, in sentences.
    """

    classes: dict[str, list[str]]
    photos: list[SourcePhoto]
    unused: list[str]
    faults: list[str]
    class_faults: list[str]


def find_photos(data: str, cache: Path, seed: int = 1) -> list[SourcePhoto]:
    """List every photo file of a data set, by split, class and path.

    Raises:
        InputError: If `scan` raises it or finds faults; all are named.
    """
    found = scan(data, cache, seed)
    if found.faults or found.class_faults:
        raise InputError("\n".join([*found.faults, *found.class_faults]))
    return found.photos


def scan(data: str, cache: Path, seed: int = 1) -> Scan:
    """List the class folders and files of a data set, whatever is wrong with them.

    Hidden files and folders are left out.

    Args:
        data: `clothing`, `sample`, or a folder: either with `train` and `validation` (also
            `val`, `valid`) and perhaps `test` inside, each holding one folder per class, or
            holding the class folders itself.
        cache: Folder for the download and the drawn sample.
        seed: Seed of the drawn sample.

    Raises:
        InputError: If there is no such folder, or two in it stand for the same split.
    """
    folder = _folder_of(data, cache.resolve(), seed)
    splits = _split_folders(folder)
    classes = {split: subfolders(parent) for split, parent in splits.items()}
    photos = [
        SourcePhoto(file, file.relative_to(folder).as_posix(), split, shown(path.name))
        for split, paths in classes.items()
        for path in paths
        for file in find_files(path)
    ]
    used = {photo.path for photo in photos}
    others = [file for file in find_files(folder) if file not in used and _PHOTO.search(file.name)]
    return Scan(
        {split: [shown(path.name) for path in paths] for split, paths in classes.items()},
        photos,
        [shown(file.relative_to(folder).as_posix()) for file in others],
        list(_layout_faults(folder, splits, classes)),
        list(_class_faults(splits, classes, {(photo.split, photo.label) for photo in photos})),
    )


def shown(name: str) -> str:
    """Return the name of a file as it can be printed and is written by `prepare`."""
    return name.encode("utf-8", errors="backslashreplace").decode()


def find_files(folder: Path) -> list[Path]:
    """List all files in a folder and below but hidden ones, by path.

    Folders that cannot be opened are among them, so that reading them gives the reason.
    """
    found: list[Path] = []
    walk = os.walk(folder, onerror=lambda error: found.append(Path(error.filename)))
    for parent, folders, files in walk:
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(parent, name) for name in files if name[0] != "."]
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder but hidden ones, by name: paths ignore case on Windows."""
    folders = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(folders, key=lambda path: path.name)


def split_of(name: str) -> str:
    """Return the split that a folder of this name stands for, or the name in lower case."""
    return _OTHER_NAMES.get(name.lower(), name.lower())


def _folder_of(data: str, cache: Path, seed: int) -> Path:
    if data == "clothing":
        return download_clothing(cache)
    if data == "sample":
        return made_once(cache / f"sample-{seed}", lambda folder: draw_sample(folder, seed=seed))
    folder = Path(data).expanduser()
    if not data or not folder.is_dir():
        what = f"{folder} is not a folder" if folder.is_file() else f"No folder {folder}"
        raise InputError(
            f"{what}. Expected `clothing`, `sample`, or a folder of class folders or of splits."
        )
    return folder.resolve()


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split; the folder itself, for no split, if there are none."""
    found: dict[str, Path] = {}
    for path in subfolders(folder):
        if (split := split_of(path.name)) in SPLITS and any(subfolders(path)):
            if split in found:
                names = f"{found[split].name} and {path.name}"
                raise InputError(f"{folder} has two folders for {split}: {names}.")
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found} or {"": folder}


def _layout_faults(
    folder: Path, splits: Mapping[str, Path], classes: Mapping[str, list[Path]]
) -> Iterator[str]:
    missing = [split for split in SPLITS[:2] if split not in splits]
    if missing and "" not in splits:
        yield (
            f"{folder} must hold both train and validation (or class folders only, which are "
            f"then split). Missing: {', '.join(missing)}"
        )
    for path in itertools.chain(*classes.values()):
        if not path.name.isprintable():
            yield f"The name of the class folder {str(path)!r} cannot be shown: rename it."
    names = [shown(path.name) for path in classes.get("", classes.get(SPLITS[0], []))]
    advice = "put each class's photos into a folder of its own"
    if not names and "" in splits:
        yield f"No class folders with photos in {folder}: {advice}."
    elif "" in splits and {split_of(name) for name in names} <= set(SPLITS):
        yield f"{folder} holds {' and '.join(names)} without class folders: {advice} inside them."
    elif len(names) == 1:
        where = splits.get(SPLITS[0], folder)
        yield f"Only one class in {where}: {names[0]}. A classifier needs at least two."


def _class_faults(
    splits: Mapping[str, Path],
    classes: Mapping[str, list[Path]],
    with_photos: set[tuple[str, str]],
) -> Iterator[str]:
    train = {path.name for path in classes.get(SPLITS[0], [])}
    for split, path in ((split, path) for split, paths in classes.items() for path in paths):
        if (split, shown(path.name)) not in with_photos:
            yield f"The class folder {path} is empty: add photos or remove it."
        elif train and path.name not in train:
            yield (
                f"The class {path.name!r} is in {split} but not in train: add photos of it to "
                f"{splits[SPLITS[0]] / path.name} or remove {path}."
            )
