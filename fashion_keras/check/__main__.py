"""Checks photos before anything is trained on them: `python -m fashion_keras.check`."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fashion_keras import cli
from fashion_keras.check import class_balance, findings, label_errors, photo_facts, vector_map
from fashion_keras.check.findings import Finding
from fashion_keras.check.photo_facts import PhotoFacts
from fashion_keras.check.twins import draw_twins, find_twins, twin_findings
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.data.scan import SPLITS, Scan, scan, shown
from fashion_keras.figures import draw_batch, draw_sheet, tile_of
from fashion_keras.files import all_together, check_free
from fashion_keras.training import open_datasets

FILES = (
    "show_batch.png",
    "duplicates.png",
    "label_errors.png",
    "outliers.png",
    "map.png",
    "check.json",
)
_KNOBS, _FOR_VECTORS = ("image_size", "rotation", "zoom", "seed"), ("weights", "batch_size")
# Each of these says why training refuses a folder.
_REFUSED = {"layout", "empty class", "missing class"}
_ON_SHEET, _IN_ROW = 30, 5


def check(config: Config, results: Path, cache: Path, vectors: bool) -> list[Finding]:
    """Look at a data set, draw what the model will see, and say what is wrong.

    Args:
        config: `data` is checked; `image_size` and the augmentation decide the pictures; `weights`
            is used for vectors only.
        results: Folder for the pictures and `check.json`.
        cache: Folder for prepared photos and vectors.
        vectors: Look for label errors and outliers, too, and draw the map.

    Returns:
        The findings, the most harmful first.

    Raises:
        InputError: If there is no such folder, no photo in it, or the weights cannot be had.
    """
    start = time.monotonic()
    check_free(results)
    folders = scan(config.data, cache, config.seed)
    prepared, refusal = _prepared(config, cache)
    if not folders.photos and not folders.unused:
        raise InputError(refusal)
    facts = photo_facts.gather_facts(folders.photos, prepared)
    groups = find_twins(facts)
    found = [
        *_folder_findings(folders),
        *class_balance.class_findings(folders, facts, config.seed),
        *photo_facts.photo_findings(facts),
        *twin_findings(groups),
    ]
    found += _refused(refusal, found)
    if vectors and not prepared:
        print("so labels and outliers are not looked at, and there is no map")
        found.append(label_errors.unseen_labels(f"training refuses these photos: {refusal}"))
    known = _counted(folders, facts) | photo_facts.summary(facts)
    with all_together(results, FILES) as work:
        if groups:
            draw_twins(groups, work / "duplicates.png")
        if prepared:
            draw_batch(prepared, config, work / "show_batch.png")
        if vectors and prepared:
            found += _look_at_vectors(config, prepared, facts, groups, cache, work)
        report = findings.as_json(found) | {"photos": known, "run": cli.provenance(start)}
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (work / "check.json").write_text(text, encoding="utf-8")
    return findings.ordered(found)


def _folder_findings(folders: Scan) -> list[Finding]:
    layout = Finding(
        "layout",
        f"training refuses {shown(str(folders.folder))}",
        "Put each class's photos into a folder of its own: either all next to each other, or in "
        "the folders train and validation (and one for the last measurement).",
        [shown(fault) for fault in folders.faults],
    )
    unused = Finding(
        "unused",
        f"photos outside the class folders, which will not be used: {len(folders.unused)}",
        "Move them into the folder of their class, or away.",
        folders.unused,
    )
    return [finding for finding in (layout, unused) if finding.items]


def _prepared(config: Config, cache: Path) -> tuple[Prepared | None, str]:
    """Return the prepared data set, or why it cannot be prepared."""
    try:
        return prepare(config.data, cache, config.seed), ""
    except InputError as error:
        return None, shown(str(error))


def _refused(refusal: str, found: Sequence[Finding]) -> list[Finding]:
    if not refusal:
        return []
    print("training refuses these photos as they are, so there is no picture of a batch")
    if _REFUSED & {finding.kind for finding in found}:
        return []
    return [Finding("layout", "training refuses these photos", "Do what it says.", [refusal])]


def _counted(folders: Scan, facts: Sequence[PhotoFacts]) -> dict:
    """Print counts by class and split, sizes and so on; return the counts."""
    labels, splits = class_balance.class_names(folders), class_balance.split_names(facts, folders)
    if not labels:
        return {}
    table = class_balance.count_photos(facts, splits, labels)
    print(class_balance.as_text(table, splits, labels))
    for name, value in photo_facts.summary(facts).items():
        print(f"{name.replace('_', ' ')}: {_plain(value)}")
    counts = {
        split or "all": dict(zip(labels, column.tolist(), strict=True))
        for split, column in zip(splits, table.T, strict=True)
    }
    return {"counts": counts}


def _plain(value: list[float] | dict[str, int]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "none"
    low, middle, high = value
    return f"{middle:g} in the middle, 90 % from {low:g} to {high:g}"


def _look_at_vectors(
    config: Config,
    prepared: Prepared,
    facts: Sequence[PhotoFacts],
    groups: Sequence[Sequence[PhotoFacts]],
    cache: Path,
    work: Path,
) -> list[Finding]:
    """Find label errors and outliers, and draw them and the map."""
    store = open_datasets(config, prepared, cache).store
    by_name = {one.name: one for one in facts}
    photos = [by_name[photo.file] for split in SPLITS for photo in prepared.split(split)]
    vectors = [store.features(split) for split in SPLITS if prepared.split(split)]
    numbers = np.array([prepared.labels.index(one.label) for one in photos])
    place = {one.name: number for number, one in enumerate(photos)}
    copies = [[place[one.name] for one in group] for group in groups]
    folds = label_errors.deal_folds(numbers, copies, config.seed)
    judged = len(np.unique(folds)) > 1  # Who is in the only fold has nobody to learn from.
    suspects = (
        label_errors.find_suspects(numbers, label_errors.out_of_fold(vectors, numbers, folds))
        if judged
        else []
    )
    points = vector_map.reduce_vectors(vectors)
    outliers = vector_map.find_outliers(vector_map.find_nearest(points)[1])
    marked = [one.number for one in suspects]
    told = [label_errors.words(one, prepared.labels) for one in suspects]
    _draw(photos, marked, told, "likeliest label errors", work / "label_errors.png")
    unlike = [photos[number].label for number in outliers]
    _draw(photos, outliers, unlike, "photos unlike all others", work / "outliers.png")
    vector_map.draw_map(points, numbers, prepared.labels, marked, config.seed, work / "map.png")
    unseen = [] if judged else [label_errors.unseen_labels("all photos are copies of one")]
    return [
        *unseen,
        *label_errors.label_findings(suspects, photos, prepared.labels),
        *vector_map.outlier_findings(outliers, photos),
    ]


def _draw(
    photos: Sequence[PhotoFacts],
    places: Sequence[int],
    words: Sequence[str],
    title: str,
    file: Path,
) -> None:
    """Draw the first of these photos, if there are any, each with its rank and words."""
    tiles = [
        tile_of(photos[place].path, f"{rank}. {said}\n{photos[place].name}")
        for rank, (place, said) in enumerate(zip(places, words, strict=True), start=1)
        if rank <= _ON_SHEET
    ]
    if tiles:
        rows = [tiles[start : start + _IN_ROW] for start in range(0, len(tiles), _IN_ROW)]
        draw_sheet(rows, f"{title}: {len(tiles)} of {len(places)}", file)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, check, and print the verdict."""
    options = cli.parser(
        "Look at photos before training on them. Prints how many there are of each class in each\n"
        "split, their sizes, and what is wrong, the most harmful first: folders that training\n"
        "refuses, empty, missing and tiny classes, photos that are in two splits or two classes\n"
        "(also resized, re-encoded, turned or mirrored), classes that are not equally frequent in\n"
        "all splits, files that cannot be read or lie where nothing looks for them. Nothing is\n"
        "changed. Writes check.json, show_batch.png (photos and augmented copies of them, as the\n"
        "model is shown them) and duplicates.png.\n\n"
        "With --vectors also photos whose label is probably wrong (label_errors.png), photos\n"
        "unlike all others (outliers.png) and a map of all (map.png). That takes the backbone:\n"
        "with two cores about a minute for 3000 photos at `--image-size 150`, five at 299; what\n"
        "training has computed is used again. A label in the last split is to be changed only for\n"
        "what the photo shows, never because a model disagrees.\n\n"
        "Exit code: 0; with --strict 1 if there is anything to mend; 2 for wrong usage, no photos.",
        "fashion_keras.check",
        "examples:\n  python -m fashion_keras.check photos/\n"
        "  python -m fashion_keras.check photos/ --vectors --image-size 150",
    )
    options.add_argument(
        "data", help="what the other commands take as `--data`: `clothing`, `sample`, or a folder"
    )
    options.add_argument(
        "--vectors", action="store_true", help="look for label errors and outliers, too"
    )
    options.add_argument(
        "--strict", action="store_true", help="exit code 1 if there is anything to mend"
    )
    cli.add_config_options(options, _KNOBS, Config())
    cli.add_config_options(options, _FOR_VECTORS, Config(), "; counts with --vectors only")
    cli.add_folder_options(options)
    given = options.parse_args(arguments)
    config = cli.chosen(given, Config())
    if given.vectors and config.weights == "none":
        raise InputError("`--vectors` needs a trained backbone. Received: `--weights none`.")
    found = check(config, given.results / "check", given.cache, given.vectors)
    print(findings.verdict(found))
    print(f"everything is in {given.results / 'check'}")
    if given.strict and findings.to_mend(found):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
