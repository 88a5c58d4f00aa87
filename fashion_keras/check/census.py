"""Walks a data set's folders and says everything that is wrong with them, not the first thing."""

from pathlib import Path
from typing import NamedTuple

from fashion_keras.check.findings import Finding
from fashion_keras.data.scan import (
    SPLITS,
    SourcePhoto,
    files_below,
    folder_of,
    split_of,
    subfolders,
)

_NEEDED = SPLITS[:2]  # Those without which a source with split folders cannot be used.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"),
)


class Census(NamedTuple):
    """What lies in a data set's folders; no photo has been opened.

    Attributes:
        folder: Where the data set lies.
        classes: Names of the class folders as they can be printed, empty ones too, of each split;
            the split is empty where the source has none.
        photos: Every file in a class folder.
        unused: Photos that lie where nothing looks for them, below `folder`.
        findings: What is wrong with the folders themselves.
    """

    folder: Path
    classes: dict[str, list[str]]
    photos: list[SourcePhoto]
    unused: list[str]
    findings: list[Finding]


def take_census(data: str, cache: Path, seed: int = 1) -> Census:
    """List class folders and files of a data set, whatever is wrong with them.

    Args:
        data: See `source.find_photos`.
        cache: Folder for the download and the drawn sample.
        seed: Seed of the drawn sample.

    Raises:
        InputError: If there is no such folder, or it cannot be downloaded.
    """
    folder = folder_of(data, cache.resolve(), seed)
    by_split = _split_folders(folder)
    used = [path for paths in by_split.values() for path in paths]
    photos, classes = [], {}
    for split, paths in by_split.items():
        class_folders = [path for parent in paths for path in subfolders(parent)]
        classes[split] = sorted({shown(path.name) for path in class_folders})
        for path in class_folders:
            photos += [
                SourcePhoto(file, file.relative_to(folder).as_posix(), split, shown(path.name))
                for file in files_below(path)
            ]
    unused = _unused(folder, used)
    findings = [*_layout_findings(folder, by_split, classes), *_unused_findings(unused)]
    return Census(folder, classes, sorted(photos, key=_place), unused, findings)


def shown(name: str) -> str:
    """Return a file's name as it can be printed and is written by `prepare`."""
    return name.encode("utf-8", errors="backslashreplace").decode()


def _place(photo: SourcePhoto) -> tuple[int, str, str]:
    return (SPLITS.index(photo.split) if photo.split else 0, photo.label, photo.name)


def _split_folders(folder: Path) -> dict[str, list[Path]]:
    """Return the folders of each split; with no split folder the folder itself, for no split."""
    found: dict[str, list[Path]] = {}
    for path in subfolders(folder):
        split = split_of(path.name)
        if split in SPLITS and any(subfolders(path)):
            found.setdefault(split, []).append(path)
    if not found:
        return {"": [folder]}
    return {split: found[split] for split in SPLITS if split in found}


def _unused(folder: Path, used: list[Path]) -> list[str]:
    """List photos beside the class folders, beside the split folders, and in other folders."""
    found = [file for parent in {folder, *used} for file in parent.iterdir() if file.is_file()]
    if used != [folder]:
        others = (path for path in subfolders(folder) if path not in used)
        found += [file for path in others for file in files_below(path)]
    names = (file.relative_to(folder).as_posix() for file in found if file.name[0] != ".")
    return sorted(shown(name) for name in names if Path(name).suffix.lower() in _SUFFIXES)


def _unused_findings(unused: list[str]) -> list[Finding]:
    if not unused:
        return []
    return [
        Finding(
            "unused",
            f"photos that lie in no class folder and will not be used: {len(unused)}",
            "Move them into the folder of their class, or away.",
            unused,
        )
    ]


def _layout_findings(
    folder: Path, by_split: dict[str, list[Path]], classes: dict[str, list[str]]
) -> list[Finding]:
    wrong = [
        f"two folders for {split}: {' and '.join(path.name for path in paths)}"
        for split, paths in by_split.items()
        if len(paths) > 1
    ]
    if "" not in by_split:
        wrong += [f"no folder {split}" for split in _NEEDED if split not in by_split]
    names = classes.get("", classes.get(SPLITS[0], []))
    if "" in by_split and {split_of(name) for name in names} <= set(SPLITS):
        wrong.append("no class folders" + (f" in {' or '.join(names)}" if names else ""))
    elif len(names) == 1:
        wrong.append(f"only one class: {names[0]}")
    parents = (path for paths in by_split.values() for path in paths)
    every = sorted({path.name for parent in parents for path in subfolders(parent)})
    wrong += [
        f"a class folder whose name cannot be shown: {name!r}" for name in every if _odd(name)
    ]
    if not wrong:
        return []
    advice = (
        "Put each class's photos into a folder of its own: either all beside each other, or inside "
        "the folders train and validation (and one for the last measurement)."
    )
    return [Finding("layout", f"training refuses {shown(str(folder))}", advice, wrong)]


def _odd(name: str) -> bool:
    return not name.isprintable()
