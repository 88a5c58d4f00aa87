"""Finds the photos of a data set, and everything that is wrong with its folders."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from fashion_keras.artifacts import made_once
from fashion_keras.config import Config, InputError
from fashion_keras.data.download import download_clothing
from fashion_keras.data.files import find_files, label_of, shown, subfolders
from fashion_keras.data.layout import OTHER, PHOTO, SPLITS, find_layout, is_other
from fashion_keras.data.listed import Named, match_names, read_table
from fashion_keras.data.review import apply_review
from fashion_keras.data.sample import draw_sample

_ORDER = {"": 0} | {split: place for place, split in enumerate(SPLITS)}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_ADVICE = "put each class's photos into a folder of its own"


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
        notes: What was taken for what, in sentences.
        others: Files in folders named `other`: photos of none of the classes.
    """

    classes: dict[str, list[str]]
    photos: list[SourcePhoto]
    unused: list[str]
    faults: list[str]
    class_faults: list[str]
    notes: list[str]
    others: Sequence[SourcePhoto] = ()

    @property
    def labels(self) -> list[str]:
        """All classes, in their order."""
        return sorted(set().union(*self.classes.values()))

    def usable(self) -> Self:
        """Return it, or raise an `InputError` that names all its faults."""
        if self.faults or self.class_faults:
            raise InputError("\n".join([*self.faults, *self.class_faults]))
        return self


def scan(config: Config, cache: Path) -> Scan:
    """List the class folders and files of a data set, whatever is wrong with them.

    Hidden files and folders are left out.

    Args:
        config: `data` is `clothing`, `sample`, or a folder: either with `train`, perhaps
            `validation` and `test` (see `layout.split_of`) inside, each holding one folder per
            class, or holding the class folders itself. `split_seed` is the seed of the drawn
            sample. For `label_column` see `listed.read_table`, for `label_pattern`
            `listed.match_names`, for `review` `review.apply_review`.
        cache: Folder for the download and the drawn sample.

    Raises:
        InputError: If there is no such folder, two in it stand for the same split, or the table,
            the pattern or the review cannot be used.
    """
    found = _scan(config, cache)
    if config.review:
        found = _reviewed(found, Path(config.review).expanduser())
    if found.others:
        found.notes.append(
            f"{OTHER}: {len(found.others)} files of none of the classes, which set the threshold "
            "of `none of these` (to make them a class, name it differently)"
        )
    return found


def _reviewed(found: Scan, review: Path) -> Scan:
    every, note = apply_review([*found.photos, *found.others], review, found.labels)
    others = [one._replace(split=OTHER) for one in every if one.label == OTHER]
    first = found.photos[0].split if found.photos else ""
    photos = [one for one in every if one.label != OTHER]
    photos = [one._replace(split=first) if one.split == OTHER else one for one in photos]
    photos.sort(key=_order)
    before, after = ({(one.split, one.label) for one in each} for each in (found.photos, photos))
    used, kept = ({label for _, label in places} for places in (before, after))
    gone = used - kept
    classes = {
        split: sorted({*names} - gone | {label for place, label in after if place == split})
        for split, names in found.classes.items()
    }
    faults, missing = [*found.faults], [*found.class_faults]
    if len(kept) < 2 <= len(used):
        faults.append(f"Fewer than two classes are left after the review {review}.")
    for split, label in sorted(before - after):
        if label in kept and split == first:
            missing.append(f"The review leaves the class {label!r} no photo for training.")
    changed = {"classes": classes, "photos": photos, "faults": faults, "class_faults": missing}
    return found._replace(**changed, others=others, notes=[*found.notes, note])


def _scan(config: Config, cache: Path) -> Scan:
    data, pattern = config.data, config.label_pattern
    table = Path(data).suffix.lower() == ".csv" and Path(data).is_file()
    if pattern if table else config.label_column:
        option = "pattern" if table else "column"
        raise InputError(f"`--label-{option}` does not go together with `--data {data}`.")
    if table:
        file = Path(data).resolve()
        return _of_named(file.parent, read_table(file, config.label_column), cache)
    folder = _folder_of(data, cache.resolve(), config.split_seed)
    if pattern:
        return _of_named(folder, match_names(folder, pattern), cache)
    return _of_folders(folder, cache.resolve())


def _of_folders(folder: Path, cache: Path) -> Scan:
    """Return the photos whose labels are the names of their folders."""
    layout = find_layout(folder)
    splits = layout.splits
    classes = {
        split: [path for path in subfolders(parent) if path != cache and not is_other(path.name)]
        for split, parent in splits.items()
    }
    spelling = _spellings(classes)
    found = [(split, path) for split, paths in classes.items() for path in paths]
    labels = [spelling[label_of(path).casefold()] for _, path in found]
    photos = [
        SourcePhoto(file, file.relative_to(folder).as_posix(), split, label)
        for (split, path), label in zip(found, labels, strict=True)
        for file in find_files(path)
    ]
    photos.sort(key=_order)
    others = [
        SourcePhoto(file, file.relative_to(folder).as_posix(), OTHER, OTHER)
        for path in _other_folders(folder, splits.values())
        for file in find_files(path)
    ]
    return Scan(
        {
            split: sorted({spelling[label_of(path).casefold()] for path in paths})
            for split, paths in classes.items()
        },
        photos,
        _unused(folder, cache, [*photos, *others]),
        [*layout.faults, *([] if layout.faults else _layout_faults(folder, splits, classes))],
        list(_class_faults(splits, classes, photos)),
        [*layout.notes, *_same_class(classes)],
        others,
    )


def _order(photo: SourcePhoto) -> tuple[int, str, Path]:
    return _ORDER[photo.split], photo.label, photo.path


def _of_named(folder: Path, named: list[Named], cache: Path) -> Scan:
    """Return the photos whose labels do not come from folders."""
    found = [
        SourcePhoto(path, os.path.relpath(path, folder).replace(os.sep, "/"), split, shown(label))
        for path, split, label in named
    ]
    photos = [photo for photo in found if not is_other(photo.label)]
    others = [one._replace(split=OTHER, label=OTHER) for one in found if is_other(one.label)]
    if not photos:
        raise InputError(f"All photos are labelled {OTHER}: a classifier needs two classes.")
    photos.sort(key=_order)
    classes: dict[str, set[str]] = {}
    for photo in photos:
        classes.setdefault(photo.split, set()).add(photo.label)
    faults = [
        f"The label {label!r} cannot be the name of a folder: change it."
        for label in sorted({photo.label for photo in photos})
        if "/" in label or "\\" in label or label in (".", "..") or not label.isprintable()
    ]
    first = classes[photos[0].split]
    if len(first) == 1:
        faults.append(f"Only one class: {first.pop()}. A classifier needs at least two.")
    untrained = sorted(set().union(*classes.values()) - classes[photos[0].split])
    missing = [f"The class {label!r} has no photo for training." for label in untrained]
    counts = {split: sorted(labels) for split, labels in classes.items()}
    unused = _unused(folder, cache.resolve(), found)
    return Scan(counts, photos, unused, faults, missing, [], others)


def _other_folders(folder: Path, parents: Iterable[Path]) -> list[Path]:
    """Return the folders named `other` in the source's folder, and down to those of classes."""
    above = (path for parent in parents for path in (parent, *parent.parents))
    places = dict.fromkeys([folder, *(path for path in above if path.is_relative_to(folder))])
    return [path for place in places for path in subfolders(place) if is_other(path.name)]


def _unused(folder: Path, cache: Path, photos: list[SourcePhoto]) -> list[str]:
    """Return the photos of a folder that are in no class folder."""
    used = {os.path.realpath(photo.path) for photo in photos}
    ours = {cache} if cache != folder and cache.is_relative_to(folder) else set()
    files = [file for file in find_files(folder) if PHOTO.search(file.name)]
    others = [file for file in files if not ours.intersection(file.parents)]
    others = [file for file in others if os.path.realpath(file) not in used]
    return [shown(file.relative_to(folder).as_posix()) for file in others]


def _folder_of(data: str, cache: Path, seed: int) -> Path:
    if data == "clothing":
        return download_clothing(cache)
    if data == "sample":
        return made_once(cache / f"sample-{seed}", lambda folder: draw_sample(folder, seed=seed))
    folder = Path(data).expanduser()
    if not data or not folder.is_dir():
        what = f"{folder} is not a folder" if folder.is_file() else f"No folder {folder}"
        if folder.suffix.lower() in _ARCHIVES and folder.is_file():
            what = f"{folder} is an archive: unpack it, and give the folder"
        raise InputError(
            f"{what}. Expected `clothing`, `sample`, a folder of class folders or of splits, or a "
            "table of files and labels (.csv)."
        )
    return folder.resolve()


def _spellings(classes: Mapping[str, list[Path]]) -> dict[str, str]:
    """Return the label for each name in lower case: that of the first split that has it."""
    labels = [label_of(path) for paths in classes.values() for path in paths]
    return {label.casefold(): label for label in reversed(labels)}


def _same_class(classes: Mapping[str, list[Path]]) -> Iterator[str]:
    """Say which folders are taken for the same class though their names differ."""
    names: dict[str, dict[str, None]] = {}
    for path in (path for paths in classes.values() for path in paths):
        names.setdefault(label_of(path).casefold(), {})[shown(path.name)] = None
    for alike in names.values():
        if len(alike) > 1:
            yield f"{' and '.join(alike)} are taken for the same class"


def _layout_faults(
    folder: Path, splits: Mapping[str, Path], classes: Mapping[str, list[Path]]
) -> Iterator[str]:
    for path in (path for paths in classes.values() for path in paths):
        if not path.name.isprintable():
            yield f"The name of the class folder {str(path)!r} cannot be shown: rename it."
    first = next(iter(classes))
    labels = list(dict.fromkeys(label_of(path).casefold() for path in classes[first]))
    if not labels:
        yield f"No class folders with photos in {folder}: {_ADVICE}."
    elif len(labels) == 1:
        name = label_of(classes[first][0])
        yield f"Only one class in {splits[first]}: {name}. A classifier needs at least two."


def _class_faults(
    splits: Mapping[str, Path],
    classes: Mapping[str, list[Path]],
    photos: list[SourcePhoto],
) -> Iterator[str]:
    used = {(photo.split, photo.label.casefold()) for photo in photos}
    train = {label_of(path).casefold() for path in classes.get(SPLITS[0], [])}
    for split, path in ((split, path) for split, paths in classes.items() for path in paths):
        label = label_of(path).casefold()
        if (split, label) not in used:
            yield f"The class folder {path} is empty: add photos or remove it."
        elif train and label not in train:
            yield (
                f"The class {path.name!r} is in {split} but not in train: add photos of it to "
                f"{splits[SPLITS[0]] / path.name} or remove {path}."
            )
