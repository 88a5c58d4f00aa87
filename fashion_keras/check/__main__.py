"""Checks photos before anything is trained on them: `python -m fashion_keras.check`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fashion_keras import cli
from fashion_keras.artifacts import only_one
from fashion_keras.check import findings
from fashion_keras.check.findings import Suspect
from fashion_keras.check.review import FILE, Review, suspects_of
from fashion_keras.config import Config
from fashion_keras.data.layout import OTHER
from fashion_keras.data.review import read_review

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
_FOR_SEARCH = (*_ALWAYS, *_FOR_FEATURES, "review")
_PAGE = ""  # `--review` without a file: as `Config.review`, no decisions are honoured.
_DESCRIPTION = """\
Check photos before training on them. Prints the number of photos of each class in each
split, their sizes, and what is wrong, the most harmful first: folders that training
refuses, empty, missing and small classes, photos that are in two splits or two classes
(also resized, re-encoded, turned or mirrored), classes that are not equally frequent in
all splits, files that cannot be read or are outside the class folders. Photos in a
folder named `other`, of none of the classes, are counted only. Nothing is changed. Writes
check.json, show_batch.png (photos and augmented copies of them, as the model is trained
on them) and duplicates.png.

With --features also photos whose label is probably wrong (label_errors.png), photos
unlike all others (outliers.png) and a map of all (map.png). That takes the backbone:
with two cores about a minute for 3000 photos at `--image-size 150`, five at 299; what
training has computed is used again. Change a label in the test split only for what the
photo shows, never because a model disagrees.

With --review a page opens on which each suspect is kept, moved to another class or
dropped. Decisions are saved in photos.review.csv at once; the same command goes on with
them. All commands that read labelled photos honour that file with `--review FILE`; so
does this one, which then opens no page. Ctrl+C ends the review.

Exit code: 0; with --strict 1 if there is anything to fix; 2 for wrong usage, no photos."""
_EXAMPLES = """\
examples:
  python -m fashion_keras.check photos/
  python -m fashion_keras.check photos/ --features --image-size 150
  python -m fashion_keras.check photos/ --features --review
  python -m fashion_keras.check photos/ --review results/check/photos.review.csv"""


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = cli.parser(_DESCRIPTION, "fashion_keras.check", _EXAMPLES)
    parser.add_argument(
        "data", help="what the other commands take as `--data`: `clothing`, `sample`, or a folder"
    )
    parser.add_argument(
        "--features", action="store_true", help="look for label errors and outliers as well"
    )
    parser.add_argument(
        "--review",
        nargs="?",
        const=_PAGE,
        type=_decisions,
        metavar="FILE",
        help="without FILE: open a page to decide on the suspects, in a browser on this computer; "
        "with FILE: check as training with that `--review FILE` would see the photos",
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="print the page's address only; with --review only",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 if there is anything to fix"
    )
    cli.add_config_options(parser, _ALWAYS, Config())
    cli.add_config_options(parser, _FOR_FEATURES, Config(), "; with --features only")
    cli.add_folder_options(parser)
    return parser


def _decisions(text: str) -> str:
    """Return the file that `--review` gives; a folder after it is the one of the photos."""
    if text != _PAGE and (Path(text).is_dir() or text in ("clothing", "sample")):
        expected = f"expected a .csv file, or nothing: `{text} --review` opens the page"
        raise argparse.ArgumentTypeError(f"{expected}. Received: {text}")
    return text


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, check, and print the verdict."""
    parser = options()
    given = parser.parse_args(arguments)
    config, folder = cli.chosen(given, Config()), given.results / "check"
    print(f"checking {config.data}, into {folder}", flush=True)
    from fashion_keras.check.examine import examine, scan

    page, file = given.review == _PAGE, folder / FILE
    labels = scan(config, given.cache).labels if page else []
    if page and file.exists():
        read_review(file, labels)  # Now: what cannot be used is refused before all that is slow.
    found = examine(config, folder, given.cache, given.features)
    print(findings.verdict(found))
    print(f"all results are in {folder}", flush=True)
    to_fix = any(finding.to_fix for finding in found)
    kept = {"data": given.data} | ({"review": str(file)} if page else {})
    after = cli.next_command("tuning.search", parser, given, _FOR_SEARCH, **kept)
    if page and not given.features:
        print("`--features` adds probable label errors and outliers to the review")
    if page:
        _review(suspects_of(found), labels, file, after, not given.no_browser)
    else:
        print(f"{'when that is fixed' if to_fix else 'now'} run: {after}")
    if given.strict and to_fix:
        sys.exit(1)


def _review(
    suspects: Sequence[Suspect], labels: Sequence[str], file: Path, after: str, browse: bool
) -> None:
    """Let the user decide on the suspects; say where the decisions are and what comes next."""
    from fashion_keras.check.review_server import serve

    if not suspects:
        print("nothing to review")
        return
    with only_one(file.with_name(".review.lock"), "review"):
        review = Review(suspects, [*labels, OTHER], file)
        serve(review, after, browse)
    rest = "the others stay as they are, and the same command goes on with them"
    done = f"{review.done()} of {len(suspects)} photos reviewed"
    print(f"{done}; {rest}" if review.done() < len(suspects) else done, end="")
    print(f"; decisions are in {file}; now run: {after}" if file.exists() else "")


if __name__ == "__main__":
    cli.run(main)
