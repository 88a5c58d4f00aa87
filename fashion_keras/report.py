"""Draws pictures of what a training run wrote down: learning curves and the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def draw_learning_curves(rows: Sequence[dict[str, float]], file: Path) -> None:
    """Draw loss and accuracy over epochs, for training and validation, as PNG.

    Args:
        rows: One row an epoch of each head (see `training.Ensemble`); the epoch of each head
            that was kept, that with the lowest validation loss, is marked.
        file: Where to save the picture.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    heads = sorted({row["head"] for row in rows})
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for head in heads:
            chosen = [row for row in rows if row["head"] == head]
            epochs = [row["epoch"] for row in chosen]
            kept = min(chosen, key=lambda row: row["val_loss"])
            axes.plot(epochs, [row[metric] for row in chosen], "C0.-", linewidth=1)
            axes.plot(epochs, [row[f"val_{metric}"] for row in chosen], "C1.-", linewidth=1)
            axes.plot(kept["epoch"], kept[f"val_{metric}"], "ko", zorder=3)
        axes.set(xlabel="epoch", ylabel=metric)
        axes.grid(alpha=0.3)
        handles = axes.get_lines()[:3]
        axes.legend(handles, ["training", "validation", "kept epoch of each head"])
    figure.savefig(file, dpi=110)


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
