"""Line charts as inline SVG: no script, no library; colours come from the page, so that dark and light both work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from mi_contrast.reporting.run import Curve
from mi_contrast.reporting.words import MINUS, THIN, count, number

WIDE, COMPACT = (520.0, 240.0), (350.0, 190.0)  # width and height in the units in which text is 11.5 high
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 14.0, 26.0
DRAWN, DOTS, COLUMNS = 240, 40, 120  # points drawn at most; dots shown up to; places that answer the pointer
LABEL_HEIGHT = 13.0


@dataclass(frozen=True)
class Line:
    """A curve on a chart. colour: 1 to 4, the page's palette; ceiling: dashed, named on the chart itself."""

    name: str
    curve: Curve
    colour: int = 1
    ceiling: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line: dashed for a ceiling, dotted (in a curve's colour) for an untrained network's value."""

    name: str
    value: float
    colour: int = 0
    dotted: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure. note: what it shows, in a sentence; unit: '%' takes fractions; low, high: values the axis must reach;
    between: shade between the first two lines; resumed: steps at which the run was started again; span: first and last
    step of the axis, the lines' own by default.
    """

    title: str
    note: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    unit: str = ""
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False
    between: bool = False
    resumed: tuple[int, ...] = ()
    span: tuple[int, int] | None = None


def svg_text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    """A word of an SVG at (x, y), of that class, escaped."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from low to high, about so many: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if power * m >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def scale(
    low: float, high: float, unit: str, about: int, ends: tuple[float, float]
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """An axis around numbers from low to high, with a little room: the place of a number, where its ends lie at `ends`,
    and its round numbers, each with its text.

    A share (unit '%') has none below 0 and above 1.
    """
    room = 0.06 * (high - low) or (0.05 if unit == "%" else max(abs(high), 1e-3) * 0.1)
    low, high = low - room, high + room
    marks = ticks(low, high, about)
    if unit == "%":
        marks = [mark for mark in marks if -1e-9 <= mark <= 1 + 1e-9]
    apart = marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) or 1.0 if marks else 1.0
    begin, end = ends
    return (
        lambda value: begin + (end - begin) * (value - low) / (high - low),
        [(mark, axis_number(mark, apart, unit if unit == "%" else "")) for mark in marks],
    )


def thin(curve: Curve, most: int) -> tuple[Curve, np.ndarray, np.ndarray]:
    """At most `most` points: means of equal runs of points, with each run's least and greatest.

    Returns: (curve, low float64 [m], high float64 [m]); all equal where nothing was left out. NaNs are ignored within a
    run of points, and stay where a run has nothing else.
    """
    if len(curve.steps) <= most:
        return curve, curve.values, curve.values
    edges = np.linspace(0, len(curve.steps), most + 1).astype(int)
    steps, rows = [], []
    for start, end in pairwise(edges):
        values = curve.values[start:end]
        good = values[np.isfinite(values)]
        rows.append((good.mean(), good.min(), good.max()) if len(good) else (math.nan,) * 3)
        steps.append(curve.steps[start:end].mean())
    mean, low, high = np.array(rows).T
    return Curve(np.round(steps).astype(np.int64), mean), low, high


class _Axes:
    """From values to places: x linear in steps, y linear or logarithmic."""

    def __init__(self, chart: Chart, size: tuple[float, float]):
        self.right, self.bottom, self.top = size[0] - RIGHT, size[1] - BOTTOM, TOP
        steps = np.concatenate([line.curve.steps for line in chart.lines])
        self.first, self.last = chart.span or (int(steps.min()), int(steps.max()))
        self.span = max(self.last - self.first, 1)
        values = np.concatenate([line.curve.values for line in chart.lines] + [[level.value for level in chart.levels]])
        values = values[np.isfinite(values)]
        self.log = chart.logarithmic and len(values) > 0 and values.min() > 0 and values.max() > 20 * values.min()
        wanted = [v for v in (chart.low, chart.high) if v is not None and not self.log]
        values = np.append(values, wanted) if len(values) or wanted else np.array([0.0, 1.0])
        low, high = self._scale(float(values.min())), self._scale(float(values.max()))
        room = 0.07 * (high - low) or max(abs(high), 1.0) * 0.1
        bottom_fixed = chart.low is not None and not self.log and low == chart.low
        self.low, self.high = low if bottom_fixed else low - room, high + room
        if chart.unit == "%" and chart.high is None:
            self.high = min(self.high, 1.02)
        if chart.unit == "%" and chart.low is None:
            self.low = max(self.low, 0.0)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def x(self, step: float) -> float:
        return LEFT + (self.right - LEFT) * (step - self.first) / self.span

    def y(self, value: float) -> float:
        scaled = self._scale(value) if not self.log or value > 0 else self.low
        return self.bottom - (self.bottom - self.top) * (scaled - self.low) / (self.high - self.low)

    def y_ticks(self) -> list[tuple[float, float]]:
        """(value, place) of each."""
        if self.log:
            powers = ticks(self.low, self.high, 4)
            return [(10.0**p, self.y(10.0**p)) for p in powers]
        return [(v, self.y(v)) for v in ticks(self.low, self.high, 4)]


def axis_number(value: float, step: float, unit: str) -> str:
    """A tick's label, with the decimals that tell it from its neighbours."""
    if unit == "%":
        value, step = 100 * value, 100 * step
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step * 10**decimals, 6) % 1:  # 2.5, .25: one more
        decimals += 1
    if abs(value) < step * 1e-6:
        text = "0"
    elif abs(value) >= 10_000:
        text = f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    else:
        text = f"{value:.2g}" if step < 1e-3 else f"{value:,.{decimals}f}"
    return text.replace("-", MINUS) + (f"{THIN}%" if unit == "%" else "")


def draw(chart: Chart, size: tuple[float, float] = WIDE) -> Markup:
    """The chart as an <svg> element of that size; the empty string where there is nothing to draw."""
    lines = tuple(line for line in chart.lines if len(line.curve.steps))
    if not lines:
        return Markup("")
    chart = replace(chart, lines=lines)
    axes = _Axes(chart, size)
    thinned = [thin(line.curve, DRAWN) for line in lines]
    parts = [*_grid(chart, axes)]
    if chart.between and len(lines) >= 2:
        parts.append(_area(axes, thinned[0][0].steps, thinned[0][0].values, thinned[1][0].values, 1))
    for line, (curve, low, high) in zip(lines, thinned, strict=True):
        if len(curve.steps) < len(line.curve.steps):
            parts.append(_area(axes, curve.steps, low, high, line.colour))
    for level in chart.levels:
        kind = "dotted" if level.dotted else "ceiling"
        y = axes.y(level.value)
        parts.append(f'<path class="{kind} c{level.colour}" d="M{LEFT:.1f} {y:.1f}H{axes.right:.1f}"/>')
    for line, (curve, _, _) in zip(lines, thinned, strict=True):
        parts += _line(axes, line, curve)
        parts += _not_finite(axes, line)
    parts += _labels(chart, axes)
    parts += _columns(chart, axes, [curve for curve, _, _ in thinned])
    title = f"{chart.title}: " + ", ".join(f"{line.name} {number(line.curve.last, chart.unit)}" for line in lines)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _grid(chart: Chart, axes: _Axes) -> Iterable[str]:
    places = axes.y_ticks()
    step = places[1][0] - places[0][0] if len(places) > 1 else abs(places[0][0]) if places else 1.0
    for value, y in places:
        zero = " zero" if value == 0 and not axes.log else ""
        text = f"{value:g}" if axes.log else axis_number(value, step or 1.0, chart.unit)
        yield f'<path class="grid{zero}" d="M{LEFT:.1f} {y:.1f}H{axes.right:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 7:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    steps = (
        [s for s in ticks(axes.first, axes.last, 5 if axes.right > 400 else 3) if s == int(s)]
        if axes.last > axes.first
        else [axes.first]
    )
    apart = steps[1] - steps[0] if len(steps) > 1 else 1.0
    for at in steps:
        anchor = "end" if axes.x(at) > axes.right - 14 else "middle"
        text = axis_number(at, apart, "")
        yield f'<text class="tick" x="{axes.x(at):.1f}" y="{axes.bottom + 18:.1f}" text-anchor="{anchor}">{text}</text>'
    for at in chart.resumed:
        if axes.first < at < axes.last:
            x = axes.x(at)
            yield f'<path class="resumed" d="M{x:.1f} {TOP:.1f}V{axes.bottom:.1f}">'
            yield f"<title>started again from step {count(at)}</title></path>"


def _runs(steps: np.ndarray, *values: np.ndarray) -> Iterable[slice]:
    """Slices of neighbouring points at which every value is finite."""
    good = np.logical_and.reduce([np.isfinite(v) for v in values])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield slice(start, end)


def _line(axes: _Axes, line: Line, curve: Curve) -> Iterable[str]:
    kind = "ceiling" if line.ceiling else "line"
    alone = []
    for run in _runs(curve.steps, curve.values):
        points = [(axes.x(s), axes.y(v)) for s, v in zip(curve.steps[run], curve.values[run], strict=True)]
        if len(points) == 1:
            alone += points
            continue
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path class="{kind} c{line.colour}" d="M{path}"/>'
        if len(curve.steps) <= DOTS and not line.ceiling:
            alone += points
    for x, y in alone:
        yield f'<circle class="dot c{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'


def _area(axes: _Axes, steps: np.ndarray, low: np.ndarray, high: np.ndarray, colour: int) -> str:
    shapes = []
    for run in _runs(steps, low, high):
        there = [f"{axes.x(s):.1f} {axes.y(v):.1f}" for s, v in zip(steps[run], high[run], strict=True)]
        back = [f"{axes.x(s):.1f} {axes.y(v):.1f}" for s, v in zip(steps[run], low[run], strict=True)]
        shapes.append("M" + "L".join(there + back[::-1]) + "Z")
    return f'<path class="area c{colour}" d="{"".join(shapes)}"/>'


def _not_finite(axes: _Axes, line: Line) -> Iterable[str]:
    bad = line.curve.steps[~np.isfinite(line.curve.values)]
    for step in bad[:: max(1, len(bad) // 60)]:
        x, y = axes.x(step), axes.bottom
        yield f'<path class="bad" d="M{x:.1f} {y:.1f}l4 7h-8z">'
        yield f"<title>step {count(int(step))}: {escape(line.name)} is not finite</title></path>"


def _labels(chart: Chart, axes: _Axes) -> Iterable[str]:
    wanted = [(axes.y(level.value), level.name, level.colour) for level in chart.levels]
    for line in chart.lines:
        good = line.curve.values[np.isfinite(line.curve.values)]
        if line.ceiling and len(good):
            wanted.append((axes.y(float(good[-1])), line.name, 0))
    above = -math.inf
    for place, text, colour in sorted(wanted):
        y = max(place - 4.0, above + LABEL_HEIGHT, TOP - 3.0)
        above = y
        place_of = f'x="{axes.right - 2:.1f}" y="{y:.1f}" text-anchor="end"'
        yield f'<text class="label c{colour}" {place_of}>{escape(text)}</text>'


def _columns(chart: Chart, axes: _Axes, curves: list[Curve]) -> Iterable[str]:
    places = np.unique(np.concatenate([curve.steps for curve in curves]))
    if len(places) > COLUMNS:
        places = places[np.linspace(0, len(places) - 1, COLUMNS).round().astype(int)]
    xs = [axes.x(s) for s in places]
    edges = [LEFT, *((a + b) / 2 for a, b in pairwise(xs)), axes.right]
    for i, step in enumerate(places):
        said, dots = [f"step {count(int(step))}"], []
        for line, curve in zip(chart.lines, curves, strict=True):
            near = int(np.argmin(np.abs(curve.steps - step)))
            if not edges[i] - 1e-6 <= axes.x(curve.steps[near]) <= edges[i + 1] + 1e-6:
                continue
            value = float(curve.values[near])
            said.append(f"{line.name}: {number(value, chart.unit)}")
            if math.isfinite(value):
                x, y = axes.x(curve.steps[near]), axes.y(value)
                dots.append(f'<circle class="c{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>')
        yield (
            f'<g class="hit"><title>{escape(chr(10).join(said))}</title>'
            f'<rect x="{edges[i]:.1f}" y="{TOP:.1f}" width="{max(edges[i + 1] - edges[i], 0.1):.1f}" '
            f'height="{axes.bottom - TOP:.1f}"/>'
            f'<path d="M{xs[i]:.1f} {TOP:.1f}V{axes.bottom:.1f}"/>{"".join(dots)}</g>'
        )


def interval_bar(share: float, low: float, high: float, chance: float | None = None) -> Markup:
    """A top-1 on a line from 0 to 100 % with its interval, and a tick at chance."""
    width, height = 150.0, 14.0
    tick = f'<path class="chance" d="M{width * chance:.1f} 2V12"><title>chance</title></path>' if chance else ""
    said = f"{number(share, '%')}, 95 %: {number(low, '%')} to {number(high, '%')}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{said}">'
        f'<title>{said}</title><path class="rail" d="M0 7H{width:.0f}"/>{tick}'
        f'<path class="span" d="M{width * low:.1f} 7H{max(width * high, width * low + 1):.1f}"/>'
        f'<circle cx="{width * share:.1f}" cy="7" r="3.4"/></svg>'
    )
