"""Estimate against truth, a panel an estimator: one SVG that carries its colours for light and dark, no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from statistics import median
from typing import Any

from markupsafe import escape

from mi_contrast.reporting.figures import axis_number, svg_text, ticks
from mi_contrast.reporting.words import MINUS

TITLES = {
    "ksg": "KSG",
    "three_kl": "3KL",
    "canonical_correlation": "CCA",
    "info_nce": "InfoNCE",
    "nwj": "NWJ",
    "smile": "SMILE",
    "jensen_shannon": "Jensen-Shannon",
    "donsker_varadhan": "Donsker-Varadhan",
    "mine": "MINE",
}
WIDTH, COLUMNS, MARGIN = 1000.0, 5, 26.0
HEAD, CELL, BETWEEN = 68.0, 236.0, 18.0  # heights: of the title, of a panel with its own; width between panels
AXIS, TITLE, FOOT = 20.0, 38.0, 32.0  # of a panel: left of the plot, above it, below it
STYLE = """
:root { color-scheme: light dark; --card: #ffffff; --ink: #1b1d21; --soft: #5d636e; --faint: #8b919b; --rule: #e4e1da;
  --grid: #ecebe6; --c1: #2459c4; --c2: #c8641b; --c3: #14806a; --c4: #9a3f8f; }
@media (prefers-color-scheme: dark) { :root { --card: #1b1e24; --ink: #e9e7e3; --soft: #a9afba; --faint: #7c838f;
  --rule: #2b2f37; --grid: #262a32; --c1: #82a8ff; --c2: #f0a061; --c3: #55c8ab; --c4: #dd8fd2; } }
text { font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; fill: var(--soft); }
text.h1 { font-size: 21px; font-weight: 650; letter-spacing: -.3px; fill: var(--ink); }
text.h2 { font-size: 15px; font-weight: 620; fill: var(--ink); }
text.tick, text.facts { font-size: 12px; fill: var(--faint); font-variant-numeric: tabular-nums; }
text.facts { fill: var(--soft); }
text.ceiling { font-size: 11.5px; }
text.key { font-size: 13px; fill: var(--ink); }
.card { fill: var(--card); stroke: var(--rule); }
.c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
path { fill: none; }
.grid { stroke: var(--grid); }
.truth { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: .1 4.5; stroke-linecap: round; }
path.ceiling { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 6 4; }
.line { stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
path.area { fill: var(--c); fill-opacity: .2; }
.band { stroke: var(--c); stroke-width: 11; stroke-opacity: .2; }
.dot { fill: var(--c); }
path.beyond { fill: var(--c); }
"""


def draw(found: dict[str, Any]) -> str:
    """The figure of `found` (points with method, family, truth, nats, ceiling; table; what), a whole SVG file."""
    points = found["points"]
    methods = [name for name, _ in groupby(points, key=lambda p: p["method"])]
    families = list(dict.fromkeys(p["family"] for p in points))
    rows = math.ceil((len(methods) + 1) / COLUMNS)
    width, height = (WIDTH - 2 * MARGIN + BETWEEN) / COLUMNS - BETWEEN, HEAD + rows * CELL
    corners = [(MARGIN + i % COLUMNS * (width + BETWEEN), HEAD + i // COLUMNS * CELL) for i in range(rows * COLUMNS)]
    body = [svg_text("h1", MARGIN, 40, "Mutual information: estimate against truth, in nats")]
    for name, (left, top) in zip(methods, corners, strict=False):
        axes = _Axes(points, left + AXIS, left + width, top + TITLE, top + CELL - FOOT)
        body += _panel(axes, name, [p for p in points if p["method"] == name], found["table"][name], families)
    body += _legend(*corners[len(methods)], families, found["what"])
    said = "; ".join(
        f"{TITLES.get(n, n)}: mean error {_short(r['mean_absolute_error'])}" for n, r in found["table"].items()
    )
    size = f'viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" height="{height:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(said)}"><style>{STYLE}</style>'
    )
    card = f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1:.0f}" height="{height - 1:.0f}" rx="10"/>'
    return "\n".join([head, card, *body, "</svg>\n"])


class _Axes:
    """From nats to places, the same scale in every panel: truth to the right, estimate upwards."""

    def __init__(self, points: list[dict[str, Any]], left: float, right: float, top: float, bottom: float):
        self.left, self.right, self.top, self.bottom = left, right, top, bottom
        self.most = max(max(p["truth"] for p in points), 1e-9)
        self.low, self.high = -0.09 * self.most, 1.12 * self.most

    def x(self, truth: float) -> float:
        return self.left + 8 + (self.right - self.left - 16) * truth / self.most

    def y(self, nats: float) -> float:
        return self.bottom - (self.bottom - self.top) * (nats - self.low) / (self.high - self.low)


def _legend(left: float, top: float, families: list[str], what: str) -> Iterator[str]:
    y = top + 14.0
    for colour, family in enumerate(families, 1):
        yield f'<path class="band c{colour}" d="M{left:.1f} {y:.1f}h24"/>'
        yield f'<path class="line c{colour}" d="M{left:.1f} {y:.1f}h24"/>'
        yield f'<circle class="dot c{colour}" cx="{left + 12:.1f}" cy="{y:.1f}" r="2.8"/>'
        yield svg_text("key", left + 33, y + 4.5, family)
        y += 23
    for kind, text in (("truth", "truth"), ("ceiling", "the most it can read")):
        yield f'<path class="{kind}" d="M{left:.1f} {y:.1f}h24"/>' + svg_text("key", left + 33, y + 4.5, text)
        y += 23
    told = "Line: median; band: least", "to greatest of the draws.", "Error: mean absolute."
    for text in (*what.split("; "), *told):
        yield svg_text("facts", left, y + 7, text)
        y += 18


def _panel(
    axes: _Axes, name: str, points: list[dict[str, Any]], row: dict[str, float], families: list[str]
) -> Iterator[str]:
    yield svg_text("h2", axes.left - AXIS, axes.top - 24, TITLES.get(name, name))
    errors = f"error {_short(row['mean_absolute_error'])}, worst {_short(row['worst_absolute_error'])}"
    yield svg_text("facts", axes.left - AXIS, axes.top - 7, errors)
    yield svg_text("facts", axes.right, axes.top - 7, _seconds(row["seconds_median"]), "end")
    marks = ticks(0.0, axes.most, 4)
    apart = marks[1] - marks[0] if len(marks) > 1 else 1.0
    for mark in marks:
        x, y, text = axes.x(mark), axes.y(mark), axis_number(mark, apart, "")
        yield f'<path class="grid" d="M{axes.left:.1f} {y:.1f}H{axes.right:.1f}"/>'
        yield svg_text("tick", axes.left - 6, y + 4, text, "end")
        yield svg_text("tick", x, axes.bottom + 15, text, "middle")
    yield f'<path class="truth" d="M{axes.x(0):.1f} {axes.y(0):.1f}L{axes.x(axes.most):.1f} {axes.y(axes.most):.1f}"/>'
    yield from _ceiling(axes, name, points)
    for colour, family in enumerate(families, 1):
        yield from _family(axes, colour, [p for p in points if p["family"] == family])


def _ceiling(axes: _Axes, name: str, points: Iterable[dict[str, Any]]) -> Iterator[str]:
    limits = [p["ceiling"] for p in points if p["ceiling"] is not None]
    if limits and max(limits) < axes.high:
        y = axes.y(max(limits))
        yield f'<path class="ceiling" d="M{axes.left:.1f} {y:.1f}H{axes.right:.1f}"/>'
        text = f"log {math.exp(max(limits)):,.0f}" if name == "info_nce" else f"{max(limits):.1f}"
        yield svg_text("ceiling", axes.left + 6, y - 5, text)


def _family(axes: _Axes, colour: int, points: list[dict[str, Any]]) -> Iterator[str]:
    """Band and line of the medians; what lies outside the panel is held at its edge and marked there."""
    read: dict[float, list[float]] = {}
    for point in sorted(points, key=lambda p: p["truth"]):
        if point["nats"] is not None:
            read.setdefault(point["truth"], []).append(point["nats"])
    places, middle = [axes.x(truth) for truth in read], [median(values) for values in read.values()]
    ends = [min(values) for values in read.values()], middle, [max(values) for values in read.values()]
    held = [[axes.y(min(max(v, axes.low), axes.high)) for v in values] for values in ends]
    if not places:
        return
    down, line, up = ([f"{x:.1f} {y:.1f}" for x, y in zip(places, ys, strict=True)] for ys in held)
    yield f'<path class="area c{colour}" d="M{"L".join(down + up[::-1])}Z"/>'
    yield f'<path class="line c{colour}" d="M{"L".join(line)}"/>'
    for x, y, value in zip(places, held[1], middle, strict=True):
        if axes.low <= value <= axes.high:
            yield f'<circle class="dot c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>'
        else:
            side = 1 if value < axes.low else -1
            triangle = f"M{x - 4.5:.1f} {y - 4 * side:.1f}h9l-4.5 {7 * side}z"
            yield f'<path class="beyond c{colour}" d="{triangle}"><title>{value:.1f}</title></path>'


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "infinite"
    return f"{value:.2f}".removeprefix("0").replace("-", MINUS) if value < 10 else f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 9.5 else f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"
