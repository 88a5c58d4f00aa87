"""Shows what a saved file tells of itself: `python -m fashion_keras.describe MODEL`."""

import json
from pathlib import Path

from fashion_keras import cli
from fashion_keras.config import InputError
from fashion_keras.inspection import read_card

NOT_STATED = "not stated"


def lines_of(card: dict) -> list[str]:
    """Return a card (see `inspection.read_card`) as lines for people; what it lacks is left out."""
    data, test = card.get("data", {}), card.get("test")
    told = {
        "categories": f"{len(card['labels'])}: {', '.join(card['labels'])}",
        "photos": f"any size; the model resizes them to {card['image_size']} pixels a side",
        "backbone": card.get("backbone"),
        "trained on": _data_line(data) if data else None,
        "validation": _percent(card.get("validation")),
        "test": _test_line(test) if test else None,
        "created": card.get("created"),
        "versions": _pairs(card.get("versions")),
        "licences": _pairs(card.get("licences")),
    }
    return [f"{name:<12}{_printable(text)}" for name, text in told.items() if text]


def _printable(text: str) -> str:
    """Escape what could not be printed, or would steer the terminal: anyone may write a card."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _data_line(data: dict) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in data["photos"].items())
    return f"{data['name']}: {counts} (fingerprint {data['fingerprint'][:16]})"


def _percent(scores: dict | None) -> str | None:
    return f"accuracy {100 * scores['accuracy']:.1f} %" if scores else None


def _test_line(test: dict) -> str:
    low, high = test["accuracy_interval"]
    return (
        f"accuracy {100 * test['accuracy']:.1f} % ({test['correct']} of {test['photos']} photos, "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def _pairs(facts: dict | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (facts or {}).items())


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, print the card."""
    options = cli.parser(
        "Show what a saved file tells of itself: categories, size, backbone, the data it was\n"
        "trained on, its scores, versions and licences. The model is not loaded.",
        "fashion_keras.describe",
        "example:\n  python -m fashion_keras.describe results/final/fashion.keras --json",
    )
    options.add_argument("model", type=Path, metavar="MODEL", help="a .keras file of this project")
    options.add_argument(
        "--json", action="store_true", help="print all of it as JSON, with the whole fingerprint"
    )
    given = options.parse_args(arguments)
    card = read_card(given.model)
    print(json.dumps(card, indent=2) if given.json else "\n".join(_lines(card, given.model)))


def _lines(card: dict, file: Path) -> list[str]:
    try:
        return lines_of(card)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"The card of {file} is not of the form that this project writes ({error!r:.99}); "
            "`--json` prints it as it is."
        ) from error


if __name__ == "__main__":
    cli.run(main, cli.BEGINS_ANEW)
