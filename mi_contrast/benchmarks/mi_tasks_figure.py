"""Draws estimates against the truth, a panel for each estimator, as an SVG file for light and dark screens."""

from __future__ import annotations

import math
from itertools import groupby
from statistics import median
from typing import Any

import altair as alt

from mi_contrast.reporting import charts, drawing
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
COLUMNS, SIDE = 3, 240  # panels beside each other; pixels of a panel's side
LOW, HIGH = -0.09, 1.12  # the ends of the axis of estimates, in units of the largest truth


def draw(result: dict[str, Any]) -> str:
    """Returns `chart` as an SVG file."""
    return drawing.as_svg(chart(result))


def chart(result: dict[str, Any]) -> alt.ConcatChart:
    """Returns a panel for each estimator: the median estimate, and a band from the least to the greatest.

    Args:
      result: points (each with method, family, truth, nats, ceiling), a table of errors by method, and what the draws
        are.
    """
    points = result["points"]
    most = max(*(point["truth"] for point in points), 1e-9)
    families = list(dict.fromkeys(point["family"] for point in points))
    panels = []
    for name, group in groupby(points, key=lambda point: point["method"]):
        errors = result["table"][name]
        note = (
            f"error {_short(errors['mean_absolute_error'])}, worst {_short(errors['worst_absolute_error'])}; "
            f"{_seconds(errors['seconds_median'])}"
        )
        panels.append((TITLES.get(name, name), note, panel(list(group), families, most)))
    notes = [
        f"{result['what']}. Line: the median; band: from the least to the greatest of the draws.",
        "Dotted: the truth; dashed: the largest value that the estimator can read. Error: the mean absolute one.",
    ]
    title = "Mutual information: estimate against truth, in nats"
    return charts.lay_out(panels, title=title, note=notes, columns=COLUMNS, width=SIDE, one_legend=True)


def panel(points: list[dict[str, Any]], families: list[str], most: float) -> alt.LayerChart:
    """Returns one estimator's panel; an estimate outside it is a triangle at its edge.

    Args:
      families: the families of tasks, in the order of their colours.
      most: the largest truth, in nats.
    """
    ends = (LOW * most, HIGH * most)
    axis = alt.Axis(tickCount=4)
    x = alt.X("truth:Q", title="truth", scale=alt.Scale(domain=(0, most), nice=False), axis=axis)
    scale = alt.Scale(domain=ends, nice=False, clamp=True)
    y, low = (alt.Y(f"{field}:Q", title=None, scale=scale, axis=axis) for field in ("nats", "low"))
    colour = alt.Color("family:N", scale=alt.Scale(domain=families), legend=alt.Legend(orient="top"))
    shape = alt.Shape("beyond:N", legend=None)
    shape = shape.scale(domain=["within", "below", "above"], range=["circle", "triangle-down", "triangle-up"])
    rows = family_rows(points, ends)
    estimates = alt.Chart(alt.InlineData(values=rows))
    tips = [alt.Tooltip("family:N"), *(alt.Tooltip(f"{field}:Q", format=".2f") for field in ("truth", "nats"))]
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{"truth": value, "nats": value} for value in (0, most)]))
        .mark_line(style="ceiling", strokeDash=[1, 4], strokeCap="round")
        .encode(x=x, y=y),
        estimates.mark_area(opacity=0.2).encode(x=x, y=low, y2="high:Q", color=colour),
        estimates.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour),
        estimates.mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
    ]
    if (top := ceiling_of(points)) is not None and top < ends[1]:
        limit = alt.Chart(alt.InlineData(values=[{"nats": top}])).mark_rule(style="ceiling", strokeDash=[6, 4])
        layers.append(limit.encode(y=y, tooltip=alt.Tooltip("nats:Q", title="ceiling", format=".2f")))
    return charts.finish(alt.layer(*layers).properties(height=SIDE))


def family_rows(points: list[dict[str, Any]], ends: tuple[float, float]) -> list[dict[str, Any]]:
    """Returns a row for each family and truth: the median estimate as nats, the least and greatest as low and high.

    `beyond` says on which side of `ends` the median lies. Estimates that are no number are left out.
    """
    rows = []
    known = [point for point in points if point["nats"] is not None]
    ordered = sorted(known, key=lambda point: (point["family"], point["truth"]))
    for (family, truth), group in groupby(ordered, key=lambda point: (point["family"], point["truth"])):
        values = [point["nats"] for point in group]
        middle = median(values)
        beyond = "below" if middle < ends[0] else "above" if middle > ends[1] else "within"
        spread = {"nats": middle, "low": min(values), "high": max(values)}
        rows.append({"family": family, "truth": truth, **spread, "beyond": beyond})
    return rows


def ceiling_of(points: list[dict[str, Any]]) -> float | None:
    """Returns the largest value that the estimator can read, in nats, or None where it is unknown."""
    return max((point["ceiling"] for point in points if point["ceiling"] is not None), default=None)


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "infinite"
    return f"{value:.2f}".removeprefix("0").replace("-", MINUS) if value < 10 else f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 9.5 else f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"
