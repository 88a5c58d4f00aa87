"""Copies or links photos into a folder for each category."""

import filecmp
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fashion_keras.artifacts import fingerprint
from fashion_keras.classifier import NONE
from fashion_keras.config import InputError
from fashion_keras.predict.rows import UNCERTAIN


def check_labels(labels: Iterable[str]) -> None:
    """Raise the error for categories that cannot be names of folders.

    Raises:
        InputError: If one of them is a path, or is hidden.
    """
    for label in labels:
        if "/" in label or "\\" in label or label[:1] in ("", "."):
            raise InputError(f"The category {label!r} cannot be the name of a folder.")
    for answer in (UNCERTAIN, NONE):
        if answer in labels:
            raise InputError(f"A category called {answer!r} would be mixed with that answer.")


def place(file: Path, folder: Path, link: bool) -> Path:
    """Copy or link one photo into a folder, unless it is there already; return its place there.

    Nothing there is ever replaced: a photo whose name is taken by another one gets a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    target = folder / file.name
    while os.path.lexists(target):
        if target.exists() and filecmp.cmp(file, target, shallow=False):
            return target
        number += 1
        target = folder / f"{file.stem} ({number}){file.suffix}"
    if link:
        target.symlink_to(file.resolve())
    else:
        # Short, however long the photo's name is; after a kill the same photo is written there.
        unfinished = folder / f".{fingerprint(name=target.name)}.unfinished"
        try:
            shutil.copyfile(file, unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        shutil.copystat(file, target)
    return target
