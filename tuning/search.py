"""Searches learning rate, inner size, droprate and augmented copies: `python -m tuning.search`."""

import argparse

from fashion_keras import cli
from fashion_keras.config import Config, InputError, names
from fashion_keras.report import tensor_board

BASE = Config(image_size=150)
_NOT_HERE = ("learning_rate", "inner_size", "droprate", "epochs")  # They are searched or planned.
_FIELDS = [name for name in names() if name not in _NOT_HERE and not name.startswith("fine_tun")]
_DESCRIPTION = """\
Find the best learning rate, inner size, droprate and use of augmented copies with
Hyperband. Every photo goes through the backbone once; trials train only the small head.
Finished trials are kept in the folder of --cache: the same command continues after them.

Trials run in several processes on this machine, or on the Ray cluster that $RAY_ADDRESS
names (see docs/cluster.md). However many there are, trials and results are the same."""
_EXAMPLES = """\
examples:
  python -m tuning.search --data photos/ && python -m fashion_keras.final
  python -m tuning.search --data photos/ --workers 4"""


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(_DESCRIPTION, "tuning.search", _EXAMPLES)
    cli.add_config_options(parser, _FIELDS, BASE)
    for option, default, text in (
        ("--max-epochs", 30, "epochs of the longest trials"),
        ("--factor", 3, "one in this many trials is trained longer, 2 or more"),
    ):
        help_text = f"{text} (default: {default})"
        parser.add_argument(option, type=int, default=default, metavar="INT", help=help_text)
    cli.add_folder_options(parser)
    cli.add_workers_option(parser, search=True)
    cli.add_deterministic_option(parser)
    tensor_board.add_option(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, and print where the winner is and what to run next."""
    parser = options()
    given = parser.parse_args(arguments)
    plan = (given.max_epochs, given.factor)
    for option, value, minimum in zip(("max-epochs", "factor"), plan, (1, 2), strict=True):
        if value < minimum:
            raise InputError(f"`--{option}` must be {minimum} or more. Received: {value}")
    base = cli.chosen(given, BASE)
    folder = given.results / "search"
    from fashion_keras.backend import enable_determinism
    from tuning.hyperband import search

    if given.deterministic:
        enable_determinism()
    search(base, *plan, folder, given.cache, given.workers, given.tensorboard)
    command = cli.next_command("fashion_keras.final", parser, given)
    print(f"winner: {folder / 'best_config.json'}; now run: {command}")


if __name__ == "__main__":
    cli.run(main)
