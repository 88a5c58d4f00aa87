"""The options of the search command."""

import argparse
import os

from fashion_keras import cli, stopwatch
from fashion_keras.config import Config, InputError
from fashion_keras.report import tensor_board
from tuning.line import CHILD, LOOPBACK, Address, address

BASE = Config(image_size=150)
_KNOBS = [
    "data",
    "weights",
    "image_size",
    "augmented_copies",
    "rotation",
    "zoom",
    "label_smoothing",
    "ema_epochs",
    "patience",
    "precision",
    "batch_size",
    "seed",
]
_DESCRIPTION = """\
Find the best learning rate, inner size, droprate and use of augmented copies with
Hyperband. Every photo goes through the backbone once; trials train only the small head.
An interrupted search goes on when the same command is given again.

With --workers N trials run in N processes on this computer. On many computers one is given
the command with --chief, and the others the same command with --worker; the folder of --cache
is shared by all. The trials and their results are the same as without workers. A worker may
die, be cut off, be added or come back at any time: what it was at is run again.
The chief's port has no password: whoever reaches it can spoil the search. It is this computer's
own unless an address is given; give one that only the workers reach."""
_EXAMPLES = """\
examples:
  python -m tuning.search --data photos/ && python -m fashion_keras.final
  python -m tuning.search --data photos/ --workers 4
  python -m tuning.search --data /shared/photos --cache /shared/cache --chief 10.0.0.1:7000
  python -m tuning.search --data /shared/photos --cache /shared/cache --worker 10.0.0.1:7000"""


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(_DESCRIPTION, "tuning.search", _EXAMPLES)
    cli.add_config_options(parser, _KNOBS, BASE)
    parser.add_argument(
        "--max-epochs", type=int, default=30, metavar="INT",
        help="epochs of the longest trials (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--factor", type=int, default=3, metavar="INT",
        help="one in so many trials is trained on, 2 or more (default: 3)",
    )  # fmt: skip
    cli.add_folder_options(parser)
    tensor_board.add_option(parser)
    stopwatch.add_option(parser)
    _add_worker_options(parser)
    return parser


def _add_worker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=cli.count, default=1, metavar="INT",
        help="processes that run trials on this computer: one graphics card each, if there are "
        "any, and the cores shared out (default: 1, the command itself)",
    )  # fmt: skip
    parser.add_argument(
        "--chief", type=address, metavar="HOST:PORT",
        help="hand trials out to workers on other computers, at this address of this one; with "
        f"PORT alone at {LOOPBACK}, to workers on this computer",
    )  # fmt: skip
    parser.add_argument(
        "--worker", type=address, metavar="HOST:PORT",
        help="run trials for the chief at this address, until there are none left; the other "
        "options and the folder of --cache must be the chief's",
    )  # fmt: skip


def check(given: argparse.Namespace) -> None:
    """Refuse what cannot be.

    Raises:
        InputError: If a number is too small, or two options exclude each other.
    """
    for name, least in (("factor", 2), ("max-epochs", 1)):
        value = getattr(given, name.replace("-", "_"))
        if value < least:
            raise InputError(f"`--{name}` must be {least} or more. Received: {value}")
    asked = {"--workers": given.workers > 1, "--chief": given.chief, "--worker": given.worker}
    told = [name for name, is_asked in asked.items() if is_asked]
    if len(told) > 1:
        raise InputError(
            f"Give one of --workers, --chief and --worker. Received: {', '.join(told)}"
        )
    if given.worker and given.profile and CHILD not in os.environ:
        raise InputError("`--profile` tells of the chief's time: leave it out with `--worker`.")


def warning(chief: Address) -> str:
    """Return what is said of a chief's address."""
    if chief.host == LOOPBACK:
        return f"waiting for workers at {chief}, for this computer alone"
    return f"waiting for workers at {chief}; it has no password: let only workers reach it"
