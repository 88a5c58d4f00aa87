"""Downloads clothing-dataset-small, the data set that `--data clothing` stands for."""

import hashlib
import http.client
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

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

    It is pinned to one commit, and used only if all photos have the expected bytes. An
    interrupted download goes on where it stopped. CC0 1.0,
    https://github.com/alexeygrigorev/clothing-dataset-small.

    Raises:
        InputError: If it cannot be downloaded, or its content is not the expected one.
    """
    folder = cache / f"clothing-dataset-small-{COMMIT[:7]}"
    archive = folder.with_name(f"{folder.name}.zip.part")

    def make(unfinished: Path) -> None:
        download(ADDRESS, archive)
        if not _unpack(archive, unfinished) or photos_digest(unfinished) != DIGEST:
            archive.unlink()
            raise InputError(
                f"The download from {ADDRESS} is damaged or was changed; it has been removed. "
                f"Run the command again. {_ADVICE}"
            )

    made_once(folder, make)
    archive.unlink(missing_ok=True)
    return folder


def download(address: str, file: Path, timeout: float = 20) -> None:
    """Download `address` to `file`, continuing after the bytes that `file` already holds.

    Args:
        address: What to download.
        file: Where it is written.
        timeout: Seconds without a single byte after which the download is given up.

    Raises:
        InputError: At the first failure, with the address and the reason.
    """
    held = file.stat().st_size if file.exists() else 0
    headers = {"Range": f"bytes={held}-"} if held else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 -- not from the user.
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            total = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(1 << 20), b"")
            received = 0
            with file.open("ab" if response.status == 206 else "wb") as target:
                for chunk in progress(chunks, total, f"{address} (bytes)", len):
                    received += target.write(chunk)
        if received < total:
            raise OSError(f"the connection ended after {received} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # Nothing is left to send: the file is complete.
            raise InputError(f"Cannot download {address}: {error}. {_ADVICE}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"Cannot download {address}: {reason}. {_ADVICE}") from error


def _unpack(archive: Path, folder: Path) -> bool:
    """Unpack a zip archive, without the one folder that holds all; return whether it is whole."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                member.filename = member.filename.partition("/")[2]
                if member.filename:
                    packed.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return False
    return True


def photos_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of all photos in the folder's splits."""
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for file in sorted((folder / split).rglob("*.jpg")):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
