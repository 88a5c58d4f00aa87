"""Makes vectors ahead, on one machine or on several: `python -m fashion_keras.vectors`."""

import argparse
from pathlib import Path

from fashion_keras import cli, stopwatch
from fashion_keras.backbone import check_weights
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import prepare, summary
from fashion_keras.fine_tuner import PIXELS, check_fine_tune_from, chosen_fine_tune_from
from fashion_keras.pieces import Shard
from fashion_keras.training import open_material

_KNOBS = (
    "data",
    "weights",
    "image_size",
    "augmented_copies",
    "rotation",
    "zoom",
    "batch_size",
    "precision",
    "seed",
)
_FOR_MAPS = ("fine_tune_from", "fine_tuning_copies")


def make_vectors(
    config: Config, cache: Path, maps: bool = False, shard: Shard = Shard(1, 1)
) -> None:
    """Make the vectors that a search needs, or a shard of them; what is there already is kept.

    Args:
        config: The knobs that decide vectors (and maps).
        cache: Folder for downloads, prepared photos, vectors and maps; all machines share it.
        maps: Make the maps that fine-tuning needs, too.
        shard: The share of the photos.

    Raises:
        InputError: If photos or weights cannot be had or used, or there is no room for the maps.
    """
    if config.weights == "none":
        raise InputError("Vectors need a trained backbone. Received: `--weights none`.")
    fine_tune_from = _checked_cut(config) if maps else None
    check_weights(config.weights)
    prepared = prepare(config.data, cache, config.seed)
    print(summary(prepared))
    _, store = open_material(config, prepared, cache).frozen()
    print(f"vectors will be in {store.folder}", flush=True)
    if fine_tune_from:  # First: they give vectors, too.
        store.make_maps(config.fine_tuning_copies, fine_tune_from, shard)
    for view in range(config.augmented_copies + 1):
        store.make("train", view, None, shard)
    store.make("validation", 0, None, shard)


def _checked_cut(config: Config) -> str:
    check_fine_tune_from(config)
    if chosen_fine_tune_from(config) == PIXELS:
        raise InputError(
            "`--maps` needs a block to cut at: fine-tuning with `--fine-tune-from "
            f"{config.fine_tune_from}` begins with "
            "photos on this machine and keeps no maps. Give a block, such as `--fine-tune-from "
            "block11`."
        )
    return chosen_fine_tune_from(config)


def _shard(text: str) -> Shard:
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise argparse.ArgumentTypeError(
        f"expected which shard of how many, from 1/8 to 8/8 for eight. Received: {text}"
    )


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Put every photo through the backbone and keep the vectors, as search and training do it\n"
        "themselves when they need them: ahead, and on as many machines as there are.\n\n"
        "`--shard 2/8` makes the second eighth of each view: it reads, decodes and computes those\n"
        "photos alone. Shards are independent: in any order, at the same time, on machines that\n"
        "share the photos and the folder `--cache` under the same names. Search and\n"
        "training read all shards as one array, to the last bit what one machine makes (if the\n"
        "machines are alike), and make themselves what is missing then.\n\n"
        "Vectors depend on all these options: give the same to search and training.",
        "fashion_keras.vectors",
        "examples:\n  python -m fashion_keras.vectors --data photos/ --image-size 150\n"
        "  python -m fashion_keras.vectors --data photos/ --maps --cache /shared/cache --shard 2/8",
    )
    cli.add_config_options(options, _KNOBS, Config())
    options.add_argument(
        "--shard",
        type=_shard,
        default=Shard(1, 1),
        metavar="NUMBER/OF",
        help="make one of so many shares, each of whole batches (default: all)",
    )
    options.add_argument(
        "--maps",
        action="store_true",
        help="make the maps that fine-tuning needs, too (0.5 MB for each view of a photo)",
    )
    cli.add_config_options(options, _FOR_MAPS, Config(), "; counts with --maps only")
    cli.add_cache_option(options)
    stopwatch.add_option(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make vectors, and say what comes next."""
    options = _options()
    given = options.parse_args(arguments)
    config = cli.chosen(given, Config())
    with stopwatch.profiled(given.profile):
        make_vectors(config, given.cache, given.maps, given.shard)
    number, of = given.shard
    if of > 1:
        print(f"shard {number} of {of} is done; when all {of} are:")
    then = "fashion_keras.final" if given.maps else "tuning.search"
    print(f"now run: {_next(then, options, given, config)}")


def _next(
    module: str, options: argparse.ArgumentParser, given: argparse.Namespace, config: Config
) -> str:
    knobs = [*_KNOBS, *_FOR_MAPS] if given.maps else _KNOBS
    size = {"image_size": str(config.image_size)}  # A search has another default.
    return cli.next_command(module, options, given, knobs, **size)


if __name__ == "__main__":
    cli.run(main)
