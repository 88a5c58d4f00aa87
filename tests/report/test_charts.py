"""Tests of charts: ticks are round and few, points lie where their numbers say."""

import math

import pytest

from fashion_keras.report.charts import Axis, Series, axis, chart, ticks

RANGES = [(0.0, 1.0), (0.93, 0.9312), (1, 2), (1, 29), (0, 1e5), (-3, 4), (0.4, 2.1)]


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("whole", [False, True])
def test_ticks_are_few_and_on_the_axis(low: float, high: float, whole: bool) -> None:
    found = ticks(Axis("", low, high), whole)
    assert len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert whole or len(found) >= 2
    assert not whole or all(tick == round(tick) for tick in found)


def test_ticks_of_an_axis_of_factors() -> None:
    assert ticks(Axis("", 16, 1024, log=True)) == [20, 50, 100, 200, 500, 1000]
    found = ticks(Axis("", 1e-4, 0.1, log=True))
    assert found == pytest.approx([1e-4, 1e-3, 1e-2, 0.1])
    assert len(ticks(Axis("", 1e-9, 1e9, log=True))) <= 6


@pytest.mark.parametrize("log", [False, True])
def test_one_value_alone_has_room_around_it(log: bool) -> None:
    found = axis("", [3.0], log=log)
    assert found.low < 3 < found.high


def test_shares_do_not_go_past_0_and_1() -> None:
    assert axis("", [0.0, 1.0], share=True)[1:3] == (0, 1)
    assert axis("", [math.nan, 0.5, 0.6], share=True).low == pytest.approx(0.495)


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.98, 1.0], (0.95, 1)), ([0.0, 0.01], (0, 0.05)), ([0.5, 0.51], (0.48, 0.53))],
)
def test_shares_that_hardly_differ_look_like_it(
    values: list[float], ends: tuple[float, float]
) -> None:
    assert axis("", values, share=True)[1:3] == pytest.approx(ends)


def test_the_last_label_has_room() -> None:
    x = Axis("", 10, 1000, log=True)
    drawn = chart("", x, Axis("", 0, 1), [])
    at, text = drawn["x"]["ticks"][-1]
    assert text == "1000"
    assert at + 4 * len(text) < drawn["size"][0]  # Letters 12 high are about 7 wide.


def test_points_lie_where_their_numbers_say() -> None:
    x, y = Axis("x", 0, 10), Axis("y", 0, 1)
    points = [(0, 0.0), (5, math.nan), (10, 1.0)]
    drawn = chart("title", x, y, [Series("line", points, 0, radii=2.0)])
    left, top, right, bottom = drawn["field"]
    assert drawn["series"][0]["line"] == f"{left},{bottom} {right},{top}"
    assert drawn["series"][0]["dots"] == [(left, bottom, 2), (right, top, 2)]
    assert (left, "0") in drawn["x"]["ticks"]
    assert (right, "10") in drawn["x"]["ticks"]


def test_series_of_one_name_have_one_entry_in_the_legend() -> None:
    series = [Series(name, [(1, 1)], style) for style, name in enumerate(["a", "b", "a"])]
    names = [one["name"] for one in chart("", Axis("", 0, 2), Axis("", 0, 2), series)["legend"]]
    assert names == ["a", "b"]


def test_a_chart_is_told_in_words() -> None:
    series = [Series("validation", [(1, 0.5), (2, 0.75), (3, 0.7)], 0)]
    text = chart("Accuracy", Axis("epoch", 1, 3), Axis("accuracy", 0, 1), series)["text"]
    assert text == (
        "Accuracy: accuracy against epoch. validation: 3 points, the first at 0.5, the last at "
        "0.7, the highest at 0.75 (epoch 2)."
    )
