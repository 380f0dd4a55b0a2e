"""Charts: their rows are the numbers they were given, and what Vega draws of them is legible."""

import math

import numpy as np
import pytest
import vl_convert

from mi_contrast.reporting import charts, colours, drawing
from tests.reporting.specs import layers, marks, rows_of, svg_words


def rows(values, name="a", steps=None):
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    return charts.curve_rows(name, steps, np.asarray(values, float))


def words(chart):
    return [item["text"].replace("\N{NARROW NO-BREAK SPACE}", " ") for _, _, item in marks(chart, "text")]


def test_the_rows_of_a_chart_are_the_values_of_the_curve():
    drawn = rows_of(charts.draw_curves(rows([0.25, 1.0, 4.5], steps=[0, 5, 20]), unit="nats"), "line")
    assert [(row["step"], row["name"], row["value"]) for row in drawn] == [
        (0, "a", 0.25), (5, "a", 1.0), (20, "a", 4.5),
    ]  # fmt: skip


def test_a_line_goes_through_its_values():
    y0, y1, y2 = (item["y"] for _, _, item in marks(charts.draw_curves(rows([0, 1, 4])), "line"))
    assert math.isclose((y0 - y2) / (y0 - y1), 4.0, rel_tol=0.02)


@pytest.mark.parametrize("table", [dict, list, "pyarrow"])
def test_columns_rows_and_data_frames_make_the_same_chart(table):
    columns = {"step": [0, 1], "name": ["a", "a"], "value": [1.0, math.nan]}
    data = columns
    if table is list:
        data = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    elif table == "pyarrow":
        data = pytest.importorskip("pyarrow").table(columns)
    drawn = rows_of(charts.draw_curves(data), "line")
    assert [(row["step"], row["value"]) for row in drawn] == [(0, 1.0), (1, None)]


def test_values_that_are_not_finite_break_the_line_and_are_marked():
    chart = charts.draw_curves(rows([1, 2, np.nan, 3, np.inf, 2, 4]), unit="nats")
    assert [row["value"] for row in rows_of(chart, "line")] == [1, 2, None, 3, None, 2, 4]
    symbols = [item for _, _, item in marks(chart, "symbol")]
    triangles = [item["x"] for item in symbols if item.get("shape") == "triangle-up"]
    np.testing.assert_allclose(triangles, [charts.WIDTH * step / 6 for step in (2, 4)])
    assert len(symbols) == 2 + 5


@pytest.mark.parametrize("values", [[1.0], [math.nan], [2.0, 2.0], [0.0, 0.0], [1e-12, 2e-12], [1e30, -1e30]])
def test_any_values_make_a_picture_inside_its_frame(values):
    chart = charts.draw_curves([*rows(values), *rows([3.0, 3.0], "c")], ceiling="c")
    for _, _, item in [*marks(chart, "line"), *marks(chart, "symbol")]:
        assert -1e-6 <= (item.get("y") or 0) <= charts.HEIGHT + 1e-6


def test_ceilings_are_dashed_and_untrained_values_dotted_in_the_colour_of_the_curve():
    data = [*rows([0.4, 1.0], "kNN"), *rows([2.0, 2.0], "top")]
    spec = charts.draw_curves(data, ceiling="top", untrained={"kNN": 0.4}).to_dict()
    found = {(mark, style): (encoding, values) for mark, style, encoding, values in layers(spec)}
    assert found["rule", None][1] == [{"name": "kNN", "value": 0.4}]
    assert found["rule", None][0]["color"] == found["line", None][0]["color"]
    assert found["line", None][0]["color"]["scale"]["domain"] == ["kNN"]
    dashes = {layer["mark"].get("style"): layer["mark"].get("strokeDash") for layer in spec["layer"]}
    assert dashes["ceiling"] == [6, 4]


def test_pointing_at_a_step_tells_every_value_there():
    data = [*rows([1.0, 2.0], "a <b>", [0, 10]), *rows([5.0], "c", [10])]
    rules = [item.get("description", "") for _, _, item in marks(charts.draw_curves(data, unit="nats"), "rule")]
    told = [text for text in rules if text.startswith("step: ")]
    assert told == ["step: 0; a <b>: 1.00; c: NaN", "step: 10; a <b>: 2.00; c: 5.00"]


def test_the_area_next_to_a_step_tells_the_values_of_that_step():
    spec = charts.draw_curves([*rows([1.0, 2.0]), *rows([3.0, 4.0], "b")], unit="nats").to_dict()
    (area,) = [mark for mark in vl_convert.vegalite_to_vega(spec)["marks"] if mark["name"].endswith("voronoi")]
    tip = area["encode"]["update"]["tooltip"]["signal"]
    assert 'format(datum.datum["curve 0"], ".2f")' in tip and 'format(datum.datum["curve 1"], ".2f")' in tip
    assert "datum[" not in tip.replace("datum.datum[", "")


def test_a_long_curve_becomes_means_with_their_spread():
    values = np.random.default_rng(0).normal(size=5000)
    values[100:200] = np.nan
    thin = charts.curve_rows("a", np.arange(5000), values, most=50)
    assert len(thin) == 50
    np.testing.assert_allclose(thin[7]["value"], values[700:800].mean())
    np.testing.assert_allclose((thin[7]["low"], thin[7]["high"]), (values[700:800].min(), values[700:800].max()))
    assert thin[1]["value"] is None and thin[1]["bad"] == 100 and thin[2]["value"] is not None
    chart = charts.draw_curves(charts.curve_rows("a", np.arange(5000), values))
    assert len(rows_of(chart, "area")) == charts.MOST_POINTS
    assert len(chart.to_json(indent=None)) < 60_000
    assert rows([1.0, 2.0]) == [{"step": 0, "name": "a", "value": 1.0}, {"step": 1, "name": "a", "value": 2.0}]


def test_a_logarithmic_axis_only_where_it_helps_and_with_readable_marks():
    wide = charts.draw_curves(rows([0.0316228, 1.0, 31.6228]), logarithmic=True)
    y0, y1, y2 = (item["y"] for _, _, item in marks(wide, "line"))
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.3)
    assert (
        {"0.01", "0.1", "1", "10", "100"} <= set(words(wide)) <= {"0.01", "0.1", "1", "10", "100", "0", "2", "", "step"}
    )
    near = charts.draw_curves(rows([1.0, 2.0, 3.0]), logarithmic=True)
    y0, y1, y2 = (item["y"] for _, _, item in marks(near, "line"))
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.3)


def test_an_axis_reaches_the_values_that_it_must_and_shares_read_as_percent():
    assert {"0 %", "100 %"} <= set(words(charts.draw_curves(rows([0.2, 0.4]), unit="%", reach=(0.0, 1.0))))


def test_text_is_large_enough_and_no_two_words_touch_on_a_phone():
    data = [*rows([0.41, 0.8], "kNN", [0, 123_456]), *rows([0.1, 0.93], "linear probe", [0, 123_456])]
    chart = charts.draw_curves(data, unit="%", untrained={"kNN": 0.41}).properties(width=280)
    boxes = []
    for x, y, item in marks(chart, "text"):
        if item.get("opacity", 1) and item.get("text") and not item.get("angle"):
            size = item.get("fontSize", 11)
            assert size >= colours.SMALLEST >= 11
            wide = 0.6 * size * len(item["text"])
            left = x - {"left": 0, "center": wide / 2, "right": wide}[item.get("align", "left")]
            boxes.append((left, y - size / 2, left + wide, y + size / 2))
    assert len(boxes) > 8
    for i, a in enumerate(boxes):
        assert all(min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]) for b in boxes[:i])


def test_every_text_of_the_theme_is_large_enough():
    sizes = []

    def walk(part):
        for name, value in part.items():
            if isinstance(value, dict):
                walk(value)
            elif name.lower().endswith("fontsize"):
                sizes.append(value)

    walk(colours.theme(colours.LIGHT))
    assert len(sizes) > 6 and min(sizes) >= 11


def test_settings_have_their_seeds_mean_and_twin_and_headings_have_no_row():
    data = [
        {"setting": "a", "kind": "seed", "seed": 0, "value": 0.5},
        {"setting": "a", "kind": "seed", "seed": 1, "value": 0.7},
        {"setting": "a", "kind": "mean", "value": 0.6, "low": 0.5, "high": 0.7},
        {"setting": "a", "kind": "untrained", "value": 0.3},
    ]
    chart = charts.draw_settings(
        data, {"g": "Group", "a": "a · n 2", "b": "b · 0 of 2"}, headings=["g"], unit="%", reference="a"
    )
    found = [(mark, style, values) for mark, style, _, values in layers(chart.to_dict())]
    assert [[row["text"] for row in values] for _, style, values in found if style == "halo"] == [
        ["a · n 2", "b · 0 of 2"],
        ["Group"],
    ]
    by_kind = {(mark, style): values for mark, style, values in found}
    assert by_kind["circle", "first"] == data[:2]
    assert by_kind["tick", "first"] == [data[2]] and by_kind["point", "second"] == [data[3]]
    places = [x for x, _, item in marks(chart, "symbol") if item.get("size") == 40]
    assert places[1] > places[0]


def test_the_legend_names_the_points_of_a_curve_and_no_name_lies_on_it():
    names = [f"setting {i}" for i in range(9)]
    data = [{"setting": name, "x": 1.5 + i / 50, "y": 0.48 + i / 500} for i, name in enumerate(names)]
    chart = charts.draw_against(data, x="MI", y="accuracy", y_unit="%")
    assert [(row["setting"], row["x"], row["y"]) for row in rows_of(chart, "point")] == [
        (row["setting"], row["x"], row["y"]) for row in data
    ]
    places = [y for _, y, item in marks(chart, "text") if item.get("text") in names]
    assert len(places) == 9 and min(places) > charts.HEIGHT
    looks = {(item.get("fill"), item.get("shape")) for _, _, item in marks(chart, "symbol") if item.get("size") == 70}
    assert len(looks) == 9, "every setting has a colour and a shape of its own"


def test_an_svg_file_follows_the_reader_s_scheme_and_a_png_is_one():
    chart = charts.draw_curves(rows([1.0, 2.0], "a & <b>"), unit="nats")
    text = drawing.as_svg(chart)
    assert "nats" in svg_words(text) and "prefers-color-scheme:dark" in text and "var(--c1)" in text
    assert colours.LIGHT["c1"] not in text.partition("</style>")[2] and "<script" not in text
    assert drawing.as_png(chart).startswith(b"\x89PNG")


def test_a_notebook_shows_the_chart():
    assert "vega-lite" in str(charts.draw_curves(rows([1.0, 2.0]))._repr_mimebundle_())


def test_colours_have_the_same_names_in_both_schemes():
    assert list(colours.LIGHT) == list(colours.DARK)
    assert all(f"--{name}:" in colours.write_css() for name in colours.DARK)


def test_the_script_is_kept_and_a_cache_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(drawing.vl_convert, "javascript_bundle", lambda snippet: calls.append(1) or "script")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        assert drawing.javascript.__wrapped__() == "script"
    assert calls == [1] and len(list((tmp_path / "mi_contrast").iterdir())) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert drawing.javascript.__wrapped__() == "script" and len(calls) == 2
