"""The zip that a `.keras` file is: opened and read with one clear error for whatever is wrong."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fashion_keras.config import InputError

CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # By these names Keras looks for them.
MEMBER = "fashion.json"  # The card in plain sight inside the file.
# What a saved classifier consists of, and the most bytes of each; a configuration with a thousand
# layers has two million.
_LARGEST = {
    "metadata.json": 1_000_000,
    CONFIG: 50_000_000,
    WEIGHTS: 4_000_000_000,
    MEMBER: 50_000_000,
}
_ENCRYPTED = 1  # A bit of a member's flags.
# What the modules for zip raise for damaged files; `NotImplementedError` is a `RuntimeError`.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(RuntimeError, ValueError, OverflowError),
)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a file as a zip.

    Raises:
        InputError: If there is no such file, it is no zip, or it is found to be damaged while it
            is open.
    """
    try:
        if path.exists() and not path.is_file():  # Opening a pipe would wait for ever.
            raise InputError(f"{path} is not a .keras file but a folder or a device.")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"No model file {path}; `python -m fashion_keras.final` makes one."
        ) from error
    except _DAMAGED as error:
        raise InputError(f"{path} {_sort_of(path)}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from error


def content(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Return one member; its check sum is compared on the way.

    Raises:
        InputError: If there is no such member, or it is too large, encrypted or packed unusually.
    """
    if name not in archive.namelist():
        raise InputError(f"{path} is not a .keras file: it is a zip without {name}.")
    about = archive.getinfo(name)
    if about.file_size > _LARGEST[name]:
        raise InputError(f"{path} is refused: its {name} has over {_LARGEST[name]} bytes.")
    plain = about.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not plain or about.flag_bits & _ENCRYPTED:
        raise InputError(f"{path} is refused: its {name} is encrypted or packed unusually.")
    with archive.open(about) as member:
        return member.read(about.file_size)  # No more, even if there is more than it says.


def check_names(archive: zipfile.ZipFile, path: Path) -> None:
    """Make sure that a zip has the members of a classifier only, each once.

    Programs differ in which of two members they take, and Keras unpacks all that it finds.

    Raises:
        InputError: If there is another member, or one twice.
    """
    names = archive.namelist()
    for name in names:
        if name not in _LARGEST or names.count(name) > 1:
            sort = "twice" if name in _LARGEST else "which is no part of a classifier"
            raise InputError(f"{path} is refused: it holds {name!a:.99}, {sort}.")


def _sort_of(path: Path) -> str:
    """Say what a file is that cannot be read as a zip."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return "is cut off or damaged (copy or download it again)"
    if start == b"\x89HDF\r\n\x1a\n":
        return "is not a .keras file but HDF5, such as older versions of Keras wrote"
    return "is not a .keras file" + ("" if start else " but empty")
