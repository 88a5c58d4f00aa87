"""Finds out which folders of a data set are splits, and which hold the photos of a class."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fashion_keras.config import InputError
from fashion_keras.data.files import label_of, subfolders

SPLITS = ("train", "validation", "test")
OTHER = "other"  # Name of a folder of photos of none of the classes.
PHOTO = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])$", re.IGNORECASE)
_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
# What people write around these names.
_AROUND = {
    *("set", "sets", "data", "dataset", "split", "splits", "folder", "files", "class", "classes"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pics"),
}
_TOGETHER = re.compile(
    f"({'|'.join(sorted(_NAMES, key=len, reverse=True))})({'|'.join(sorted(_AROUND))})"
)


class Layout(NamedTuple):
    """Where the classes of a data set are.

    Attributes:
        splits: Folder of each split, in which each class has a folder; without a name the folder
            of all classes, where the source has no splits.
        notes: What was taken for what, in sentences for people.
        faults: What is wrong with the folders, in sentences.
    """

    splits: dict[str, Path]
    notes: list[str]
    faults: list[str]


def split_of(name: str) -> str:
    """Return the split that a folder of this name stands for; empty if there is none.

    Any case counts, and words such as `set`, `data` and `images` around it: `training_set`.
    """
    split, others = _parsed(name)
    return "" if others else split


def is_other(name: str) -> bool:
    """Return whether a folder or label of this name stands for photos of none of the classes."""
    return name.casefold() in (OTHER, "none of these")


def find_layout(folder: Path) -> Layout:
    """Find the splits and the class folders of a data set.

    Raises:
        InputError: If two folders stand for the same split.
    """
    notes: list[str] = []
    inner = _unpacked(folder)
    if inner != folder:
        notes.append(f"the photos are looked for in {inner}, the only folder there")
    splits = _split_folders(inner)
    named = {path.name: split for split, path in splits.items() if path.name.lower() != split}
    wrapped = {split: _unpacked(path) for split, path in splits.items()}
    if all(wrapped[split] != path for split, path in splits.items()):
        splits = wrapped
    if named:
        notes.append(", ".join(f"{name} is taken for {split}" for name, split in named.items()))
    if list(splits) == ["train"]:
        notes.append(f"there is only {splits['train'].name}: its photos are split")
        splits = {"": splits["train"]}
    elif "train" in splits and "validation" not in splits:
        notes.append("there is no folder for validation: a tenth of the training photos is used")
    return Layout(splits or {"": inner}, notes, _faults(splits, inner))


def _parsed(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the split in a name, empty if there is none or several, and the other words of it."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.findall(r"[^\W\d_]+", apart)
    words = [part for word in words for part in _halves(word)]
    splits = {_NAMES[word] for word in words if word in _NAMES}
    others = tuple(word for word in words if word not in _NAMES and word not in _AROUND)
    return (splits.pop(), others) if len(splits) == 1 else ("", tuple(words))


def _halves(word: str) -> Sequence[str]:
    both = _TOGETHER.fullmatch(word)
    return both.groups() if both else [word]


def _unpacked(folder: Path) -> Path:
    """Return the folder that holds classes or splits: an archive often has it in another one."""
    inner = folder
    while len(inside := _classes_in(inner)) == 1 and not _holds_photos(inside[0]):
        if split_of(inside[0].name) in SPLITS[1:]:
            break
        inner = inside[0]
    return inner if len(inside) > 1 else folder


def _classes_in(folder: Path) -> list[Path]:
    return [path for path in subfolders(folder) if not is_other(path.name)]


def _holds_photos(folder: Path) -> bool:
    return any(PHOTO.search(path.name) and path.name[0] != "." for path in folder.iterdir())


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split; nothing if there are none."""
    parents = [path for path in subfolders(folder) if any(subfolders(path))]
    groups: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    for path in parents:
        split, others = _parsed(path.name)
        if split:
            groups.setdefault(others, {}).setdefault(split, []).append(path)
    # Other words, as in `shop_train` and `shop_test`, count if all splits share them.
    found = groups.get((), {}) or next((one for one in groups.values() if len(one) > 1), {})
    for split, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise InputError(f"{folder} has two folders for {split}: {names}.")
    return {split: found[split][0] for split in SPLITS if split in found}


def _faults(splits: dict[str, Path], folder: Path) -> list[str]:
    """Return what is wrong with the splits, or with classes that can be none."""
    if splits and "train" not in splits and "" not in splits:
        names = ", ".join(path.name for path in splits.values())
        return [f"{folder} holds {names} but no train: add it, or give a folder of class folders."]
    classes = [] if splits else _classes_in(folder)
    if classes and all(split_of(path.name) for path in classes):
        names = " and ".join(path.name for path in classes)
        return [
            f"{folder} holds {names} without class folders: put each class's photos into a folder "
            "of its own inside them."
        ]
    inside = [{label_of(path) for path in subfolders(one)} for one in classes]
    alike = len(inside) > 1 and len(inside[0]) > 1 and all(one == inside[0] for one in inside)
    if not alike or any(map(_holds_photos, classes)):
        return []
    names, inner = (", ".join(sorted(some)) for some in ({one.name for one in classes}, inside[0]))
    if all(map(split_of, inside[0])):
        return [
            f"{names} hold {inner} each: put class folders into split folders, not splits into "
            "class folders."
        ]
    return [
        f"{names} hold the same folders ({inner}), which are taken for the classes. If the outer "
        "ones are splits, name them train, validation and test; if not, give one of them, or "
        "move photos into the outer ones."
    ]
