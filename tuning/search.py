"""Searches hyperparameters of the head and of fine-tuning: `python -m tuning.search`."""

import argparse
import dataclasses
from pathlib import Path

from fashion_keras import cli
from fashion_keras.artifacts import check_free
from fashion_keras.config import SEARCH_SIZE, Config, InputError, names
from fashion_keras.report import tensor_board
from fashion_keras.report.search_page import FINE_TUNING

BASE = Config(image_size=SEARCH_SIZE)
STAGES = ("head", "fine-tuning", "both")
_MAX_EPOCHS = {"head": 30, "fine-tuning": 9}
_SEARCHED = ("learning_rate", "inner_size", "droprate", "fine_tuning_learning_rate")
_PLANNED = ("epochs", "fine_tune_from", "fine_tuning_epochs")
_FIELDS = [name for name in names() if name not in (*_SEARCHED, *_PLANNED, "predict_size")]
_DESCRIPTION = """\
Find the best hyperparameters with Hyperband, in two stages:

head         learning rate, inner size, droprate and use of augmented copies. Every photo
             goes through the backbone once; trials train only the small head.
fine-tuning  where in the backbone training starts, its learning rate, label smoothing,
             droprate and strength of augmentation, beginning with the winner of the head's
             search. Hours on a CPU, on feature maps that are computed once; with a graphics
             card at 299 px, unless `--image-size` says otherwise.

`final` trains the winner at 299 px, or at the side that `--image-size` gives here.

Finished trials are kept in the folder of --cache: the same command continues after them.

Trials of the head run in several processes on this machine, or on the Ray cluster that
$RAY_ADDRESS names (see docs/cluster.md). However many there are, trials and results are
the same."""
_EXAMPLES = """\
examples:
  python -m tuning.search --data photos/ && python -m fashion_keras.final
  python -m tuning.search --data photos/ --stage fine-tuning --max-minutes 120"""


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(_DESCRIPTION, "tuning.search", _EXAMPLES)
    parser.add_argument(
        "--stage",
        choices=STAGES,
        help="what to search (default: `both` with a graphics card, else `head`)",
    )
    cli.add_config_options(parser, _FIELDS, BASE)
    lengths = ", ".join(f"{epochs} for {stage}" for stage, epochs in _MAX_EPOCHS.items())
    for option, default, text in (
        ("--max-epochs", None, f"epochs of the longest trials (default: {lengths})"),
        ("--factor", 3, "one in this many trials is trained longer, 2 or more (default: 3)"),
        ("--max-minutes", None, "after so long no trial of fine-tuning begins (default: no limit)"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="INT", help=text)
    cli.add_folder_options(parser)
    cli.add_workers_option(parser, search=True)
    cli.add_deterministic_option(parser)
    tensor_board.add_option(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, and print where the winner is and what to run next."""
    parser = options()
    given = parser.parse_args(arguments)
    for name, minimum in (("max_epochs", 1), ("factor", 2), ("max_minutes", 1)):
        value, option = getattr(given, name), name.replace("_", "-")
        if value is not None and value < minimum:
            raise InputError(f"`--{option}` must be {minimum} or more. Received: {value}")
    cli.chosen(given, BASE)  # Raises for what cannot be used.
    folder = given.results / "search"
    check_free(folder)
    print(f"searching on {given.data or BASE.data}, into {folder}; {cli.TIME_FOLLOWS}", flush=True)
    from fashion_keras.backend import cards, enable_determinism

    if given.deterministic:
        enable_determinism()
    stage = given.stage or ("both" if cards() else "head")
    if stage == "head" and given.max_minutes:
        raise InputError("`--max-minutes` needs `--stage fine-tuning` or `--stage both`.")
    _search(given, stage, folder)
    print(f"winner: {folder / 'best_config.json'}; report: {folder / 'report.html'}", flush=True)
    if stage == "head" and not given.stage:
        print("only the head was searched; `--stage fine-tuning` goes on, and says how long")
    print(f"now run: {cli.next_command('fashion_keras.final', parser, given)}", flush=True)


def _settings(given: argparse.Namespace, stage: str) -> tuple[int, int]:
    return given.max_epochs or _MAX_EPOCHS[stage], given.factor


def _search(given: argparse.Namespace, stage: str, folder: Path) -> None:
    from fashion_keras.backend import cards
    from tuning.fine_tuning import base_of, expected_seconds, search_fine_tuning
    from tuning.hyperband import search
    from tuning.space import HEAD

    places = folder, given.cache, given.workers, given.tensorboard
    tuned = (folder / FINE_TUNING / "best_config.json").exists()
    # On a graphics card the size of `final` takes minutes.
    affordable, later = Config.image_size if cards() else BASE.image_size, 0.0
    if stage == "both":
        base = cli.chosen(given, dataclasses.replace(BASE, image_size=affordable))
        later = expected_seconds(base, *_settings(given, "fine-tuning"), given.cache)
        later = min(later, 60 * (given.max_minutes or later))
    if stage != "fine-tuning":
        size = given.image_size or Config.image_size
        search(cli.chosen(given, BASE), *_settings(given, "head"), *places, later, size)
    if stage == "head" and tuned:
        print("the fine-tuning found before is not used any more; `--stage fine-tuning` repeats it")
    if stage == "head":
        return
    found = base_of(folder)
    if not found:
        print("no head was searched before: the default configuration is used")
    final_size = given.image_size or (found or Config()).image_size
    size = affordable if final_size == Config.image_size else final_size
    base = cli.chosen(given, dataclasses.replace(found or BASE, image_size=size))
    if found:
        if stage == "fine-tuning":
            _check_kept(given, found, folder)
        base = dataclasses.replace(base, **HEAD.values(found))
    settings = _settings(given, "fine-tuning")
    others = {"minutes": given.max_minutes, "found": found, "final_size": final_size}
    search_fine_tuning(base, *settings, *places, **others)


def _check_kept(given: argparse.Namespace, found: Config, folder: Path) -> None:
    """Raise an `InputError` if options change what the head's search used or found."""
    for name in ("augmented_copies", "objective"):
        value, known = getattr(given, name), getattr(found, name)
        if value not in (None, known):
            raise InputError(
                f"The head's search in {folder} has `--{name.replace('_', '-')} {known}`. "
                f"Received: {value}. Leave the option out."
            )


if __name__ == "__main__":
    cli.run(main)
