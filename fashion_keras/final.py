"""Trains the best configuration, tests it once, saves one file: `python -m fashion_keras.final`."""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

from fashion_keras import cli, stopwatch
from fashion_keras import figures as drawings
from fashion_keras.artifacts import all_together, check_free
from fashion_keras.config import Config, names, read_config, to_json
from fashion_keras.data.prepare import prepare, summary
from fashion_keras.evaluate import FILES as TEST_FILES
from fashion_keras.fine_tuning import (
    PIXELS,
    STAGE,
    FineTuned,
    check_fine_tune_from,
    chosen_fine_tune_from,
    fine_tune,
)
from fashion_keras.finish import save_calibrated, score_once
from fashion_keras.inspection import read_metadata
from fashion_keras.learning_rate import add_rate_option, take_auto, with_found_rate
from fashion_keras.model import check_weights
from fashion_keras.planning import Plan, plan
from fashion_keras.report import tensor_board
from fashion_keras.report.__main__ import PAGE
from fashion_keras.report.page import Sources, write_report
from fashion_keras.training import Datasets, open_datasets, train_head, write_history

MODEL_FILE = "fashion.keras"
RATE_PICTURE = "learning_rate.png"
FILES = (
    MODEL_FILE,
    "config.json",
    "history.csv",
    "learning_curves.png",
    *TEST_FILES,
    RATE_PICTURE,
    PAGE,
    "training.json",  # The last: the sign that all are there.
)


def final(
    config: Config,
    results: Path,
    cache: Path,
    budget: float | None = None,
    data_licence: str = "",
    board: Path | None = None,
    find_rate: bool = False,
) -> Path:
    """Train one classifier, save it, and score the saved file on the test split.

    All files of a run take their places together at its end: until then those of an earlier run
    stay as they are.

    Args:
        config: All knobs.
        results: Folder for the `.keras` file, `config.json`, `history.csv`, `training.json`,
            `learning_curves.png`, the files of `evaluate`, and `report.html`, which shows it all.
        cache: Folder for downloads, prepared photos, vectors, maps and the state of fine-tuning.
        budget: Minutes in which all should be done; None for as long as it takes.
        data_licence: Licence of the photos, for the card inside the saved file.
        board: Folder to write to for TensorBoard.
        find_rate: Find the learning rate of the heads first (see `auto_rate`).

    Returns:
        Path of the saved `.keras` file.

    Raises:
        InputError: If photos or weights cannot be had or used, the budget is too small, or
            training diverges.
    """
    start = time.monotonic()
    check_weights(config.weights)
    check_fine_tune_from(config)
    check_free(results)
    prepared = prepare(config.data, cache, config.split_seed)
    print(summary(prepared))
    datasets = open_datasets(config, prepared, cache)
    planned = None
    if budget is not None:
        config, planned = plan(config, datasets, budget, start, cache)
        _show_plan(planned)
    print(f"everything will be in {results}", flush=True)
    with all_together(results, FILES) as work:
        _make_maps(config, datasets)
        if find_rate:
            config = with_found_rate(config, datasets, work / RATE_PICTURE)
        run = tensor_board.new_run(board, "final")
        trained = _train(config, datasets, cache, tensor_board.watch(run))
        save_calibrated(config, prepared, trained, work / MODEL_FILE, data_licence)
        _write_outcome(work, config, trained, planned, start)  # Its time is without the test's.
        photos, metrics = score_once(work / MODEL_FILE, prepared, work)
        name = read_metadata(work / MODEL_FILE)["data"]["name"]
        sources = Sources(work / MODEL_FILE, work, work, results.parent / "search", name)
        write_report(sources, photos, work / PAGE)
        if run:
            _show_on_board(run, config, trained, metrics, time.monotonic() - start)
            tensor_board.add_test(run, work, {photo.name: photo.file for photo in photos})
    file = results / MODEL_FILE
    print(f"saved {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return file


def _show_plan(planned: Plan) -> None:
    print(f"the run should take {planned.expected_minutes:g} minutes", flush=True)
    for line in planned.left_out or ["nothing"]:
        print(f"left out for the budget: {line}", flush=True)


def _make_maps(config: Config, datasets: Datasets) -> None:
    """Make the maps for fine-tuning, because they give the vectors for the heads, too."""
    if not config.fine_tuning_epochs:
        print("no fine-tuning: the backbone stays frozen")
        return
    fine_tune_from = chosen_fine_tune_from(config)
    print(
        f"fine-tuning will go from {fine_tune_from} (`--fine-tune-from {config.fine_tune_from}`)",
        flush=True,
    )
    if fine_tune_from != PIXELS:
        datasets.store.make_feature_maps(config.fine_tuning_copies, fine_tune_from)


def _train(config: Config, datasets: Datasets, cache: Path, watch: Callable) -> FineTuned:
    """Train the head, then, unless it stays frozen, the backbone with it."""
    trained = train_head(config, datasets, cache, watch("head"))
    history = [{"stage": "head"} | row for row in trained.history]
    before = {name: trained.best[f"val_{name}"] for name in ("loss", "accuracy")}
    _print_outcome("the head", before)
    if not config.fine_tuning_epochs:
        return FineTuned(datasets.backbone, trained.head, history, before)
    tuned = fine_tune(config, datasets, trained, cache, watch(STAGE))
    _print_outcome(STAGE, tuned.validation)
    if tuned.validation["loss"] > before["loss"]:
        print("fine-tuning made it worse; `--fine-tuning-epochs 0` keeps the head", flush=True)
    return tuned._replace(history=[*history, *({"stage": STAGE} | row for row in tuned.history)])


def _print_outcome(stage: str, validation: dict[str, float]) -> None:
    accuracy, loss = validation["accuracy"], validation["loss"]
    print(f"after {stage}: validation accuracy {accuracy:.4f}, loss {loss:.4f}", flush=True)


def _show_on_board(
    run: Path, config: Config, trained: FineTuned, metrics: dict, seconds: float
) -> None:
    told = {f"validation_{name}": value for name, value in trained.validation.items()}
    if metrics:
        told["test_accuracy"] = metrics["accuracy"]
    tensor_board.add_settings(run, dataclasses.asdict(config), told, seconds)


def _write_outcome(
    results: Path, config: Config, trained: FineTuned, planned: Plan | None, start: float
) -> None:
    outcome = {
        "validation": trained.validation,
        "fine_tune_from": chosen_fine_tune_from(config),
        "budget": planned._asdict() if planned else None,
        "peak_memory_gb": cli.peak_memory(),
        "run": cli.provenance(start),
    }
    (results / "config.json").write_text(to_json(config), encoding="utf-8")
    (results / "training.json").write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    write_history(trained.history, results / "history.csv")
    drawings.save_png(drawings.learning_curves(trained.history), results / "learning_curves.png")


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"expected minutes, more than 0. Received: {text}")
    return minutes


def _options() -> argparse.ArgumentParser:
    options = cli.parser(
        "Train the classifier and save it as one self-contained .keras file.\n\n"
        "Without options the winner of `python -m tuning.search` is trained at 299 px, or, where\n"
        "no search was run, the best values of the course that this project grew out of.",
        "fashion_keras.final",
        "example:\n  python -m fashion_keras.final --data photos/ --weights imagenet",
    )
    options.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration whose values are the defaults of all other options "
        "(default: search/best_config.json in the results folder)",
    )
    others = [name for name in names() if name != "learning_rate"]
    cli.add_config_options(options, others, Config())
    add_rate_option(options)
    cli.add_folder_options(options)
    tensor_board.add_option(options)
    stopwatch.add_option(options)
    options.add_argument(
        "--budget",
        type=_minutes,
        metavar="MINUTES",
        help="leave out copies and passes of fine-tuning, so that all is done in about this time; "
        "the speed of this machine is measured first (default: as long as it takes)",
    )
    options.add_argument(
        "--data-licence",
        default="",
        metavar="TEXT",
        help="licence of the photos, to be told by the saved file (default: CC0-1.0 for "
        "`clothing`, else not stated)",
    )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, train, and say where everything is."""
    given = _options().parse_args(arguments)
    find_rate = take_auto(given)
    config = cli.chosen(given, _base(given.config, given.results))
    with stopwatch.profiled(given.profile):
        final(
            config,
            given.results / "final",
            given.cache,
            given.budget,
            given.data_licence,
            given.tensorboard,
            find_rate,
        )


def _base(file: Path | None, results: Path) -> Config:
    """Return the configuration to start from."""
    found = results / "search" / "best_config.json"
    if file is None and not found.exists():
        print("no search was run before: the course's best values are used")
        return Config()
    print(f"configuration: {file or found}")
    return read_config(file or found)


if __name__ == "__main__":
    cli.run(main)
