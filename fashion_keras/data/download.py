"""Downloads clothing-dataset-small, the data set that `--data clothing` stands for."""

import hashlib
import http.client
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from fashion_keras.artifacts import made_once
from fashion_keras.cli import progress
from fashion_keras.config import InputError

COMMIT = "11961516512414bf9f6c150a832cfd21b54a6b54"
ADDRESS = f"https://codeload.github.com/alexeygrigorev/clothing-dataset-small/zip/{COMMIT}"
# Of the photos, not of the archive: GitHub may pack the same files differently.
DIGEST = "c6aa7f631ab7f8e366112fde4141d59f60d7b7034c7f33724711740e32875af4"
_ADVICE = "Name a folder with a copy of the photos instead, or try `sample`."


def download_clothing(cache: Path) -> Path:
    """Download clothing-dataset-small once and return its folder.

    It is pinned to one commit, and used only if all photos have the expected bytes. CC0 1.0,
    https://github.com/alexeygrigorev/clothing-dataset-small.

    Raises:
        InputError: If it cannot be downloaded, or its content is not the expected one.
    """
    folder = cache / f"clothing-dataset-small-{COMMIT[:7]}"

    def make(unfinished: Path) -> None:
        with tempfile.TemporaryFile(dir=unfinished.parent) as archive:
            download(ADDRESS, archive)
            try:
                with zipfile.ZipFile(archive) as packed:
                    for member in packed.infolist():  # Without the one folder that holds all.
                        member.filename = member.filename.partition("/")[2]
                        if member.filename:
                            packed.extract(member, unfinished)
                whole = photos_digest(unfinished) == DIGEST
            except zipfile.BadZipFile:
                whole = False
        if not whole:
            raise InputError(
                f"The download from {ADDRESS} is damaged or was changed; it has been removed. "
                f"Run the command again. {_ADVICE}"
            )

    return made_once(folder, make)


def download(address: str, file: IO[bytes], timeout: float = 20) -> None:
    """Write what is at an address to a file; give up after `timeout` seconds without a byte.

    Raises:
        InputError: At the first failure, with the address and the reason.
    """
    received = 0
    try:
        with urllib.request.urlopen(address, timeout=timeout) as response:  # noqa: S310
            total = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(1 << 20), b"")
            for chunk in progress(chunks, total, f"{address} (bytes)", len):
                received += file.write(chunk)
        if received < total:
            raise OSError(f"the connection ended after {received} of {total} bytes")
    except HTTPError as error:
        error.close()
        raise InputError(f"Cannot download {address}: {error}. {_ADVICE}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"Cannot download {address}: {reason}. {_ADVICE}") from error


def photos_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of all photos in the folder's splits."""
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for file in sorted((folder / split).rglob("*.jpg")):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
