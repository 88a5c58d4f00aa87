"""Measures what each choice of the recipe is worth, by cross-validation over the training photos.

    python -m tests.benchmarks.ablation heads
    python -m tests.benchmarks.ablation photos
    python -m tests.benchmarks.ablation tuning --image-size 150

One row a choice: the photos of the training split are divided into folds by class; each fold is
scored by a model trained on the others, so that every one of them counts once a seed. `heads`
trains heads on features, `photos` changes the photos before features are computed, `tuning`
fine-tunes the backbone. Writes `results/benchmarks/ablation.json` and the table
`results/ablation.md`; a choice that was measured with the same settings is not measured again.
"""

import functools
import json
import statistics
from collections.abc import Callable, Iterator

from fashion_keras import cli
from fashion_keras.config import Config
from tests.benchmarks import ablation_heads, ablation_photos, ablation_tuning
from tests.benchmarks.common import parser, provenance, write
from tests.benchmarks.folds import Row, cross_validate

GROUPS: dict[str, Callable[..., Iterator[Row]]] = {
    "heads": ablation_heads.rows,
    "photos": ablation_photos.rows,
    "tuning": ablation_tuning.rows,
}
HEADER = """\
# Ablation

What each choice is worth, by cross-validation over the 3068 training photos: accuracy and
log loss on photos that the model has not seen, mean ± standard deviation over the runs, and
the mean difference to the first row of the group, run by run (± its standard error). The
runs are the folds, of each seed; the log loss is that after calibration. One photo is
0.0003. The test split was not used.
"""
GROUP = """
## {name}, {settings[image_size]} px, {settings[folds]} folds

Command: `{run[command]}`, {run[machine]}.

| choice | accuracy | difference | log loss | difference | runs |
| --- | --- | --- | --- | --- | --- |
"""


def table(groups: dict[str, dict]) -> str:
    """Return all groups as Markdown."""
    text = HEADER
    for name, group in groups.items():
        rows = group["rows"]
        text += GROUP.format(name=name, **group) + "".join(_line(row, rows[0]) for row in rows)
    return text


def _line(row: dict, first: dict) -> str:
    runs, columns = len(row["accuracy"]), []
    for name in ("accuracy", "log_loss"):
        shift = [one - other for one, other in zip(row[name], first[name], strict=True)]
        error = f" ± {statistics.stdev(shift) / runs**0.5:.4f}" if runs > 1 else ""
        spread = f" ± {statistics.stdev(row[name]):.4f}" if runs > 1 else ""
        columns.append(f"{statistics.mean(row[name]):.4f}{spread}")
        columns.append(f"{statistics.mean(shift):+.4f}{error}" if row is not first else "")
    return f"| {row['choice']} | {' | '.join(columns)} | {runs} |\n"


def main() -> None:
    """Measure one group and write the whole table."""
    options = parser("ablation", __doc__, ("data", "weights", "image_size"))
    options.add_argument("group", choices=list(GROUPS), help="which choices to measure")
    options.add_argument("--seeds", type=int, default=3, metavar="INT", help="(default: 3)")
    options.add_argument("--folds", type=int, default=2, metavar="INT", help="(default: 2)")
    given = options.parse_args()
    config = cli.chosen(given, Config())
    file = given.results / "benchmarks" / "ablation.json"
    groups = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    settings = {"image_size": config.image_size, "seeds": given.seeds, "folds": given.folds}
    before = groups.get(given.group, {})
    known = before.get("rows", []) if before.get("settings") == settings else []
    done = {row["choice"]: row for row in known}
    validate = functools.partial(cross_validate, given.seeds, given.folds)
    found = []
    for choice, measure in GROUPS[given.group](config, given.cache, validate):
        found.append(done.pop(choice, None) or {"choice": choice, **measure()})
        print(_line(found[-1], found[0]), end="", flush=True)
        group = {"settings": settings, "rows": [*found, *done.values()], "run": provenance()}
        groups[given.group] = group
        write(given.results, "ablation", groups)
        (given.results / "ablation.md").write_text(table(groups), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
