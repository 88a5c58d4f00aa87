"""Puts the files of an export in the places of an earlier one: all of them, or none."""

import os
import re
import shutil
from pathlib import Path

from fashion_keras.files import bring_to_disk

NEW, EARLIER = "new", "earlier"  # Folders in the one that an export is made in.


def replace_all(work: Path, folder: Path) -> None:
    """Give what lies in `work/new` its final names in a folder, at no moment half of it.

    If anything fails, the earlier files are there again; after a kill `put_back` brings them. (One
    file and its JSON are replaced one after the other; what is loaded is whole at any time.)

    Args:
        work: Where the export was made, on the same disk as `folder`.
        folder: Where it belongs.
    """
    new, earlier = work / NEW, work / EARLIER
    for path in new.rglob("*"):
        if path.is_file():
            bring_to_disk(path)
    moves = _moves(new, folder, earlier)
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            done.append((source, target))
            os.replace(source, target)
    except BaseException:
        for source, target in reversed(done):
            if not source.exists():  # The last one may not have been moved.
                os.replace(target, source)
        raise
    bring_to_disk(folder)


def _moves(new: Path, folder: Path, earlier: Path) -> list[tuple[Path, Path]]:
    names = sorted(path.name for path in new.iterdir())  # The JSON comes last.
    moves = [(new / name, folder / name) for name in names]
    if len(names) == 2 and (new / names[0]).is_file():
        return moves
    # Several files, or a folder, cannot be replaced at once: the whole earlier export goes aside
    # first, so that nothing can ever load a mixture of both.
    earlier.mkdir()
    aside = [(folder / name, earlier / name) for name in names if (folder / name).exists()]
    return [*aside, *moves]


def put_back(target: Path) -> None:
    """Undo what a killed export to `target` left: the earlier export comes back, the rest goes.

    The caller holds the lock of the target.
    """
    # As `tempfile` names them; what a user or another target has there has other names.
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}")
    for work in target.parent.iterdir():
        if not ours.fullmatch(work.name) or not (work / NEW).is_dir():
            continue
        unfinished = any((work / NEW).iterdir())
        for path in (work / EARLIER).glob("*") if unfinished else ():
            place = target.with_name(path.name)
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(path, place)
            print(f"{place} is put back: a later export of it was interrupted", flush=True)
        shutil.rmtree(work)
