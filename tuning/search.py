"""Searches learning rate, inner size, droprate and augmented views: `python -m tuning.search`."""

import argparse
import csv
import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import keras_tuner

from fashion_keras import command, stopwatch, tensor_board
from fashion_keras.backbone import check_weights
from fashion_keras.card import fingerprint
from fashion_keras.config import Config, InputError, to_json
from fashion_keras.files import all_together, whole_file
from fashion_keras.finish import labelled
from fashion_keras.prepare import prepare, summary
from fashion_keras.training import Material, open_material, training_batches
from tuning.compare import CURVES, FINALISTS, Finalist, knob_curves, rerun, validation_answers
from tuning.hyperband import Hyperband, append_row, open_hyperband, run
from tuning.hypermodel import FashionHyperModel
from tuning.page import PAGE, space_of, write_search_page
from tuning.pictures import draw_knob, draw_space
from tuning.space import sample_config, searched_values

FILES = (
    "trials.csv",
    "space.png",
    "finalists.csv",
    "curves.csv",
    *(f"{knob}.png" for knob in CURVES),
    "search.json",
    PAGE,
    "best_config.json",
)


def search(
    base: Config,
    max_epochs: int,
    factor: int,
    results: Path,
    cache: Path,
    board: Path | None = None,
) -> Config:
    """Search with Hyperband, train the best again with other seeds, and write what was found.

    Args:
        base: Knobs that are not searched for.
        max_epochs: Epochs of the longest trials.
        factor: One in so many trials is trained on.
        results: Folder for `best_config.json`, `trials.csv`, `finalists.csv`, `curves.csv`,
            `search.json`, pictures, and `report.html`, the page of all of it, which is made anew
            after every trial.
        cache: Folder for downloads, prepared photos, vectors and the state of the search.
        board: Folder to write to for TensorBoard; None for nothing.

    Returns:
        The winner, as `fashion_keras.final` will train it.

    Raises:
        InputError: If photos or weights cannot be had or used, or all trials fail.
    """
    start = time.monotonic()
    check_weights(base.weights)
    base = dataclasses.replace(base, epochs=max_epochs)
    prepared = prepare(base.data, cache, base.seed)
    print(summary(prepared))
    print(f"everything will be in {results}", flush=True)
    material = open_material(base, prepared, cache)
    folder = cache / "search" / _key(base, factor, material)
    # Trials of few epochs are too short for a moving average of weights to mean anything.
    hypermodel = FashionHyperModel(dataclasses.replace(base, averaged_epochs=0.0), material)
    tuner = open_hyperband(hypermodel, folder, max_epochs, factor, base.seed)
    # By its state, so that a search that goes on does so in TensorBoard, too.
    tuner.board = board and board / f"search-{folder.name[:8]}"
    print(tuner.plan, flush=True)
    training_batches(base, material)  # All vectors, so that no trial has to wait for them.
    page = functools.partial(write_search_page, base=base, planned=tuner.plan.trials)
    tuner.after_trial = functools.partial(page, tuner.folder, file=results / PAGE)
    trials = run(tuner)
    with all_together(results, FILES) as work:
        _write_trials(tuner, work)
        configs = [sample_config(trial.hyperparameters, base) for trial in trials]
        finalists = rerun(list(dict.fromkeys(configs))[:FINALISTS], material)
        _write_finalists(finalists, work)
        _write_curves(finalists[0].config, material, work)
        _write_summary(tuner, finalists, base, material, work, start)
        page(work, file=work / PAGE)
        if tuner.board and material.store:  # A winner without a store would train for long.
            _show_answers(tuner.board, finalists[0].config, material)
        winner = _for_final(finalists[0].config)
        (work / "best_config.json").write_text(to_json(winner), encoding="utf-8")
    return winner


def _show_answers(board: Path, winner: Config, material: Material) -> None:
    tested = validation_answers(winner, material)
    photos = labelled(material.prepared, "validation")
    tensor_board.add_answers(board / "winner", tested, {one.name: one.file for one in photos})


def _for_final(winner: Config) -> Config:
    """Return the winner as it is trained in the end: at full size, as long as it gets better."""
    size = max(winner.image_size, Config.image_size)
    return dataclasses.replace(winner, image_size=size, epochs=Config.epochs)


def _key(base: Config, factor: int, material: Material) -> str:
    """Hash what a state must have in common with a search that goes on from it."""
    hp = keras_tuner.HyperParameters()
    sample_config(hp, base)
    facts = {
        "photos": material.prepared.folder.name,
        "vectors": material.store.key("train") if material.store else "",
        "knobs": {**dataclasses.asdict(base), "data": "", "weights": ""},
        "factor": factor,
        "space": hp.get_config()["space"],
        "keras_tuner": keras_tuner.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _write_trials(tuner: Hyperband, results: Path) -> None:
    shutil.copyfile(tuner.table, results / "trials.csv")
    with tuner.table.open(newline="", encoding="utf-8") as file:
        draw_space(list(csv.DictReader(file)), results / "space.png")


def _write_finalists(finalists: Sequence[Finalist], results: Path) -> None:
    for finalist in finalists:
        row = {
            **searched_values(finalist.config),
            "mean": round(finalist.mean, 4),
            "spread": round(finalist.spread, 4),
            **{
                f"seed_{number}": round(value, 4)
                for number, value in enumerate(finalist.accuracies, 1)
            },
        }
        append_row(results / "finalists.csv", row)
        print("  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))


@stopwatch.stage("knobs")
def _write_curves(winner: Config, material: Material, results: Path) -> None:
    rows = list(knob_curves(winner, material))
    for row in rows:
        append_row(results / "curves.csv", row)
    for knob in CURVES:
        draw_knob(rows, knob, results / f"{knob}.png")


def _write_summary(
    tuner: Hyperband,
    finalists: Sequence[Finalist],
    base: Config,
    material: Material,
    results: Path,
    start: float,
) -> None:
    best = finalists[0]
    text = {
        "validation_accuracy": round(best.mean, 4),
        "spread": round(best.spread, 4),
        "seeds": len(best.accuracies),
        "image_size": base.image_size,
        "fingerprint": fingerprint(material.prepared),
        "winner": searched_values(best.config),
        "space": space_of(base),
        "trials": len(tuner.finished()),
        "failed": sum(trial.status == "FAILED" for trial in tuner.finished()),
        "epochs": tuner.epochs_done(),
        **_origin(tuner, start),
    }
    (results / "search.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def _origin(tuner: Hyperband, start: float) -> dict:
    """Return the run that the numbers come from: if it made no trial, the one before it."""
    file = tuner.folder / "origin.json"
    if len(tuner.finished()) > tuner.found or not file.exists():
        # The trials that were found are not in the seconds of this run.
        told = {"trials_of_an_interrupted_run": tuner.found, "run": command.provenance(start)}
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(told), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


_BASE = Config(image_size=150)
_KNOBS = [
    "data", "weights", "image_size", "views", "rotation", "zoom", "label_smoothing",
    "averaged_epochs", "patience", "precision", "batch_size", "seed",
]  # fmt: skip


def _options() -> argparse.ArgumentParser:
    options = command.parser(
        "Find the best learning rate, inner size, droprate and use of augmented views with\n"
        "Hyperband. Every photo goes through the backbone once; trials train only the small head.\n"
        "An interrupted search goes on when the same command is given again.",
        "tuning.search",
        "example:\n  python -m tuning.search --data photos/ && python -m fashion_keras.final",
    )
    command.add_config_options(options, _KNOBS, _BASE)
    options.add_argument(
        "--max-epochs", type=int, default=30, metavar="INT",
        help="epochs of the longest trials (default: 30)",
    )  # fmt: skip
    options.add_argument(
        "--factor", type=int, default=3, metavar="INT",
        help="one in so many trials is trained on, 2 or more (default: 3)",
    )  # fmt: skip
    command.add_folder_options(options)
    tensor_board.add_option(options)
    stopwatch.add_option(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, and say where the winner is."""
    options = _options()
    given = options.parse_args(arguments)
    for name, value, least in (("factor", given.factor, 2), ("max-epochs", given.max_epochs, 1)):
        if value < least:
            raise InputError(f"`--{name}` must be {least} or more. Received: {value}")
    folder = given.results / "search"
    plan = (given.max_epochs, given.factor, folder, given.cache, given.tensorboard)
    with stopwatch.profiled(given.profile):
        search(command.chosen(given, _BASE), *plan)
    then = command.next_command("fashion_keras.final", options, given)
    print(f"winner: {folder / 'best_config.json'}; now run: {then}")


if __name__ == "__main__":
    command.run(main)
