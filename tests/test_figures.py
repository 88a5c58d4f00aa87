"""Tests of the pictures: they can be opened, and show the data they are given."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from fashion_keras import figures
from fashion_keras.config import Config
from fashion_keras.figures import (
    Chart,
    Series,
    Tile,
    as_svg,
    best_so_far,
    draw_batch,
    draw_confusion,
    draw_sheet,
    hyperparameter_chart,
    learning_curves,
    save_png,
    tile_of,
    trial_charts,
)


def pixels(file):
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def epochs(stage, *losses):
    return [
        {"stage": stage, "epoch": epoch, "loss": loss, "accuracy": 1 - loss}
        | {"val_loss": loss, "val_accuracy": epoch / 10}
        for epoch, loss in enumerate(losses, start=1)
    ]


def trial(status="COMPLETED", **values):
    row = {"learning_rate": 0.001, "inner_size": 64, "droprate": 0.2, "augmented_copies": 1}
    return {**row, "val_accuracy": 0.8, "last_epoch": 4, "status": status, **values}


CURVES = [
    {"hyperparameter": name, "value": value, "epoch": epoch, "val_accuracy": value * epoch / 9}
    for name in ("droprate", "inner_size")
    for value in (0.2, 0.5, 0.8)
    for epoch in (1, 2)
]


def test_learning_curves_mark_the_epoch_that_was_kept():
    history = epochs("head", 0.3, 0.1, 0.2) + epochs("fine-tuning", 0.1, 0.2)
    charts = {chart.title: chart for chart in learning_curves(history)}
    assert list(charts) == [
        f"{stage}: {metric}" for stage in ("Head", "Fine-tuning") for metric in ("accuracy", "loss")
    ]
    training, validation, kept = charts["Head: loss"].series
    assert (training.label, training.x, training.y) == ("training", [1, 2, 3], [0.3, 0.1, 0.2])
    assert (kept.x, kept.y) == ([2], [0.1])
    assert charts["Fine-tuning: accuracy"].series[2][1:3] == ([1], [0.1])
    # Several heads, as older versions trained, share a legend.
    chart, _ = learning_curves(epochs("head 1", 0.5) + epochs("head 2", 0.4))
    assert [one.label for one in chart.series] == ["training", "validation", "kept", "", "", ""]


def test_trials_are_dots_that_grow_with_their_epochs():
    rows = [
        trial(),
        trial(augmented_copies=0, val_accuracy=0.6),
        trial(last_epoch=12, inner_size=32),
        trial("FAILED", val_accuracy=""),
    ]
    charts = trial_charts(rows)
    assert [chart.scale for chart in charts] == ["log", "log", "linear"]
    augmented, plain = charts[1].series
    assert (augmented.x, augmented.y) == ([64, 32], [0.8, 0.8])
    assert augmented.sizes is not None
    assert augmented.sizes[1] > augmented.sizes[0]
    assert (plain.label, plain.x, plain.y) == ("without", [64], [0.6])
    assert trial_charts(rows[3:]) == []


def test_best_so_far_ignores_trials_that_failed():
    rows = [trial(val_accuracy=value) for value in (None, 0.0, 0.5, "", 0.4, 0.7)]
    (series,) = best_so_far(rows).series
    np.testing.assert_array_equal(series.y, [np.nan, 0.0, 0.5, 0.5, 0.5, 0.7])


def test_hyperparameter_chart_has_a_line_for_each_value():
    chart = hyperparameter_chart(CURVES, "droprate")
    assert [one.label for one in chart.series] == ["0.2", "0.5", "0.8"]
    assert chart.series[2].y == pytest.approx([0.8 / 9, 1.6 / 9])


def test_png_has_a_panel_for_each_chart(tmp_path):
    charts = learning_curves(epochs("head", 0.3, 0.1))
    for columns in (1, 2):
        save_png(charts, tmp_path / f"{columns}.png", columns)
    high, wide = (pixels(tmp_path / f"{columns}.png").shape for columns in (1, 2))
    assert (high[0], wide[1]) == pytest.approx((2 * wide[0], 2 * high[1]), abs=1)


def test_svgs_need_no_file_and_no_script_and_share_no_ids():
    charts = learning_curves(epochs("head", 0.3, 0.1))
    found: set[str] = set()
    for chart in [*charts, trial_charts([trial()])[0]]:
        svg = as_svg(chart)
        assert svg == as_svg(chart)
        assert svg.startswith('<svg class="chart" role="img" aria-label="')
        assert svg.endswith("</svg>")
        assert not re.search(r"<script|<image|href=\"(?!#)|url\((?!#)", svg)
        assert f">{chart.x}</text>" in svg
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert not found & ids
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids
        found |= ids


def test_a_chart_is_described_in_words():
    series = [Series("a & <b>", [1, 2, 3, 4], [0.5, 0.75, 0.7, float("nan")]), Series("", [1], [1])]
    chart = Chart("Accuracy", "epoch", "accuracy", series)
    words = (
        "Accuracy: accuracy against epoch. a & <b>: 3 points, the first at 0.5, the last at 0.7, "
        "the highest at 0.75."
    )
    assert chart.describe() == words
    assert 'aria-label="Accuracy: accuracy against epoch. a &amp; &lt;b&gt;: 3' in as_svg(chart)


def test_of_many_classes_the_most_confused_are_drawn(tmp_path):
    table = 9 * np.eye(120, dtype=int)
    draw_confusion(table, [f"class {n}" for n in range(120)], "title", tmp_path / "all.png")
    table[99, 100] = 9  # They are among those that are drawn.
    draw_confusion(table, [f"class {n}" for n in range(120)], "title", tmp_path / "some.png")
    found = [pixels(tmp_path / name) for name in ("all.png", "some.png")]
    assert max(found[0].shape) < 3000
    darkest = [(one == [8, 48, 107]).all(axis=-1).sum() for one in found]  # A share of 1.
    assert darkest[1] < darkest[0]


def test_labels_that_no_font_has_are_drawn_as_numbers_without_a_warning(tmp_path):
    labels = [
        "hat",
        "\u5e3d\u5b50",
        "\u0642\u0628\u0639\u0629",
        "\u091f\u094b\u092a\u0940",
        "\U0010ffff",
    ]
    shown = figures.drawable_labels(labels)
    assert (shown[0], shown[-1]) == ("hat", "class 4")
    assert figures.drawable("a\U0010ffff\n") == "a\\U0010ffff\n"
    draw_confusion(np.eye(5, dtype=int), labels, "", tmp_path / "table.png")
    draw_sheet(
        [[Tile(np.zeros((9, 9, 3), "uint8"), label) for label in labels]], "", tmp_path / "a.png"
    )


@pytest.mark.parametrize(
    ("values", "ends"), [([0.99, 1.0], (0.95, 1.0)), ([0.5, 0.51], (0.48, 0.53)), ([0, 1], (0, 1))]
)
def test_shares_that_hardly_differ_look_like_it(values, ends):
    ticks = re.findall(
        r">(\d\.\d+)</text>", as_svg(Chart("", "", "", [Series("", [0, 9], values)]))
    )
    assert (min(map(float, ticks)), max(map(float, ticks))) == ends


@pytest.mark.parametrize("table", [[[9, 0], [0, 1]], [[9, 0], [0, 0]]])
def test_confusion_colours_shares_of_each_true_class(table, tmp_path):
    draw_confusion(np.array(table), ["a", "b"], "", tmp_path / "table.png")
    darkest = (pixels(tmp_path / "table.png") == [8, 48, 107]).all(axis=-1)  # A share of 1.
    height, width = (side // 2 for side in darkest.shape)
    for row, quarter in enumerate((darkest[:height, :width], darkest[height:, width:])):
        # Nine photos and one are both all of their class: the two fields are equally dark.
        assert (quarter.sum() > 500) == bool(table[row][row])


def test_labels_are_no_formulas(tmp_path):
    label = "$\\oops$ 5 % $ 10 $ a_b^c"
    draw_confusion(np.eye(20, dtype=int), [label] * 20, "", tmp_path / "table.png")
    assert min(pixels(tmp_path / "table.png").shape[:2]) >= 110 * 13 - 1  # Each has its place.
    draw_sheet([[Tile(np.zeros((9, 9, 3), "uint8"), label)]], label, tmp_path / "sheet.png")


def test_a_sheet_shows_every_photo(tmp_path):
    Image.new("RGB", (1200, 300), "red").save(tmp_path / "photo.png")
    tile = tile_of(tmp_path / "photo.png", "a name that is too long for one line " * 9)
    assert max(tile.pixels.shape) <= 180
    file = io.BytesIO()
    draw_sheet([[tile, tile], [tile]], "title", file)
    red = (np.asarray(Image.open(file).convert("RGB")) == [255, 0, 0]).all(axis=-1)
    height, width = (side // 2 for side in red.shape)
    assert width == pytest.approx(2 * 190, abs=1)
    counts = [red[:height, :190].sum(), red[:height, 190:380].sum(), red[height:, :190].sum()]
    assert counts == pytest.approx([counts[0]] * 3, rel=0.05)
    assert red[height:, 190:].sum() == 0


def test_a_batch_shows_photos_and_their_augmented_copies(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "_BATCH", 2)
    monkeypatch.setattr(figures, "_COPIES", 3)
    for name, zoom in (("one", 0.1), ("again", 0.1), ("zoomed", 0.5)):
        draw_batch(prepared, Config(image_size=71, zoom=zoom), tmp_path / f"{name}.png")
    one, again, zoomed = (pixels(tmp_path / f"{name}.png") for name in ("one", "again", "zoomed"))
    np.testing.assert_array_equal(one, again)
    assert one.shape[1] == pytest.approx(4 * 190, abs=1)
    differs = (one != zoomed).any(axis=(0, 2))
    assert not differs[:190].any()  # The photos themselves.
    assert differs[190:].any()
