"""The state of a search as one whole file, from which what a kill left torn is put back.

Keras Tuner writes its many files in place and one after the other: a process that is killed, or a
power cut, can leave half of one, or files that do not fit together.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fashion_keras.files import whole_file

SNAPSHOT = "snapshot.json"
_WEIGHTS = "trial_*/*.h5"


def keep(folder: Path) -> None:
    """Keep the state in `folder` as it is between two trials."""
    for weights in folder.glob(_WEIGHTS):  # Trials to come go on from them.
        with weights.open("r+b") as file:
            os.fsync(file.fileno())
    texts = {str(file.relative_to(folder)): file.read_text("utf-8") for file in _files(folder)}
    with whole_file(folder / SNAPSHOT) as unfinished:
        unfinished.write_text(json.dumps(texts), encoding="utf-8")


def put_back(folder: Path) -> None:
    """Make the state in `folder` what it was when it was kept; if it never was, there is none."""
    try:
        texts = json.loads((folder / SNAPSHOT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, ValueError):
            print(f"{folder / SNAPSHOT} is damaged: the trials are run anew", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        return
    for trial in folder.glob("trial_*"):
        if f"{trial.name}/trial.json" not in texts:  # It was under way.
            shutil.rmtree(trial)
    for unfinished in folder.glob("trial_*/*/"):  # Of workers.
        shutil.rmtree(unfinished)
    for file in _files(folder):
        if str(file.relative_to(folder)) not in texts:
            file.unlink()
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files of the state but weights."""
    for pattern in ("oracle.json", "tuner*.json", "trials.csv", "trial_*/*.json"):
        yield from sorted(folder.glob(pattern))
