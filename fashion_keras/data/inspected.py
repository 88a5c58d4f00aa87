"""Inspects every photo of a source once, also if it is stopped and begun again."""

import base64
import collections
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from fashion_keras.cli import progress
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.data.scan import SourcePhoto
from fashion_keras.data.split import TURNS, Looks, looks_of
from fashion_keras.files import sha256_of
from fashion_keras.stopwatch import waited

JOURNAL = "inspected-1"  # Raise the number when journals of older versions must not be used.
REWRITTEN = "rewritten"
_AHEAD = 256  # Photos that wait for a thread; more would have to be called off when it is stopped.


class Inspected(NamedTuple):
    """What is known of one photo.

    Attributes:
        photo: The file.
        reason: Why it cannot be used; empty if it can be read.
        sha256: Of the bytes of the file, or of the rewritten one.
        looks: None where the source has splits, and nothing is compared.
        rewritten: The photo as PNG, where the file itself cannot be used.
    """

    photo: SourcePhoto
    reason: str
    sha256: str
    looks: Looks | None
    rewritten: Path | None


def inspect_all(sources: Sequence[SourcePhoto], work: Path) -> list[Inspected]:
    """Inspect photos, and rewrite those that are not clean.

    Each photo is noted in a journal when it is done, so a later call with the same folder goes on
    where this one was stopped. Photos that could not be read are read again then: their owner may
    have mended that.

    Args:
        sources: The photos; always the same ones for a folder.
        work: Folder for the journal and rewritten photos.

    Returns:
        What is known of each photo, in the order of `sources`.
    """
    (work / REWRITTEN).mkdir(parents=True, exist_ok=True)
    targets = [work / REWRITTEN / f"{number:07d}.png" for number in range(len(sources))]
    # Pillow decodes outside Python's lock, so threads use all cores.
    with _opened(work / JOURNAL) as journal, ThreadPoolExecutor() as pool:
        try:
            found = _noted(journal, sources, targets)
            left = _not_usable(found, pool) + list(range(len(found), len(sources)))
            if found:
                done = len(sources) - len(left)
                print(f"checking photos: going on after {done} of {len(sources)}", flush=True)
            photos = [(sources[number], targets[number]) for number in left]
            results = waited("decode", _in_order(pool, _inspect, photos))
            shown = progress(results, len(left), "checking photos")
            for number, one in zip(left, shown, strict=True):
                if number < len(found):
                    found[number] = one
                else:
                    found.append(one)
                    _note(journal, one)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return found


def _opened(file: Path) -> BinaryIO:
    """Open a file to read and write, where it is or new."""
    file.touch()
    return file.open("r+b")


def _not_usable(found: Sequence[Inspected], pool: ThreadPoolExecutor) -> list[int]:
    """Return the numbers of photos to inspect again: unreadable, or not whole as rewritten."""
    rewritten = [(number, one) for number, one in enumerate(found) if one.rewritten]
    whole = _in_order(pool, _is_whole, ([one] for _, one in rewritten))
    if rewritten:
        whole = progress(whole, len(rewritten), "checking rewritten photos")
    lost = {number for (number, _), good in zip(rewritten, whole, strict=True) if not good}
    return [number for number, one in enumerate(found) if one.reason or number in lost]


def _is_whole(one: Inspected) -> bool:
    # A power cut may lose what was written last.
    file = one.rewritten
    return file is not None and file.is_file() and sha256_of(file) == one.sha256


def _in_order(
    pool: ThreadPoolExecutor, task: Callable[..., Any], given: Iterable[Sequence[Any]]
) -> Iterator[Any]:
    """Yield the result of a task for each of the arguments given, a few of them ahead."""
    waiting: collections.deque[Future[Any]] = collections.deque()
    for arguments in given:
        waiting.append(pool.submit(task, *arguments))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _inspect(photo: SourcePhoto, target: Path) -> Inspected:
    try:
        pixels, clean = read_photo(photo.path)
    except PhotoError as error:
        return Inspected(photo, str(error), "", None, None)
    if not clean:
        Image.fromarray(pixels).save(target, compress_level=1)
    sha256 = sha256_of(photo.path if clean else target)
    looks = None if photo.split else looks_of(Image.fromarray(pixels))
    return Inspected(photo, "", sha256, looks, None if clean else target)


def _note(journal: BinaryIO, one: Inspected) -> None:
    """Append a line for a photo, with a checksum in front."""
    looks = one.looks and base64.b64encode(b"".join(map(np.ndarray.tobytes, one.looks))).decode()
    row = [one.reason, one.sha256, looks, bool(one.rewritten)]
    content = json.dumps(row).encode() + b"\n"
    journal.write(b"%08x %b" % (zlib.crc32(content), content))
    journal.flush()


def _noted(
    journal: BinaryIO, sources: Sequence[SourcePhoto], targets: Sequence[Path]
) -> list[Inspected]:
    """Return what the whole lines of the journal tell of the first photos; cut off the rest."""
    found, size = [], 0
    for line, photo, target in zip(journal, sources, targets, strict=False):
        checksum, _, content = line.partition(b" ")
        # A kill leaves half a line; a power cut may leave zeros, also before whole lines.
        if checksum != b"%08x" % zlib.crc32(content):
            break
        reason, sha256, looks, rewritten = json.loads(content)
        looks = _looks_in(looks) if looks else None
        found.append(Inspected(photo, reason, sha256, looks, target if rewritten else None))
        size += len(line)
    journal.seek(size)
    journal.truncate()
    return found


def _looks_in(text: str) -> Looks:
    content, turns = base64.b64decode(text), len(TURNS)
    hashes = np.frombuffer(content, "uint64", turns)
    return Looks(hashes, np.frombuffer(content, "uint8", offset=hashes.nbytes).reshape(turns, -1))
