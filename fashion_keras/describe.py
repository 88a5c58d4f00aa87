"""Shows the metadata of a saved file: `python -m fashion_keras.describe MODEL`."""

import json
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.inspection import find_model, read_metadata


def lines_of(metadata: dict) -> list[str]:
    """Return metadata (see `inspection.read_metadata`) as lines for people, one per known value."""
    data, test, labels = metadata.get("data"), metadata.get("test"), metadata["labels"]
    validation = metadata.get("validation")
    crossed = metadata.get("cross_validation")
    lines = {
        "categories": f"{len(labels)}: {', '.join(labels)}",
        "photos": _size_line(metadata),
        "backbone": metadata.get("backbone"),
        "trained on": _data_line(data) if data else None,
        "validation": f"accuracy {100 * validation['accuracy']:.1f} %" if validation else None,
        "folds": f"{_test_line(crossed)}: {crossed['measured']}" if crossed else None,
        "test": _test_line(test) if test else None,
        "created": metadata.get("created"),
        "versions": _pairs(metadata.get("versions")),
        "licences": _pairs(metadata.get("licences")),
    }
    return [f"{name:<12}{_printable(text)}" for name, text in lines.items() if text]


def _printable(text: str) -> str:
    """Escape what could not be printed or would control the terminal: files come from anywhere."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _size_line(metadata: dict) -> str:
    size, trained = metadata["image_size"], metadata.get("training_image_size")
    other = f" (trained at {trained})" if trained not in (None, size) else ""
    return f"any size; the model resizes them to {size} pixels a side{other}"


def _data_line(data: dict) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in data["photos"].items())
    return f"{data['name']}: {counts} (fingerprint {data['fingerprint'][:16]})"


def _test_line(test: dict) -> str:
    low, high = test["accuracy_interval"]
    return (
        f"accuracy {100 * test['accuracy']:.1f} % ({test['correct']} of {test['photos']} photos, "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def _pairs(values: dict | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items())


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print the metadata."""
    options = cli.parser(
        "Show the metadata of a saved file: categories, size, backbone, the data it was trained\n"
        "on, its scores, versions and licences. The model is not loaded.",
        "fashion_keras.describe",
        "example:\n  python -m fashion_keras.describe results/final/fashion.keras --json",
    )
    options.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a .keras file of this project, or its export to .onnx",
    )
    options.add_argument(
        "--json", action="store_true", help="print all of it as JSON, with the whole fingerprint"
    )
    given = options.parse_args(arguments)
    given.model = find_model(given.model)
    metadata = read_metadata(given.model)
    try:
        text = json.dumps(metadata, indent=2) if given.json else "\n".join(lines_of(metadata))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"The metadata of {given.model} are not in the form that this project writes "
            f"({error!r:.99}); `--json` prints them as they are."
        ) from error
    print(text)


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
