"""A smaller data set made of links into a larger one."""

from collections import defaultdict
from pathlib import Path

from fashion_keras.data.prepare import Prepared


def link_share(prepared: Prepared, folder: Path, splits: tuple[str, ...], step: int) -> Path:
    """Link every `step`-th photo of each class of some splits into a new data set."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for photo in prepared.photos:
        if photo.split in splits:
            if seen[photo.split, photo.label] % step == 0:
                _link(prepared, photo.prepared, folder)
            seen[photo.split, photo.label] += 1
    return folder


def _link(prepared: Prepared, name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to((prepared.folder / name).resolve())
