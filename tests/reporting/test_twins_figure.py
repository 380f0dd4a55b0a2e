import io

import numpy as np
import pytest
from PIL import Image

from mi_contrast.reporting import drawing, twins_figure
from tests.reporting.specs import layers, marks

CENTRES = np.array([[8, 8], [8, 56], [24, 8], [24, 56]])


def draw(**arguments):
    return drawing.as_png(twins_figure.chart(**arguments), scale=1)


def arguments(frame=None, **changed):
    """A frame of 32 x 64 pixels, which is drawn fifteen times as large."""
    return {
        "title": "a clip",
        "frame": np.zeros((32, 64, 3), np.uint8) if frame is None else frame,
        "centres": CENTRES,
        "twin": np.array([1, 1, 3, 3]),
        "nats": np.array([2.0, np.nan, 1.0, np.nan]),
        "accepted": np.array([True, False, False, False]),
        "tracked": np.array([True, True, True, False]),
    } | changed


def test_lines_join_twins_in_the_colour_of_their_nats_and_accepted_ones_are_thick():
    chart = twins_figure.chart(**arguments())
    lines = [item for _, _, item in marks(chart, "rule") if item.get("x2") is not None and "stroke" in item]
    lines = [line for line in lines if line["y"] == line.get("y2", line["y"]) and line["x"] != line["x2"]]
    thin, thick = sorted(lines, key=lambda line: line["strokeWidth"])[-2:]
    for line, row in ((thin, 24), (thick, 8)):
        np.testing.assert_allclose([line["y"], line["x"], line["x2"]], [15 * (row + 0.5), 15 * 8.5, 15 * 56.5])
    assert (thin["strokeWidth"], thick["strokeWidth"]) == (1, 3)
    assert thick["stroke"] in ("#fde725", "rgb(253, 231, 37)"), "viridis at its end: the most nats"
    assert thin["stroke"] != thick["stroke"] and thin["opacity"] < thick["opacity"]


def test_most_nats_come_last_and_patches_without_a_twin_have_no_line():
    rows = twins_figure.twin_rows(CENTRES, np.array([1, 0, 3, 3]), np.array([2.0, 0.5, 1.0, 3.0]), np.ones(4, bool))
    assert [(row["nats"], row["y"], row["x"], row["y2"], row["x2"]) for row in rows] == [
        (0.5, 8, 56, 8, 8), (1.0, 24, 8, 24, 56), (2.0, 8, 8, 8, 56),
    ]  # fmt: skip
    assert twins_figure.twin_rows(CENTRES, np.arange(4), np.full(4, np.nan), np.zeros(4, bool)) == []
    assert draw(**arguments(twin=np.arange(4), nats=np.full(4, np.nan))).startswith(b"\x89PNG")


def test_tracked_patches_are_dots_and_others_rings():
    spec = twins_figure.chart(**arguments()).to_dict()
    dots = {
        layer["mark"]["filled"]: rows
        for layer, (kind, _, _, rows) in zip(spec["layer"], layers(spec), strict=True)
        if kind == "point"
    }
    assert [row["patch"] for row in dots[True]] == [0, 1, 2] and [row["patch"] for row in dots[False]] == [3]


def test_objects_are_outlined_on_the_darkened_frame():
    objects = np.zeros((32, 64), bool)
    objects[10:22, 20:40] = True
    grey = np.full((32, 64, 3), 100, np.uint8)
    page, plain = (np.asarray(twins_figure.backdrop(grey, o, (960, 480))).astype(int) for o in (objects, None))
    assert (plain == 55).all()
    rows, columns = np.nonzero((page - plain).max(axis=-1) > 100)
    assert abs(rows.min() - 150) < 12 and abs(rows.max() - 330) < 12
    assert abs(columns.min() - 300) < 12 and abs(columns.max() - 600) < 12
    assert ((page - plain).max(axis=-1) > 100).mean() < 0.02


def test_the_picture_shows_the_frame_where_the_lines_are():
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[8, 30] = 255  # on the line of the most nats
    frame[16:18, 30:32] = (255, 0, 0)
    page = np.asarray(Image.open(io.BytesIO(draw(**arguments(frame)))).convert("RGB")).astype(int)
    red = np.argwhere((page[..., 0] > 120) & (page[..., 1] < 40) & (page[..., 2] < 40))
    yellow = np.argwhere(np.abs(page[:, : red[:, 1].max() + 200] - (253, 231, 37)).max(axis=-1) < 12)
    assert len(red) > 300 and len(yellow) > 300
    np.testing.assert_allclose(red[:, 0].mean() - np.median(yellow[:, 0]), 15 * 8.5, atol=4)


@pytest.mark.parametrize(("nats", "ends"), [([-0.2, 0.5], (-0.2, 0.5)), ([], (0.0, 1.0)), ([0.0], (0.0, 0.1))])
def test_the_colours_run_from_none_to_the_most_nats(nats, ends):
    assert twins_figure.span(np.array(nats)) == ends


def test_a_tall_frame_stays_on_a_page():
    picture = Image.open(io.BytesIO(draw(**arguments(np.zeros((64, 32, 3), np.uint8)))))
    assert picture.height <= 600 + 80
