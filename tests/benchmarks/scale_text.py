"""The words of `results/scale.md` around its tables, with the numbers put into them."""

from fashion_keras.cli import duration as told
from tests.benchmarks import costs
from tests.benchmarks.costs import TRAIN, Units

_MANY, _MOST = 400_000, 40_000_000


def document(tables: list[str], units: Units) -> str:
    """Return the document.

    Args:
        tables: Lines of the tables of costs.
        units: What they were reckoned from.
    """
    run = units.run
    parts = [
        "# What it costs",
        "",
        "The whole pipeline with the defaults, from photos in folders to a tested file and a",
        "prediction for as many photos again; a tenth of them is for validation, a tenth for the",
        "test. Reckoned from what single photos cost, by `python -m tests.benchmarks.scale`.",
        "",
        *tables,
        "With a graphics card fine-tuning begins with photos and keeps no maps; validation, which",
        "every pass looks at, counts for a third. The network disk is paid for while it runs.",
        "",
        "## Breaks first",
        "",
        *_breaks(units),
        "",
        "## Memory",
        "",
        *_memory(units),
        "",
        "## Measured, published, extrapolated, assumed",
        "",
        *_origins(units),
        "",
        f"{run['machine']}, Python {run['python']}, Keras {run['versions']['keras']}, TensorFlow "
        f"{run['versions']['tensorflow']}.",
        "",
    ]
    return "\n".join(parts)


def _breaks(units: Units) -> list[str]:
    view, augmented_copies = units.map_bytes / 1e6, costs.VIEWS + 1
    maps = (augmented_copies * TRAIN + costs.HELD_OUT) * _MANY * units.map_bytes / 1e12
    growth = units.memory_gb(_MOST)
    epoch = TRAIN * _MANY / units.head
    searched = costs.EPOCHS + costs.AFTER * costs.LONGEST
    held_out = costs.HELD_OUT * _MOST
    return [
        "In the order in which growing data meets it:",
        "",
        f"1. Maps on disk, from some 100,000 photos on: {view:.2f} MB for each of "
        f"{augmented_copies} copies, {maps:.1f} TB for 400,000 photos. "
        "The command says so and stops before it begins. "
        "Instead: `--fine-tune-from pixels` with a graphics card (no maps), fewer "
        "`--fine-tuning-copies`, or a "
        "higher `--fine-tune-from`.",
        f"2. The training of heads, one short step after the other: {told(epoch)} an epoch of "
        f"400,000 photos, {told(searched * epoch)} for the {searched:,} epochs of a search. A "
        "graphics card does not help steps this short. Instead: a larger `--batch-size`, fewer "
        "`--max-epochs` (many photos need fewer passes), `--workers` in the search.",
        "3. Hyperband itself: its rounds shrink from 34 trials to 1, so most workers wait in the "
        "end; the chief, who gives trials out in one thread, has little to do. Instead: ASHA, "
        "which waits for no round.",
        "4. `prepare` is one process on one machine, and puts all links of a class in one folder. "
        "Millions of entries in a folder are slow on ext4 and NFS. Instead: a list of paths in "
        "place of links, checked in shards like vectors.",
        f"5. Lists in memory: `photos.csv`, names, what photos look like. {growth:,.0f} GB for 40 "
        "million photos, on a straight line. Instead: the same table in columns (Parquet), read "
        "in parts.",
        f"6. Validation: {held_out / 1e6:.0f} million photos after every pass tell nothing that "
        "20,000 do not. Instead: splits of your own with a smaller `validation`.",
        "7. Comparing every photo with all others for outliers (`check --vectors`): the work grows "
        "with the square of their number. Instead: an approximate index. What photos look like is "
        "compared by sorting, which does not.",
        "8. One `.npy` file for each view: 40 million vectors are "
        f"{_MOST * TRAIN * units.vector_bytes / 1e12:.2f} TB in one file. `--shard` of "
        "`fashion_keras.vectors` makes it in pieces on many machines, and search and training read "
        "the pieces as one array.",
        "9. Fine-tuning is at home in one box: several graphics cards in it, not several boxes.",
    ]


def _memory(units: Units) -> list[str]:
    lines = [
        "Largest resident set of each command, mapped files included, with a cheap backbone in",
        f"Xception's place, which takes {units.xception:.1f} GB more whatever the number of photos",
        "(measured on the test photos of clothing-dataset-small;",
        "[memory.json](benchmarks/memory.json), `python -m tests.benchmarks.memory`):",
        "",
        "| command | 4,000 photos | 100,000 photos | difference |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, (few, many) in units.memory.items():
        lines.append(f"| {name} | {few:.2f} GB | {many:.2f} GB | {many - few:+.2f} GB |")
    if units.unmeasured:
        lines += ["", f"Not measured yet with 100,000 photos: {'; '.join(units.unmeasured)}."]
    return lines


def _origins(units: Units) -> list[str]:
    ran, reckoned = units.search
    return [
        f"- Measured on {units.cores} cores without a graphics card, in photos a second: prepared "
        f"{units.prepare:.0f} (with splits); through Xception at 150 px {units.small:.0f}, at "
        f"299 px {units.large:.1f}, with maps kept {units.maps:.1f}; in fine-tuning from block11 "
        f"{units.tune:.1f}; in the training of a head {units.head:,.0f}, and {units.start:.1f} s "
        f"to begin one. A vector takes {units.vector_bytes:,} bytes, maps {units.map_bytes:,}, a "
        f"prepared photo {units.link:,}, a photo {units.photo_bytes:,}. Preparing and maps were "
        "timed while others used the machine, by the time of the processor.",
        "- A check of the sums: with these units the search of the released model should take "
        f"{reckoned / 60:.0f} minutes, and took {ran / 60:.0f}.",
        f"- Published, not measured here: an RTX 3090 puts {costs.PUBLISHED_FORWARD:.0f} photos a "
        f"second through Xception at 299 px and trains {costs.PUBLISHED_TRAINING:.0f} (timm's "
        f"tables, PyTorch, mixed precision). {costs.SHARE_OF_PUBLISHED:.0%} of it is reckoned "
        "with; at 150 px more in proportion to the multiplications. No command has run on a "
        "graphics card here.",
        "- Extrapolated: everything beyond 4,000 photos is proportional, but that a machine with "
        "graphics cards is never faster than its cores decode; cores and boxes add up. Epochs are "
        "those of the small data set; more photos need fewer.",
        "- Assumed, as of November 2026 and not asked for anywhere: 60 W at $0.30 a kWh for the "
        f"laptop; ${costs.MACHINES[1].hourly:.2f} an hour for the box, "
        f"${costs.MACHINES[2].hourly:.2f} for each of the cluster's; $0.08 a GB and month of disk; "
        f"{costs.MACHINES[2].parallel:.0%} of the cluster's workers have a trial at a time.",
    ]
