"""Draws every picture: charts as PNG and SVG, confusion matrices, sheets of photos."""

import functools
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from fashion_keras.config import Config
from fashion_keras.data.photo import read_photo
from fashion_keras.data.prepare import Prepared

FINE_TUNING = "fine-tuning"  # This stage of a history; the others train a head.
SCALES = {
    "learning_rate": "log",
    "fine_tuning_learning_rate": "log",
    "inner_size": "log",
    "droprate": "linear",
    "label_smoothing": "linear",
    "rotation": "linear",
}
Rows = Sequence[Mapping[str, Any]]

_MOST_CLASSES = 40  # In a confusion matrix, which could not be read with more.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "Microsoft YaHei", "SimHei"),
    *("PingFang SC", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei"),
    *("Noto Sans Arabic", "Geeza Pro", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Hebrew"),
    *("Noto Sans Thai", "Segoe UI", "Arial Unicode MS"),
)
_PANEL = (4.4, 3.1)  # Inches.
_LOOKS = (("#0b62a8", "-"), ("#c04a00", "--"), ("#1a1c1f", ":"), ("#8a3a84", "-."))
_MANY = 500  # More dots than these are stored in an SVG as pixels.
_LEAST_SHARES = 0.05  # Range of an axis of shares: one photo more or less should look like little.
_TILE, _TILE_PIXELS = 1.9, 180  # Inches, pixels.
_LETTERS, _LINES = 34, 4  # What fits under a photo.
_BATCH, _COPIES = 12, 5  # Photos of `draw_batch`, and augmented copies of each.


class Series(NamedTuple):
    """Points of one kind in a chart; those whose `y` is not finite are left out."""

    label: str  # In the legend; empty for none.
    x: Sequence[float]
    y: Sequence[float]
    look: int = 0  # Number of a colour with its dashes.
    marker: str = ""  # Matplotlib's name of it.
    sizes: Sequence[float] | None = None  # Areas of dots in square points; None for a line.


class Chart(NamedTuple):
    """A chart that can be drawn by itself or as one panel of a picture."""

    title: str
    x: str  # What is on the horizontal axis.
    y: str
    series: Sequence[Series]
    scale: str = "linear"  # Of the horizontal axis: or `log`, or `whole` for whole numbers.
    shares: bool = True  # Whether the vertical axis shows shares, from 0 to 1.

    def describe(self) -> str:
        """Return the chart in words, for readers who cannot see it."""
        words = [f"{self.title}: {self.y} against {self.x}."]
        for one in self.series:
            shown = [value for value in one.y if math.isfinite(value)]
            if one.label and shown:
                words.append(
                    f"{one.label}: {len(shown)} points, the first at {shown[0]:.3g}, the last at "
                    f"{shown[-1]:.3g}, the highest at {max(shown):.3g}."
                )
        return " ".join(words)


def save_png(charts: Sequence[Chart], file: Path, columns: int = 2) -> None:
    """Draw charts as the panels of one PNG file."""
    lines = math.ceil(len(charts) / columns)
    figure = Figure((_PANEL[0] * columns, _PANEL[1] * lines), dpi=110, layout="constrained")
    figure.subplots(lines, columns, squeeze=False)
    for axes, chart in zip(figure.axes, charts, strict=False):
        _draw(axes, chart)
        axes.set_title(chart.title, size="medium")
    figure.savefig(file)


def as_svg(chart: Chart) -> str:
    """Return a chart as an SVG element with a text alternative.

    Charts with different titles share no ids; the same chart always gives the same element.
    """
    figure = Figure(_PANEL, layout="constrained")
    _draw(figure.subplots(), chart)
    file, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": chart.title, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", dpi=110, metadata=nothing)
    svg = " ".join(file.getvalue().partition("<svg ")[2].split())
    prefix = re.sub(r"\W+", "-", chart.title.lower())
    svg = re.sub(r'( id="|="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return f'<svg class="chart" role="img" aria-label="{escape(chart.describe())}" {svg}'


def _draw(axes: Axes, chart: Chart) -> None:
    for one in chart.series:
        colour, dashes = _LOOKS[one.look % len(_LOOKS)]
        same: dict[str, Any] = {"color": colour, "marker": one.marker, "label": one.label or "_"}
        if one.sizes is None:
            axes.plot(one.x, one.y, dashes, linewidth=1.2, markersize=4, **same)
        else:
            same |= {"alpha": 0.7, "clip_on": False, "rasterized": len(one.x) > _MANY}
            axes.scatter(one.x, one.y, one.sizes, **same)
    axes.set(xlabel=chart.x, ylabel=chart.y)
    axes.grid(alpha=0.3)
    if chart.scale == "log":
        axes.set_xscale("log")
    elif chart.scale == "whole":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.shares:
        low, high = axes.get_ylim()
        half = min(max(high - low, _LEAST_SHARES), 1) / 2
        middle = min(max((low + high) / 2, half), 1 - half)
        axes.set_ylim(middle - half - 0.004, middle + half + 0.004)
    if sum(bool(one.label) for one in chart.series) > 1:
        axes.legend(fontsize="small")


def learning_curves(history: Rows) -> list[Chart]:
    """Return charts of accuracy and loss over epochs, of the head and, where it was, fine-tuning.

    Args:
        history: One row an epoch: `stage`, `epoch`, `loss`, `accuracy`, `val_loss`,
            `val_accuracy`. The epoch with the lowest validation loss, which was kept, is marked.
    """
    parts: dict[str, list] = {"Head": [], "Fine-tuning": []}
    for row in history:
        parts["Fine-tuning" if row["stage"] == FINE_TUNING else "Head"].append(row)
    return [
        Chart(f"{title}: {name}", "epoch", name, _epochs(rows, name), "whole", name != "loss")
        for title, rows in parts.items()
        for name in ("accuracy", "loss")
        if rows
    ]


def _epochs(rows: Rows, metric: str) -> list[Series]:
    series = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        run = [row for row in rows if row["stage"] == stage]
        kept = min(run, key=lambda row: row["val_loss"])
        epochs, name = _column(run, "epoch"), f"val_{metric}"
        # Several heads, as older versions trained, have one entry in the legend.
        labels = ("", "", "") if series else ("training", "validation", "kept")
        series += [
            Series(labels[0], epochs, _column(run, metric), 0, "."),
            Series(labels[1], epochs, _column(run, name), 1, "."),
            Series(labels[2], [kept["epoch"]], [kept[name]], 2, "o"),
        ]
    return series


def _column(rows: Rows, name: str) -> list[float]:
    return [float("nan" if row[name] in (None, "") else row[name]) for row in rows]


def trial_charts(trials: Rows) -> list[Chart]:
    """Return a chart of the validation score of trials for each hyperparameter.

    The more epochs a trial was trained, the larger its dot; failed trials have none. The rows
    are those of `trials.csv`.
    """
    done = [row for row in trials if row["status"] == "COMPLETED"]
    most, (metric, axis, shares) = max(_column(done, "last_epoch"), default=1), trial_score(done)
    kinds, charts = sorted(set(map(_kind, done))), []
    for name in (name for name in SCALES if done and name in done[0]):
        series, words = [], name.replace("_", " ")
        for look, kind in enumerate(kinds[: len(_LOOKS)]):
            rows = [row for row in done if _kind(row) == kind]
            sizes = [10 + 50 * epochs / most for epochs in _column(rows, "last_epoch")]
            points = _column(rows, name), _column(rows, metric)
            series.append(Series(kind, *points, look, "ox^s"[look], sizes))
        charts.append(Chart(f"Trials by {words}", words, axis, series, SCALES[name], shares))
    return charts


def _kind(trial: Mapping[str, Any]) -> str:
    if "fine_tune_from" in trial:
        return f"from {trial['fine_tune_from']}"
    return "with augmented copies" if trial["augmented_copies"] > 0 else "without"


def trial_score(trials: Rows) -> tuple[str, str, bool]:
    """Return the column that trials are judged by, its axis, and whether it has shares."""
    if trials and "val_balanced_accuracy" in trials[0]:
        return "val_balanced_accuracy", "validation balanced accuracy", True
    if trials and "val_log_loss" in trials[0]:
        return "val_log_loss", "validation log loss", False
    return "val_accuracy", "validation accuracy", True


def best_so_far(trials: Rows) -> Chart:
    """Return a chart of the best validation score after each trial of `trials.csv`."""
    metric, axis, shares = trial_score(trials)
    better = np.fmax if shares else np.fmin
    best = better.accumulate(_column(trials, metric)).tolist()
    series = Series("best", range(1, len(best) + 1), best)
    return Chart("Best trial so far", "trials", axis, [series], "whole", shares)


def hyperparameter_chart(curves: Rows, name: str) -> Chart:
    """Return a chart of accuracy over epochs with a line for each value of a hyperparameter.

    The rows are those of `curves.csv`: `hyperparameter`, `value`, `epoch` and `val_accuracy`.
    """
    chosen, series = [row for row in curves if row["hyperparameter"] == name], []
    for value in dict.fromkeys(row["value"] for row in chosen):
        rows = [row for row in chosen if row["value"] == value]
        points = _column(rows, "epoch"), _column(rows, "val_accuracy")
        series.append(Series(f"{value:g}", *points, len(series)))
    title = f"Accuracy for each {name.replace('_', ' ')}"
    return Chart(title, "epoch", "validation accuracy", series, "whole")


@functools.cache
def _letters() -> frozenset[int]:
    """Return the letters that can be drawn; fonts of the system that have more are used, too."""
    installed = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in _FONTS if name in installed)]
    matplotlib.rcParams["font.family"] = fonts
    files = [font_manager.findfont(name) for name in fonts]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def drawable(text: str) -> str:
    """Return a text with an escape in place of each letter that no font has."""
    return "".join(
        letter if letter == "\n" or ord(letter) in _letters() else ascii(letter)[1:-1]
        for letter in text
    )


def drawable_labels(labels: Sequence[str]) -> list[str]:
    """Return labels for a picture: the number of the class where no font has the letters."""
    pairs = enumerate(labels)
    return [label if drawable(label) == label else f"class {number}" for number, label in pairs]


def draw_confusion(
    table: np.ndarray, labels: Sequence[str], title: str, file: Path | BinaryIO
) -> None:
    """Draw a confusion matrix (see `metrics.confusion`) as PNG, each row in shares as colours.

    Of many classes those with the most mistakes are drawn.
    """
    labels = drawable_labels(labels)
    if len(labels) > _MOST_CLASSES:
        title += f"\nthe {_MOST_CLASSES} most confused of {len(labels)} classes"
        mistakes = table.sum(axis=0) + table.sum(axis=1) - 2 * table.diagonal()
        kept = np.sort(np.argsort(-mistakes, kind="stable")[:_MOST_CLASSES])
        table, labels = table[np.ix_(kept, kept)], [labels[number] for number in kept]
    side = 3 + 0.5 * len(labels)  # Inches.
    figure = Figure((side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    plain: dict[str, Any] = {"parse_math": False}  # No formulas, whatever dollar signs they have.
    turned = plain | {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(labels)), labels, **turned)
    axes.set_yticks(range(len(labels)), labels, **plain)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    figure.savefig(file)


class Tile(NamedTuple):
    """A photo, `(height, width, 3)` uint8 of any size, and the words under it."""

    pixels: np.ndarray
    words: str  # Cut in the middle if they do not fit.


def tile_of(file: Path, words: str) -> Tile:
    """Return a photo's file as a tile; raise `PhotoError` if it cannot be read."""
    image = Image.fromarray(read_photo(file).pixels)
    image.thumbnail((_TILE_PIXELS, _TILE_PIXELS))
    return Tile(np.asarray(image), words)


def draw_sheet(rows: Sequence[Sequence[Tile]], title: str, file: Path | BinaryIO) -> None:
    """Draw rows of photos, at least one in all, as PNG; rows need not be equally long."""
    columns, lines = max(4, *map(len, rows)), len(rows)
    figure = Figure((_TILE * columns, (_TILE + 0.5) * lines + 0.4), dpi=100, layout="constrained")
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        axes.set_axis_off()
    for line, tiles in enumerate(rows):
        for axes, tile in zip(figure.axes[line * columns :], tiles, strict=False):
            axes.imshow(tile.pixels)
            axes.set_title(_fitted(tile.words), y=0, va="top", pad=-3, size=6.5, parse_math=False)
    figure.suptitle(title, size=10, parse_math=False)
    figure.savefig(file)


def _fitted(words: str) -> str:
    lines = [line for part in drawable(words).split("\n") for line in textwrap.wrap(part, _LETTERS)]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], "…" + lines[-1][1 - _LETTERS :]]
    return "\n".join(lines)


def draw_batch(prepared: Prepared, config: Config, file: Path) -> None:
    """Draw training photos, each with augmented copies, as the reader and layers give them."""
    from fashion_keras.backend import array
    from fashion_keras.data.batches import arrays, load_split
    from fashion_keras.model import build_augmentation

    batches = load_split(prepared, "train", config.image_size, _BATCH, config.seed)
    pixels, numbers = next(arrays(batches))
    copies = [
        build_augmentation(config, config.augmentation_seed + 1000 * copy)(pixels, training=True)
        for copy in range(1, _COPIES + 1)
    ]
    shown = np.stack([pixels, *map(array, copies)]).round().clip(0, 255).astype("uint8")
    words = [f"copy {copy}" for copy in range(1, _COPIES + 1)]
    rows = [
        [Tile(*tile) for tile in zip(photo, [prepared.labels[int(number)], *words], strict=True)]
        for photo, number in zip(shown.swapaxes(0, 1), numbers, strict=True)
    ]
    title = f"training photos at {config.image_size} px, and augmented copies of each"
    draw_sheet(rows, title, file)
