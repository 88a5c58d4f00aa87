"""Searches learning rate, inner size, droprate and augmented copies: `python -m tuning.search`."""

import contextlib
import csv
import dataclasses
import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fashion_keras import cli, stopwatch
from fashion_keras.config import Config, to_json
from fashion_keras.data.prepare import summary
from fashion_keras.files import all_together, check_free, only_one, whole_file
from fashion_keras.finish import labelled
from fashion_keras.report import tensor_board
from fashion_keras.saving import data_fingerprint
from fashion_keras.training import Datasets, head_data
from tuning import search_options, worker
from tuning.chief import serving
from tuning.compare import CURVES, FINALISTS, Finalist, knob_curves, rerun, validation_answers
from tuning.fleet import Fleet
from tuning.hyperband import Hyperband, append_row, open_hyperband, run, run_here
from tuning.line import Address
from tuning.page import PAGE, space_of, write_search_page
from tuning.pictures import draw_knob, draw_space
from tuning.space import sample_config, searched_values
from tuning.task import Task, open_task

RunTrials = Callable[[Hyperband], None]
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
    run_trials: RunTrials = run_here,
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
        run_trials: Runs the trials: here, or elsewhere.

    Returns:
        The winner, as `fashion_keras.final` will train it.

    Raises:
        InputError: If photos or weights cannot be had or used, all trials fail, or another process
            is at the same search.
    """
    start = time.monotonic()
    check_free(results)
    task = open_task(base, max_epochs, factor, cache)
    print(summary(task.material.prepared))
    print(f"everything will be in {results}", flush=True)
    with only_one(task.folder.with_suffix(".lock"), "search"):
        return _search(task, results, board, run_trials, start)


def _search(
    task: Task, results: Path, board: Path | None, run_trials: RunTrials, start: float
) -> Config:
    base, material = task.base, task.material
    tuner = open_hyperband(*task.arguments())
    tuner.board = task.run_of(board)
    print(tuner.plan, flush=True)
    head_data(base, material)  # All vectors, so that no trial has to wait for them.
    page = functools.partial(write_search_page, base=base, planned=tuner.plan.trials)
    tuner.after_trial = functools.partial(page, tuner.folder, file=results / PAGE)
    trials = run(tuner, run_trials)
    kept = tuner.folder / "finished"
    with all_together(results, FILES) as work:
        _write_trials(tuner, work)
        configs = [sample_config(trial.hyperparameters, base) for trial in trials]
        finalists = rerun(list(dict.fromkeys(configs))[:FINALISTS], material, kept)
        _write_finalists(finalists, work)
        _write_curves(finalists[0].config, material, kept, work)
        _write_summary(tuner, finalists, base, material, work, start)
        page(work, file=work / PAGE)
        if tuner.board:
            _show_answers(tuner.board, finalists[0].config, material)
        winner = _for_final(finalists[0].config)
        (work / "best_config.json").write_text(to_json(winner), encoding="utf-8")
    return winner


def _show_answers(board: Path, winner: Config, material: Datasets) -> None:
    tested = validation_answers(winner, material)
    photos = labelled(material.prepared, "validation")
    tensor_board.add_answers(board / "winner", tested, {one.name: one.file for one in photos})


def _for_final(winner: Config) -> Config:
    """Return the winner as it is trained in the end: at full size, as long as it gets better."""
    size = max(winner.image_size, Config.image_size)
    return dataclasses.replace(winner, image_size=size, epochs=Config.epochs)


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
def _write_curves(winner: Config, material: Datasets, kept: Path, results: Path) -> None:
    rows = list(knob_curves(winner, material, kept))
    for row in rows:
        append_row(results / "curves.csv", row)
    for knob in CURVES:
        draw_knob(rows, knob, results / f"{knob}.png")


def _write_summary(
    tuner: Hyperband,
    finalists: Sequence[Finalist],
    base: Config,
    material: Datasets,
    results: Path,
    start: float,
) -> None:
    best = finalists[0]
    text = {
        "validation_accuracy": round(best.mean, 4),
        "spread": round(best.spread, 4),
        "seeds": len(best.accuracies),
        "image_size": base.image_size,
        "fingerprint": data_fingerprint(material.prepared),
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
        told = {"trials_of_an_interrupted_run": tuner.found, "run": cli.provenance(start)}
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(told), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, search, and say where the winner is; or work for a chief."""
    options = search_options.options()
    given = options.parse_args(arguments)
    search_options.check(given)
    base = cli.chosen(given, search_options.BASE)
    plan = (given.max_epochs, given.factor)
    if given.worker:
        key = worker.join(given.worker, given.cache)
        if key:
            task = open_task(base, *plan, given.cache)
            worker.work(given.worker, key, task, given.tensorboard)
        print("there are no trials left", flush=True)
        return
    words = sys.argv[1:] if arguments is None else arguments
    folder = given.results / "search"
    with (
        stopwatch.profiled(given.profile),
        _elsewhere(given.chief, given.workers, words) as run_trials,
    ):
        search(base, *plan, folder, given.cache, given.tensorboard, run_trials)
    then = cli.next_command("fashion_keras.final", options, given)
    print(f"winner: {folder / 'best_config.json'}; now run: {then}")


@contextlib.contextmanager
def _elsewhere(chief: Address | None, workers: int, words: Sequence[str]) -> Iterator[RunTrials]:
    """Yield what runs the trials: this process, workers of its own, or workers that come."""
    if chief:
        with serving(chief) as served:
            print(search_options.warning(chief), flush=True)
            yield served.run_trials
    elif workers > 1:
        call = [sys.executable, "-m", "tuning.search", *words, "--workers", "1"]
        yield Fleet(workers, call).run_trials
    else:
        yield run_here


if __name__ == "__main__":
    cli.run(main)
