"""Measures validation accuracy against the number of augmented copies.

    python -m tests.benchmarks.copies --data clothing --weights imagenet

The course's head (learning rate 0.0005, inner size 100, droprate 0.2) is trained at 150 px on the
photos themselves and 0, 1, 2, 4 or 8 augmented copies of each, with three seeds each, up to 100
epochs, the epoch with the lowest validation loss kept. Writes `results/benchmarks/copies.json` and
the table `results/copies.md`.
"""

import dataclasses
import json
import statistics
import time

from fashion_keras import cli
from fashion_keras.config import Config
from fashion_keras.data.prepare import prepare
from fashion_keras.training import Datasets, fit_head, head_data, open_datasets

VIEWS = (0, 1, 2, 4, 8)
SEEDS = range(1, 4)


def measure(config: Config, datasets: Datasets) -> dict:
    """Train with several seeds; return mean and standard deviation of accuracy and loss."""
    data = head_data(config, datasets)
    best = [fit_head(dataclasses.replace(config, seed=seed), data).best for seed in SEEDS]
    row: dict[str, float] = {"augmented_copies": config.augmented_copies}
    for metric in ("val_accuracy", "val_loss"):
        values = [one[metric] for one in best]
        row[metric] = round(statistics.mean(values), 4)
        row[f"{metric}_spread"] = round(statistics.stdev(values), 4)
    return row | {"best_epoch": statistics.median(one["epoch"] for one in best)}


def table(rows: list[dict], run: dict) -> str:
    """Return the rows as Markdown."""
    lines = [
        "# Augmented copies",
        "",
        "Validation accuracy and loss at 150 px against the number of augmented copies that are",
        "kept of each training photo beside the photo itself (mean ± standard deviation over",
        f"{len(SEEDS)} seeds; one of the 341 validation photos is 0.0029).",
        "",
        "| copies | accuracy | loss | median best epoch |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        accuracy = f"{row['val_accuracy']:.4f} ± {row['val_accuracy_spread']:.4f}"
        loss = f"{row['val_loss']:.4f} ± {row['val_loss_spread']:.4f}"
        lines.append(f"| {row['copies']} | {accuracy} | {loss} | {row['best_epoch']:g} |")
    return "\n".join([*lines, "", f"Command: `{run['command']}`, {run['machine']}.", ""])


def main() -> None:
    """Measure each number of copies and write the table."""
    start = time.monotonic()
    options = cli.parser(__doc__ or "", "tests.benchmarks.copies")
    base = Config(image_size=150, epochs=100)
    cli.add_config_options(options, ("data", "weights"), base)
    cli.add_folder_options(options)
    given = options.parse_args()
    config = dataclasses.replace(cli.chosen(given, base), augmented_copies=max(VIEWS))
    prepared = prepare(config.data, given.cache)
    datasets = open_datasets(config, prepared, given.cache)
    rows = []
    for augmented_copies in VIEWS:
        changed = dataclasses.replace(config, augmented_copies=augmented_copies)
        rows.append(measure(changed, datasets))
        print(rows[-1], flush=True)
    run = cli.provenance(start)
    folder = given.results / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "copies.json").write_text(json.dumps({"rows": rows, "run": run}, indent=2) + "\n")
    (given.results / "copies.md").write_text(table(rows, run), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
