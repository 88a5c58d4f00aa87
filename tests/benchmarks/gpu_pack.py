"""What `gpu` needs beside this repository, in pieces that are small enough to be sent."""

import importlib.metadata
import io
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fashion_keras import cli
from fashion_keras.artifacts import fingerprint, made_once, sha256_of
from fashion_keras.config import Config, InputError
from fashion_keras.data.photo import read_photo

PIECE = 60_000_000  # Bytes.
SIDE = 347  # Of a packed photo, in pixels: 1.16 times 299.
PHOTOS, WHEELS, WEIGHTS = "photos", "wheels", ".weights.h5"  # The name is the backbone's.
# What Keras and this project import, and a machine with JAX and Torch may lack.
PACKAGES = (
    *("keras", "absl-py", "h5py", "ml-dtypes", "namex", "optree", "packaging", "rich"),
    *("markdown-it-py", "mdurl", "pygments", "typing-extensions", "jinja2", "markupsafe", "tqdm"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64")


def pack(config: Config, cache: Path, folder: Path, python: str, packages: Sequence[str]) -> None:
    """Write the pieces of a pack into a folder, in place of those of an earlier one."""
    from fashion_keras.model import copied
    from fashion_keras.training import prepare_datasets

    if config.weights == "released" or config.weights.endswith(".keras"):
        raise InputError("A pack holds the weights of a backbone, not those of a saved model.")
    prepared, backbone, _ = prepare_datasets(config, cache)
    photos = [*prepared.split("train"), *prepared.split("validation")]  # Never those of the test.
    with tempfile.TemporaryDirectory() as name:
        archive, weights = Path(name, "pack.zip"), Path(name, config.backbone + WEIGHTS)
        copied(backbone, "float16").save_weights(weights)
        with zipfile.ZipFile(archive, "w") as target:
            target.write(weights, weights.name)
            for wheel in _wheels(Path(name, WHEELS), python, packages):
                target.write(wheel, f"{WHEELS}/{wheel.name}")
            for photo in cli.progress(photos, len(photos), "packing photos"):
                place = f"{PHOTOS}/{Path(photo.prepared).with_suffix('.jpg').as_posix()}"
                target.writestr(place, _jpeg(prepared.folder / photo.prepared))
        _split(archive, folder)


def _jpeg(file: Path) -> bytes:
    target = io.BytesIO()
    small = Image.fromarray(read_photo(file).pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    small.save(target, "JPEG", quality=85)
    return target.getvalue()


def _wheels(folder: Path, python: str, packages: Sequence[str]) -> list[Path]:
    """Download wheels for a version of Python on 64-bit Linux; Keras in the version used here."""
    if not packages:
        return []
    same = {"keras": f"keras=={importlib.metadata.version('keras')}"}
    kinds = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python}"]
    kinds += [f"--platform={platform}" for platform in PLATFORMS]
    words = [sys.executable, "-m", "pip", "download", *kinds, f"--dest={folder}"]
    if subprocess.run([*words, *(same.get(name, name) for name in packages)]).returncode:
        raise InputError("pip cannot download the wheels (see above). Choose them: `--packages`.")
    return sorted(folder.glob("*.whl"))


def _split(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("piece-*-of-*"):
        old.unlink()
    count = math.ceil(archive.stat().st_size / PIECE)
    with archive.open("rb") as content:
        for number in range(1, count + 1):
            (folder / f"piece-{number}-of-{count}").write_bytes(content.read(PIECE))
    print(f"{count} pieces, {archive.stat().st_size / 1e6:.0f} MB in all, are in {folder}")


def unpack(folder: Path, cache: Path) -> dict[str, str]:
    """Put the pieces of a pack together, and packages that are not installed on the path.

    Returns:
        The fields of `Config` that what was packed decides.

    Raises:
        InputError: If pieces are missing or damaged.
    """
    pieces = sorted(folder.glob("piece-*-of-*"), key=lambda file: int(file.name.split("-")[1]))
    expected = pieces[0].name.split("-")[3] if pieces else "1 or more"
    if str(len(pieces)) != expected:
        raise InputError(
            f"Expected {expected} pieces of a pack in {folder}. Received: {len(pieces)}"
        )
    key = fingerprint(pieces=[sha256_of(piece) for piece in pieces])
    place = made_once(cache / f"pack-{key}", lambda unfinished: _join(pieces, unfinished))
    sys.path.append(str(place / "packages"))
    (weights,) = place.glob(f"*{WEIGHTS}")
    backbone = weights.name.removesuffix(WEIGHTS)
    return {"data": str(place / PHOTOS), "weights": str(weights), "backbone": backbone}


def _join(pieces: Sequence[Path], place: Path) -> None:
    with tempfile.TemporaryFile() as archive:
        for piece in pieces:
            archive.write(piece.read_bytes())
        try:
            zipfile.ZipFile(archive).extractall(place)
        except zipfile.BadZipFile as error:
            raise InputError(
                f"The pieces in {pieces[0].parent} are damaged: {error}. Copy them again."
            ) from error
    for wheel in place.glob(f"{WHEELS}/*.whl"):
        try:
            importlib.metadata.version(wheel.name.split("-")[0])
        except importlib.metadata.PackageNotFoundError:
            zipfile.ZipFile(wheel).extractall(place / "packages")
