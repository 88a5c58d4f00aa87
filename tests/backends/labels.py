"""Prints the labels of a `.keras` file as JSON, read with the standard library alone.

Started with `python -I -S`, which hides all installed packages. `member` is what `fashion.json`
says (null if Keras has saved the file again and so dropped it), `layer` what the last layer's name
says.
"""

import base64
import json
import sys
import zipfile

PREFIX = "facts_"


def member_labels(file: zipfile.ZipFile) -> list[str] | None:
    """Return the labels in plain sight."""
    if "fashion.json" not in file.namelist():
        return None
    return json.loads(file.read("fashion.json"))["labels"]


def layer_labels(file: zipfile.ZipFile) -> list[str] | None:
    """Return the labels in the name of the last layer."""
    layers = json.loads(file.read("config.json"))["config"]["layers"]
    name = layers[-1]["config"]["name"]
    if not name.startswith(PREFIX):
        return None
    packed = name.removeprefix(PREFIX)
    return json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))["labels"]


def main() -> None:
    """Read the file named on the command line."""
    with zipfile.ZipFile(sys.argv[1]) as file:
        print(json.dumps({"member": member_labels(file), "layer": layer_labels(file)}))


if __name__ == "__main__":
    main()
