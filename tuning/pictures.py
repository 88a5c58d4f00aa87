"""Draws pictures of a search: the space it went through, and what each knob does."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tuning.compare import CURVES


def draw_space(rows: Sequence[dict], file: Path) -> None:
    """Draw each completed trial's validation accuracy against each knob, as PNG.

    Args:
        rows: Rows of `trials.csv`.
        file: Where to save the picture.
    """
    rows = [row for row in rows if row["status"] == "COMPLETED"]
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, len(CURVES), sharey=True)
    epochs = Normalize(1, max(float(row["last_epoch"]) for row in rows))
    for axes, knob in zip(panels, CURVES, strict=True):
        for augmented_copies, marker in ((False, "x"), (True, "o")):
            chosen = [
                row for row in rows if bool(float(row["augmented_copies"])) == augmented_copies
            ]
            axes.scatter(
                [float(row[knob]) for row in chosen],
                [float(row["val_accuracy"]) for row in chosen],
                c=[float(row["last_epoch"]) for row in chosen],
                norm=epochs,
                marker=marker,
                label="with augmented copies" if augmented_copies else "without",
            )
        axes.set(xlabel=knob.replace("_", " "), xscale="linear" if knob == "droprate" else "log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("validation accuracy")
    panels[0].legend()
    figure.colorbar(ScalarMappable(epochs), ax=panels, label="trained to epoch")
    figure.savefig(file, dpi=110)


def draw_knob(rows: Sequence[dict], knob: str, file: Path) -> None:
    """Draw validation accuracy over epochs, one line for each value of a knob, as PNG.

    Args:
        rows: See `compare.knob_curves`.
        knob: The knob.
        file: Where to save the picture.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for value in CURVES[knob]:
        chosen = [row for row in rows if row["knob"] == knob and row["value"] == value]
        axes.plot(
            [row["epoch"] for row in chosen],
            [row["val_accuracy"] for row in chosen],
            label=f"{value:g}",
        )
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend(title=knob.replace("_", " "))
    figure.savefig(file, dpi=110)
