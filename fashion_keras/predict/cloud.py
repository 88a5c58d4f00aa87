"""Files in the stores of Amazon (`s3://`) and Google (`gs://`), through Arrow's file systems."""

import functools
import importlib
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fashion_keras.config import InputError
from fashion_keras.data.photo import PhotoError

_MOST_BYTES = 200_000_000  # Of one photo; as many as are read from a file on this computer.
_ADVICE = {
    "s3": "Credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
    "the machine's role.",
    "gs": "Credentials are taken from GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth "
    "application-default login` or the machine's account.",
}


def arrow(part: str = "") -> Any:
    """Return Arrow, or a part of it such as `fs`; it comes with the extra `ray`."""
    return importlib.import_module(f"pyarrow.{part}" if part else "pyarrow")


def is_cloud(name: str) -> bool:
    """Return whether a name is a place in a cloud store, not a path."""
    return name.partition("://")[0] in _ADVICE and "://" in name


def locate(name: str) -> tuple[Any, str]:
    """Return the file system of Arrow that a name belongs to, and its path there.

    Args:
        name: A path, or a place such as `s3://bucket/folder/hat.jpg`. What follows `://` is taken
            as it is: `%20` is no space.

    Raises:
        InputError: If no bucket is named, or there is no way to it.
    """
    fs = arrow("fs")
    if not is_cloud(name):
        return fs.LocalFileSystem(), str(Path(name).absolute())
    store, _, path = name.partition("://")
    bucket = path.partition("/")[0]
    if not bucket:
        raise InputError(f"Expected a place such as {store}://bucket/photos/. Received: {name}")
    return _connect(store, bucket), path.rstrip("/")


@functools.cache
def _connect(store: str, bucket: str) -> Any:
    fs = arrow("fs")
    # Google's client would ask again for 15 minutes, even if all it lacks is credentials.
    ending = "?retry_limit_seconds=10" if store == "gs" else ""
    try:
        return fs.FileSystem.from_uri(f"{store}://{bucket}{ending}")[0]
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(_no_way(f"{store}://{bucket}", error)) from error


def _no_way(name: str, error: Exception) -> str:
    return f"{name} cannot be reached: {_line(error)}. {_ADVICE[name.partition('://')[0]]}"


def _line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...").rstrip(".")


def expand_cloud(names: Iterable[str]) -> list[str]:
    """Replace each place that ends in `/` by the files below it, and try each bucket named.

    Args:
        names: Paths, addresses and places in cloud stores; only these last ones change.

    Returns:
        All names, each once; files below a place in the order of their names, hidden ones left
        out.

    Raises:
        InputError: If there is no way to a bucket, or nothing lies below a place.
    """
    found: dict[str, None] = {}
    tried: set[str] = set()
    for name in names:
        if not is_cloud(name):
            found[name] = None
        elif name.endswith("/"):
            found.update((below, None) for below in _below(name))
        else:
            # There may be millions of names: the first of each bucket shows if it can be reached.
            bucket = "/".join(name.split("/", 3)[:3])
            if bucket not in tried:
                _try(name)
                tried.add(bucket)
            found[name] = None
    return list(found)


def _try(name: str) -> None:
    filesystem, path = locate(name)
    try:
        filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(_no_way(name, error)) from error


def _below(name: str) -> list[str]:
    fs = arrow("fs")
    filesystem, path = locate(name)
    try:
        listed = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    except FileNotFoundError as error:
        raise InputError(f"There is no file below {name}") from error
    except OSError as error:
        raise InputError(_no_way(name, error)) from error
    below = (file.path for file in listed if file.type == fs.FileType.File)
    visible = [file.split("/") for file in below if "/." not in file.removeprefix(path)]
    if not visible:
        raise InputError(f"There is no file below {name}")
    # By their parts, as files of this computer are.
    return [f"{name.partition('://')[0]}://{'/'.join(parts)}" for parts in sorted(visible)]


def read_object(name: str) -> bytes:
    """Return the bytes of one photo in a cloud store.

    Raises:
        PhotoError: If it cannot be read.
    """
    try:
        filesystem, path = locate(name)
        with filesystem.open_input_file(path) as file:
            if file.size() > _MOST_BYTES:
                raise PhotoError(f"too large: {file.size()} bytes, at most {_MOST_BYTES} are read")
            return file.read()
    except FileNotFoundError as error:
        raise PhotoError("there is no such file (a folder ends in `/`)") from error
    except (InputError, OSError) as error:
        raise error if isinstance(error, PhotoError) else PhotoError(_line(error)) from error
