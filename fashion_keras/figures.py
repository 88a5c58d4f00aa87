"""Draws pictures of what a training run wrote down: learning curves and the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fashion_keras.fine_tuning import STAGE


def draw_learning_curves(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw loss and accuracy over epochs, for training and validation, as PNG.

    Args:
        rows: One row an epoch with its stage (see `ensemble.Ensemble`). Heads and fine-tuning are
            drawn beside each other; the epoch of each head that was kept, that with the lowest
            validation loss, is marked; of fine-tuning the last one is.
        file: Where to save the picture.
    """
    tuned = [row for row in rows if row["stage"] == STAGE]
    parts = [[row for row in rows if row["stage"] != STAGE], tuned]
    parts = [part for part in parts if part]
    figure = Figure(figsize=(9, 3.6 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False)
    for line, part in zip(grid, parts, strict=True):
        for axes, metric in zip(line, ("loss", "accuracy"), strict=True):
            _draw_stages(axes, part, metric)
    figure.savefig(file, dpi=110)


def _draw_stages(axes: Any, rows: list[dict[str, Any]], metric: str) -> None:
    for stage in sorted({row["stage"] for row in rows}):
        chosen = [row for row in rows if row["stage"] == stage]
        tuning = stage == STAGE
        kept = chosen[-1] if tuning else min(chosen, key=lambda row: row["val_loss"])
        epochs = [row["epoch"] for row in chosen]
        axes.plot(epochs, [row[metric] for row in chosen], "C0.-", linewidth=1)
        axes.plot(epochs, [row[f"val_{metric}"] for row in chosen], "C1.-", linewidth=1)
        axes.plot(kept["epoch"], kept[f"val_{metric}"], "ko", zorder=3)
    axes.set(
        xlabel="pass of fine-tuning" if rows[0]["stage"] == STAGE else "epoch of each head",
        ylabel=metric,
    )
    axes.grid(alpha=0.3)
    axes.legend(axes.get_lines()[:3], ["training", "validation", "kept"])


def draw_confusion(table: np.ndarray, labels: Sequence[str], title: str, file: Path) -> None:
    """Draw a confusion matrix as PNG: counts as text, shares of each true class as colour.

    Args:
        table: Photos by true class (rows) and predicted class (columns).
        labels: Name of each class.
        title: Text above the picture.
        file: Where to save it.
    """
    side = min(3 + 0.5 * len(labels), 40)  # Inches; Matplotlib draws no more than 65,536 pixels.
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    # A label is no formula, whatever dollar signs it has.
    axes.set_xticks(range(len(labels)), labels, parse_math=False, **turned)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    figure.savefig(file, dpi=110)
