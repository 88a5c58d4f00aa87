"""Checks photos before anything is trained on them: `python -m fashion_keras.check`."""

import argparse
import sys

from fashion_keras import cli
from fashion_keras.check import findings
from fashion_keras.config import Config

_ALWAYS = (
    "label_column",
    "label_pattern",
    "image_size",
    "rotation",
    "zoom",
    "mirror",
    "split_seed",
    "seed",
)
_FOR_FEATURES = ("backbone", "weights", "feature_batch_size")


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(
        "Check photos before training on them. Prints the number of photos of each class in each\n"
        "split, their sizes, and what is wrong, the most harmful first: folders that training\n"
        "refuses, empty, missing and small classes, photos that are in two splits or two classes\n"
        "(also resized, re-encoded, turned or mirrored), classes that are not equally frequent in\n"
        "all splits, files that cannot be read or are outside the class folders. Nothing is\n"
        "changed. Writes check.json, show_batch.png (photos and augmented copies of them, as the\n"
        "model is trained on them) and duplicates.png.\n\n"
        "With --features also photos whose label is probably wrong (label_errors.png), photos\n"
        "unlike all others (outliers.png) and a map of all (map.png). That takes the backbone:\n"
        "with two cores about a minute for 3000 photos at `--image-size 150`, five at 299; what\n"
        "training has computed is used again. Change a label in the test split only for what the\n"
        "photo shows, never because a model disagrees.\n\n"
        "Exit code: 0; with --strict 1 if there is anything to fix; 2 for wrong usage, no photos.",
        "fashion_keras.check",
        "examples:\n  python -m fashion_keras.check photos/\n"
        "  python -m fashion_keras.check photos/ --features --image-size 150",
    )
    parser.add_argument(
        "data", help="what the other commands take as `--data`: `clothing`, `sample`, or a folder"
    )
    parser.add_argument(
        "--features", action="store_true", help="look for label errors and outliers as well"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 if there is anything to fix"
    )
    cli.add_config_options(parser, _ALWAYS, Config())
    cli.add_config_options(parser, _FOR_FEATURES, Config(), "; with --features only")
    cli.add_folder_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, check, and print the verdict."""
    parser = options()
    given = parser.parse_args(arguments)
    config, folder = cli.chosen(given, Config()), given.results / "check"
    print(f"checking {config.data}, into {folder}", flush=True)
    from fashion_keras.check.examine import examine

    found = examine(config, folder, given.cache, given.features)
    print(findings.verdict(found))
    print(f"all results are in {folder}")
    to_fix, kept = any(finding.to_fix for finding in found), (*_ALWAYS, *_FOR_FEATURES)
    after = cli.next_command("tuning.search", parser, given, kept, data=given.data)
    print(f"{'when that is fixed' if to_fix else 'now'} run: {after}")
    if given.strict and to_fix:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
