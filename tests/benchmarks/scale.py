"""Reckons what the whole pipeline costs for any number of photos, from what single photos cost.

    python -m tests.benchmarks.scale

Reads what other benchmarks and the released run measured (`results/`), adds what is published of
graphics cards and what is assumed of prices (`costs.py`), and writes `results/scale.md`. Nothing
in it is typed by hand: after a new measurement this program makes it anew.
"""

import math
from pathlib import Path

from fashion_keras import cli
from tests.benchmarks.costs import MACHINES, Machine, Stage, Units, read_units, stages_of
from tests.benchmarks.scale_text import document

COUNTS = (4_000, 400_000, 40_000_000)


def seconds_of(stage: Stage, machine: Machine, units: Units) -> float:
    """Return how long a stage takes on a machine."""
    boxes = machine.boxes if stage.spreads else 1
    if stage.kind == "prepare":
        return stage.amount / (units.prepare * machine.cores / units.cores)
    if stage.kind == "head":
        workers = max(1.0, boxes * max(1, machine.gpus) * machine.parallel) if stage.spreads else 1
        return (stage.amount / units.head + stage.starts * units.start) / workers
    if not machine.gpus:
        return stage.amount / getattr(units, stage.kind)
    card = {"small": units.card_small, "large": units.card_large, "tune": units.card_tune}
    decoded = boxes * machine.cores * units.prepare / units.cores
    return stage.amount / min(boxes * machine.gpus * card[stage.kind], decoded)


def table(machine: Machine, units: Units) -> list[str]:
    """Return the costs on one kind of machine as Markdown."""
    lines = [f"| {machine.name} | " + " | ".join(f"{count:,} photos" for count in COUNTS) + " |"]
    lines.append("| --- |" + " ---: |" * len(COUNTS))
    columns = [stages_of(count, machine) for count in COUNTS]
    for row in zip(*columns, strict=True):
        told = " | ".join(told_time(seconds_of(stage, machine, units)) for stage in row)
        lines.append(f"| {row[0].name} | {told} |")
    totals = [sum(seconds_of(stage, machine, units) for stage in column) for column in columns]
    disks = [disk_of(count, machine, units) for count in COUNTS]
    money = [money_of(*both, machine) for both in zip(totals, disks, strict=True)]
    held = [units.memory_gb(count) for count in COUNTS]
    for name, told in (
        ("**together**", [told_time(total) for total in totals]),
        ("disk beside the photos", [told_bytes(disk) for disk in disks]),
        ("memory of the largest command", [f"{one:,.1f} GB" for one in held]),
        ("money", [f"${one:,.2f}" if one < 10 else f"${one:,.0f}" for one in money]),
    ):
        lines.append(f"| {name} | " + " | ".join(told) + " |")
    return lines


def disk_of(count: int, machine: Machine, units: Units) -> float:
    """Return the bytes that vectors, maps and prepared photos take."""
    stages = stages_of(count, machine)
    vectors = sum(stage.kept for stage in stages)
    maps = sum(stage.kept for stage in stages if stage.kind == "maps")
    return vectors * units.vector_bytes + maps * units.map_bytes + count * units.link


def money_of(seconds: float, disk: float, machine: Machine) -> float:
    """Return the price of machines while the pipeline runs, and of the disk for that time."""
    hours = seconds / 3600
    return hours * (machine.boxes * machine.hourly + disk / 1e9 * machine.gigabyte_hourly)


def told_time(seconds: float) -> str:
    """Return a length of time for people, up to years."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 48 * 3600:
        return cli.duration(seconds)
    days = seconds / 86_400
    return f"{days:.0f} days" if days < 400 else f"{days / 365:.1f} years"


def told_bytes(size: float) -> str:
    """Return a size for people."""
    power = min(5, max(2, int(math.log10(size) // 3)))
    return f"{size / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def reckon(results: Path) -> str:
    """Return the document that the measurements in a results folder give."""
    units = read_units(results)
    tables = [line for machine in MACHINES for line in [*table(machine, units), ""]]
    return document(tables, units)


def main() -> None:
    """Reckon and write the document."""
    options = cli.parser(__doc__ or "", "tests.benchmarks.scale")
    options.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    given = options.parse_args()
    text = reckon(given.results)
    (given.results / "scale.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    cli.run(main)
