"""Numbers become charts: where lines, dots and ticks lie; a template draws them as SVG."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 400, 260  # Of the picture; letters are 12 high, so a phone shows it at full size.
# Of the field inside the axes; right of it half a number below the last tick has room.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 380, 12, 218
_LEAST_SHARES = 0.05  # Range of an axis of shares: one photo more or less is to look like little.
_MOST_TICKS = 6
STYLES = 4  # Colours with their dashes; a chart with more lines could not be read.


class Axis(NamedTuple):
    """One axis of a chart.

    Attributes:
        label: What is measured.
        low: Where it begins.
        high: Where it ends.
        log: Whether its steps are factors.
    """

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return how far along the axis a value lies, from 0 to 1."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


class Series(NamedTuple):
    """Points of one kind.

    Attributes:
        name: What they are, for the legend; series of the same name have one entry.
        points: Where they lie, `(x, y)`.
        style: Number of a colour with its dashes, below `STYLES`.
        line: Whether they are joined.
        radii: Of the dots; 0 for none, one for all or one for each.
        hollow: Whether dots are rings.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    line: bool = True
    radii: float | Sequence[float] = 0.0
    hollow: bool = False


def axis(label: str, values: Sequence[float], log: bool = False, share: bool = False) -> Axis:
    """Return an axis on which all values lie, with a little room.

    Args:
        label: What is measured.
        values: All values; those that are not finite do not count.
        log: Whether its steps are factors.
        share: Whether values are shares, so that it does not go past 0 and 1.
    """
    finite = [value for value in values if math.isfinite(value)] or [1.0]
    low, high = min(finite), max(finite)
    if log:
        room = 1.05 if low == high else (high / low) ** 0.04
        return Axis(label, low / room, high * room, log)
    room = 0.05 * (high - low) or 0.5 * (0.1 if share else 1)
    low, high = low - room, high + room
    return _shares(label, max(low, 0), min(high, 1)) if share else Axis(label, low, high)


def _shares(label: str, low: float, high: float) -> Axis:
    """Return an axis of shares that is no shorter than `_LEAST_SHARES`."""
    if high - low < _LEAST_SHARES:
        low = min(max((low + high - _LEAST_SHARES) / 2, 0.0), 1 - _LEAST_SHARES)
        high = low + _LEAST_SHARES
    return Axis(label, low, high)


def ticks(one: Axis, whole: bool = False) -> list[float]:
    """Return at most six round values on an axis, `whole` ones if only those mean anything."""
    if one.log:
        return _log_ticks(one)
    rough = (one.high - one.low) / (_MOST_TICKS - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(one.low / step - 1e-9), math.floor(one.high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _log_ticks(one: Axis) -> list[float]:
    powers = range(math.floor(math.log10(one.low)), math.ceil(math.log10(one.high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if one.low <= value <= one.high]
        if len(found) <= _MOST_TICKS:
            return found or [one.low]
    return found[:: math.ceil(len(found) / _MOST_TICKS)]


def chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], whole: bool = False, ideal: bool = False
) -> dict:
    """Return all that the template needs to draw a chart.

    Args:
        title: Stands above it.
        x: The horizontal axis.
        y: The vertical axis.
        series: What it shows; points that are not finite are left out.
        whole: Whether only whole numbers stand along the horizontal axis.
        ideal: Whether to draw the diagonal.
    """
    return {
        "title": title,
        "text": _in_words(title, x, y, series),
        "size": (WIDTH, HEIGHT),
        "field": (_LEFT, _TOP, _RIGHT, _BOTTOM),
        "x": {"label": x.label, "ticks": [(_across(x, at), f"{at:g}") for at in ticks(x, whole)]},
        "y": {"label": y.label, "ticks": [(_down(y, at), f"{at:g}") for at in ticks(y)]},
        "ideal": _diagonal(x, y) if ideal else None,
        "series": [_drawn(x, y, one) for one in series],
        "legend": _legend(series),
    }


def _across(x: Axis, value: float) -> float:
    return round(_LEFT + x.share(value) * (_RIGHT - _LEFT), 1)


def _down(y: Axis, value: float) -> float:
    return round(_BOTTOM - y.share(value) * (_BOTTOM - _TOP), 1)


def _diagonal(x: Axis, y: Axis) -> tuple[float, float, float, float]:
    low, high = max(x.low, y.low), min(x.high, y.high)
    return _across(x, low), _down(y, low), _across(x, high), _down(y, high)


def _drawn(x: Axis, y: Axis, one: Series) -> dict:
    radii = one.radii if isinstance(one.radii, Sequence) else [one.radii] * len(one.points)
    places = [
        (_across(x, across), _down(y, down), radius)
        for (across, down), radius in zip(one.points, radii, strict=True)
        if math.isfinite(across) and math.isfinite(down)
    ]
    return {
        "style": one.style,
        "line": " ".join(f"{across:g},{down:g}" for across, down, _ in places) if one.line else "",
        "dots": [place for place in places if place[2]],
        "hollow": one.hollow,
    }


def _legend(series: Sequence[Series]) -> list[dict]:
    first = {one.name: one for one in reversed(series)}
    return [
        {"name": name, "style": one.style, "line": one.line, "hollow": one.hollow}
        for name, one in sorted(first.items(), key=lambda item: series.index(item[1]))
    ]


def _in_words(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Tell a chart to those who cannot see it."""
    told = [f"{title}: {y.label} against {x.label}."]
    for one in series:
        points = [point for point in one.points if all(map(math.isfinite, point))]
        if points:
            best = max(points, key=lambda point: point[1])
            told.append(
                f"{one.name}: {len(points)} points, the first at {points[0][1]:.3g}, the last at "
                f"{points[-1][1]:.3g}, the highest at {best[1]:.3g} ({x.label} {best[0]:.3g})."
            )
    return " ".join(told[:7])
