"""Examines a data set: its folders, photos, duplicates and features; writes pictures and JSON."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fashion_keras import cli
from fashion_keras.artifacts import all_together, check_free
from fashion_keras.check import embeddings
from fashion_keras.check.balance import Counts, class_findings, count_photos
from fashion_keras.check.duplicates import (
    Group,
    draw_duplicates,
    duplicate_findings,
    find_duplicates,
)
from fashion_keras.check.findings import Finding, as_json, ordered
from fashion_keras.check.photos import CheckedPhoto, check_photos, photo_findings, summary
from fashion_keras.config import Config, InputError
from fashion_keras.data.files import shown
from fashion_keras.data.layout import SPLITS
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.data.scan import scan
from fashion_keras.data.split import deal_folds
from fashion_keras.figures import draw_batch, draw_sheet, tile_of
from fashion_keras.model import check_weights
from fashion_keras.training import open_datasets

_PICTURES = ("show_batch.png", "duplicates.png", "label_errors.png", "outliers.png", "map.png")
_ON_SHEET, _IN_ROW = 30, 5


def examine(config: Config, results: Path, cache: Path, features: bool) -> list[Finding]:
    """Return what is wrong with a data set; draw that, and what the model is trained on.

    Args:
        config: What is examined, and how it is augmented; `backbone` and `weights` are used
            for features only.
        results: Folder for the pictures and `check.json`.
        cache: Folder for prepared photos and features.
        features: Look for label errors and outliers as well, and draw the map.

    Raises:
        InputError: If there is no such folder, no photo in it, or the weights are not available.
    """
    start = time.monotonic()
    check_free(results)
    if features:
        check_weights(config)
    folders = scan(config, cache)
    prepared, refusal = None, ""
    try:
        prepared = prepare(config, cache)
    except InputError as error:
        refusal = shown(str(error))
    if not folders.photos and not folders.unused:
        raise InputError(refusal)
    photos = check_photos(folders.photos, prepared)
    counts, groups = count_photos(folders, photos), find_duplicates(photos)
    found = [
        Finding("layout", [shown(fault) for fault in folders.faults]),
        Finding("unused", folders.unused),
        *class_findings(folders, photos, counts, config.seed),
        *photo_findings(photos, config.image_size),
        *duplicate_findings(groups),
    ]
    if refusal:
        print("training refuses these photos as they are, so there is no picture of a batch")
        if not {"layout", "empty class", "missing class"} & {one.kind for one in ordered(found)}:
            found.append(Finding("layout", [refusal]))
    photos = [photo._replace(hash=None) for photo in photos]  # They take most of the memory.
    report = {"photos": _summarise(counts, photos, folders.notes)}
    with all_together(results, (*_PICTURES, "check.json")) as work:
        if groups:
            draw_duplicates(groups, work / "duplicates.png")
        if prepared:
            draw_batch(prepared, config, work / "show_batch.png")
        if features and prepared:
            found += _examine_features(config, prepared, photos, groups, cache, work)
        elif features:
            found.append(Finding("labels unseen", [f"training refuses these photos: {refusal}"]))
        report = as_json(found) | report | {"run": cli.provenance(start)}
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (work / "check.json").write_text(f"{text}\n", encoding="utf-8")
    return ordered(found)


def _summarise(counts: Counts, photos: Sequence[CheckedPhoto], notes: Sequence[str]) -> dict:
    """Print notes, counts by class and split, sizes and so on; return these as plain values."""
    print("".join(f"{note}\n" for note in notes), end="")
    known = summary(photos)
    print(counts)
    for name, value in known.items():
        if isinstance(value, dict):
            text = ", ".join(f"{count} {kind}" for kind, count in value.items())
        else:
            text = "median {1:g}, 90 % from {0:g} to {2:g}".format(*value)
        print(f"{name.replace('_', ' ')}: {text}")
    columns = {
        split or "all": dict(zip(counts.labels, column.tolist(), strict=True))
        for split, column in zip(counts.splits, counts.table.T, strict=True)
    }
    return {"counts": columns} | known


def _examine_features(
    config: Config,
    prepared: Prepared,
    photos: Sequence[CheckedPhoto],
    groups: Sequence[Group],
    cache: Path,
    work: Path,
) -> list[Finding]:
    """Find label errors and outliers; draw them and the map."""
    store = open_datasets(config, prepared, cache).store
    splits, labels = [split for split in SPLITS if prepared.split(split)], prepared.labels
    by_name = {photo.name: photo for photo in photos}
    photos = [by_name[photo.file] for split in splits for photo in prepared.split(split)]
    place = {photo.name: number for number, photo in enumerate(photos)}
    numbers = np.array([labels.index(photo.label) for photo in photos])
    copies = [[place[photo.name] for photo in group] for group in groups]
    reduced = embeddings.reduce_features([store.features(split) for split in splits], config.seed)
    folds = deal_folds(numbers, copies, config.seed)
    probabilities = embeddings.predict_labels(reduced, numbers, folds)
    suspects, likely = {}, []
    if probabilities is not None:
        for number, likelier in embeddings.find_suspects(numbers, probabilities).items():
            both = (numbers[number], likelier)
            words = [f"{labels[one]} ({probabilities[number, one]:.0%})" for one in both]
            suspects[number] = "labelled {}, looks like {}".format(*words)
            likely.append(photos[number].suspect(suspects[number], labels[likelier]))
    points = reduced[:, : embeddings.CLOSE_COMPONENTS]
    outliers = {number: photos[number].label for number in embeddings.find_outliers(points)}
    strange = [photos[at].suspect("unlike all other photos") for at in outliers]
    _draw(photos, suspects, "likeliest label errors", work / "label_errors.png")
    _draw(photos, outliers, "photos unlike all others", work / "outliers.png")
    embeddings.draw_map(points, numbers, labels, list(suspects), config.seed, work / "map.png")
    unseen = ["too few different photos to compare"] if probabilities is None else []
    return [
        Finding("labels unseen", unseen),
        Finding("label errors", [f"{photos[at].name}: {suspects[at]}" for at in suspects], likely),
        Finding("outliers", [f"{photos[at].name} ({outliers[at]})" for at in outliers], strange),
    ]


def _draw(photos: Sequence[CheckedPhoto], words: dict[int, str], title: str, file: Path) -> None:
    """Draw the first of the photos that have words, by their places; nothing if none has."""
    tiles = [
        tile_of(photos[place].path, f"{rank}. {text}\n{photos[place].name}")
        for rank, (place, text) in enumerate(list(words.items())[:_ON_SHEET], start=1)
    ]
    if tiles:
        rows = [tiles[start : start + _IN_ROW] for start in range(0, len(tiles), _IN_ROW)]
        draw_sheet(rows, f"{title}: {len(tiles)} of {len(words)}", file)
