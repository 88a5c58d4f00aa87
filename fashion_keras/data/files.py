"""Lists files and folders; what systems and this project put among photos is passed over."""

import os
import unicodedata
from pathlib import Path

# Of macOS, Windows, Synology, QNAP and Python; what begins with a dot is passed over as well.
_JUNK = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
}
# What shows that a folder holds results of this project, or a virtual environment.
_OUTPUTS = (
    *("search/best_config.json", "search/report.html", "final/training.json", "check/check.json"),
    *("evaluation/metrics.json", "report/metrics.json", "fashion.keras", "pyvenv.cfg"),
    *(".search.lock", ".final.lock", ".check.lock", ".evaluation.lock", ".report.lock"),
)


def shown(name: str) -> str:
    """Return the name of a file as it can be printed and is written by `prepare`."""
    return name.encode("utf-8", errors="backslashreplace").decode()


def label_of(folder: Path) -> str:
    """Return the name of the class of a folder: macOS writes accents in another form of Unicode."""
    return unicodedata.normalize("NFC", shown(folder.name))


def find_files(folder: Path) -> list[Path]:
    """List all files in a folder and below, by path, but what `subfolders` leaves out.

    Folders that cannot be opened are among them, so that reading them gives the reason. Links to
    folders are followed; each folder is visited once.
    """
    found: list[Path] = []
    visited: set[str] = set()
    failed = lambda error: found.append(Path(error.filename))  # noqa: E731
    for parent, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        inside = [name for name in sorted(folders) if _is_ours(name)]
        folders[:] = [name for name in inside if _is_no_output(Path(parent, name))]
        found += [Path(parent, name) for name in files if _is_ours(name)]
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, by name: paths ignore case on Windows.

    Hidden ones, those of the system, and results of this project are left out.
    """
    folders = (path for path in folder.iterdir() if path.is_dir() and _is_ours(path.name))
    return sorted(filter(_is_no_output, folders), key=lambda path: path.name)


def _is_ours(name: str) -> bool:
    return name[0] != "." and name.lower() not in _JUNK


def _is_no_output(folder: Path) -> bool:
    return not any((folder / name).exists() for name in _OUTPUTS)
