import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.reporting.figures import Chart, Level, Line, axis_number, draw, interval_bar, thin, ticks
from mi_contrast.reporting.run import Curve


def curve(values, steps=None):
    return Curve(np.arange(len(values)) if steps is None else np.asarray(steps), np.asarray(values, float))


def parsed(chart):
    return ElementTree.fromstring(str(draw(chart)))


def of_class(svg, name):
    return [e for e in svg.iter() if name in (e.get("class") or "").split()]


def numbers(path):
    return [tuple(map(float, pair.split())) for pair in re.findall(r"-?[\d.]+ -?[\d.]+", path.get("d"))]


@settings(max_examples=200, deadline=None)
@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), about=st.integers(1, 8))
def test_ticks_are_round_and_inside(low, width, about):
    high = low + width
    found = ticks(low, high, about)
    assert len(found) <= 2 * about + 2
    assert all(low - 1e-6 * width - 1e-9 * abs(low) <= t <= high + 1e-6 * width + 1e-9 * abs(high) for t in found)
    for a, b in pairwise(found):
        mantissa = (b - a) / 10 ** math.floor(math.log10((b - a) * (1 + 1e-6)))
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-2 or abs(b - a) < 1e-9 * abs(low)


@pytest.mark.parametrize(
    ("value", "step", "unit", "expected"),
    [
        (0.25, 0.25, "%", "25"),
        (2.5, 2.5, "", "2.5"),
        (0.0, 1, "", "0"),
        (20000, 5000, "", "20k"),
        (1.5e6, 5e5, "", "1.5M"),
    ],
)
def test_tick_labels(value, step, unit, expected):
    assert axis_number(value, step, unit).split("\N{NARROW NO-BREAK SPACE}")[0] == expected


def test_a_line_goes_through_its_values():
    svg = parsed(Chart("t", "", (Line("a", curve([0.0, 1.0, 4.0])),), low=0.0))
    (path,) = of_class(svg, "line")
    (x0, y0), (x1, y1), (x2, y2) = numbers(path)
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.2) and x2 > x0
    assert math.isclose((y0 - y2) / (y0 - y1), 4.0, rel_tol=0.02)


def test_values_that_are_not_finite_break_the_line_and_are_marked():
    svg = parsed(Chart("t", "", (Line("a", curve([1, 2, np.nan, 3, np.inf, 2, 4])),)))
    assert len(of_class(svg, "line")) == 2
    marks = of_class(svg, "bad")
    assert [m[0].text for m in marks] == ["step 2: a is not finite", "step 4: a is not finite"]
    assert len(of_class(svg, "dot")) == 5


@pytest.mark.parametrize("values", [[1.0], [math.nan], [2.0, 2.0], [0.0, 0.0], [1e-12, 2e-12], [1e30, -1e30]])
def test_any_values_make_a_picture_inside_its_frame(values):
    svg = parsed(Chart("t", "", (Line("a", curve(values)),), (Level("c", 3.0),)))
    for path in [*of_class(svg, "line"), *of_class(svg, "ceiling")]:
        assert all(0 <= y <= 240 for _, y in numbers(path))


def test_ceilings_are_dashed_untrained_values_dotted_and_both_named():
    levels = (Level("ceiling log 8", math.log(8)), Level("kNN at step 0", 0.4, colour=1, dotted=True))
    svg = parsed(Chart("t", "", (Line("a", curve([0.4, 1.0])),), levels))
    assert len(of_class(svg, "ceiling")) == 1 and len(of_class(svg, "dotted")) == 1
    texts = [e.text for e in of_class(svg, "label")]
    assert texts == ["ceiling log 8", "kNN at step 0"]
    places = [float(e.get("y")) for e in of_class(svg, "label")]
    assert abs(places[0] - places[1]) >= 12


def test_labels_of_equal_levels_do_not_overlap():
    levels = tuple(Level(f"level {i}", 0.5) for i in range(3))
    places = sorted(
        float(e.get("y")) for e in of_class(parsed(Chart("t", "", (Line("a", curve([0, 1])),), levels)), "label")
    )
    assert all(b - a >= 12 for a, b in pairwise(places))


def test_pointing_at_a_place_tells_the_values_there():
    lines = (Line("a <b>", curve([1.0, 2.0], [0, 10])), Line("c", curve([5.0], [10]), 2))
    svg = parsed(Chart("t", "", lines, unit="nats"))
    said = [e[0].text.replace("\N{NARROW NO-BREAK SPACE}", " ") for e in of_class(svg, "hit")]
    assert said == ["step 0\na <b>: 1.00 nats", "step 10\na <b>: 2.00 nats\nc: 5.00 nats"]


def test_a_long_curve_is_thinned_to_means_and_shows_its_spread():
    values = np.random.default_rng(0).normal(size=5000)
    values[100:200] = np.nan
    mean, low, high = thin(curve(values), 50)
    assert len(mean.steps) == 50
    np.testing.assert_allclose(mean.values[7], values[700:800].mean())
    np.testing.assert_allclose((low[7], high[7]), (values[700:800].min(), values[700:800].max()))
    assert np.isnan(mean.values[1]) and np.isfinite(mean.values[2])
    svg = parsed(Chart("t", "", (Line("a", curve(values)),)))
    assert len(of_class(svg, "area")) == 1
    assert len(str(draw(Chart("t", "", (Line("a", curve(values)),))))) < 60_000
    short, low, high = thin(curve([1.0, 2.0]), 50)
    assert len(short.steps) == 2 and (low == high).all()


def test_a_logarithmic_axis_only_where_it_helps():
    wide = parsed(Chart("t", "", (Line("a", curve([0.01, 1.0, 100.0])),), logarithmic=True))
    (_, y0), (_, y1), (_, y2) = numbers(of_class(wide, "line")[0])
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.3)
    near = parsed(Chart("t", "", (Line("a", curve([1.0, 2.0, 3.0])),), logarithmic=True))
    (_, y0), (_, y1), (_, y2) = numbers(of_class(near, "line")[0])
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.3)


def test_nothing_to_draw_is_nothing():
    assert draw(Chart("t", "", ())) == ""


def test_interval_bar_stands_where_its_share_is():
    svg = ElementTree.fromstring(str(interval_bar(0.5, 0.4, 0.6, 0.1)))
    assert float(svg.find("circle").get("cx")) == 75.0
    assert of_class(svg, "span")[0].get("d") == "M60.0 7H90.0"
