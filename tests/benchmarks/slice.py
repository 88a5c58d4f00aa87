"""A smaller data set made of links into a larger one, for benchmarks and tests."""

from collections import defaultdict
from pathlib import Path

from fashion_keras.prepare import Prepared


def link_slice(prepared: Prepared, folder: Path, photos_per_class: dict[str, int]) -> Path:
    """Link the first photos of each class of some splits into a new data set.

    Args:
        prepared: The data set to take photos from.
        folder: Where to make the new one.
        photos_per_class: Number of photos of each class, by split.

    Returns:
        `folder`.
    """
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for photo in prepared.photos:
        place = (photo.split, photo.label)
        if taken[place] < photos_per_class.get(photo.split, 0):
            _link(prepared, photo.prepared, folder)
            taken[place] += 1
    return folder


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
