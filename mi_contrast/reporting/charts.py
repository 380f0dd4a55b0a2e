"""Charts of what runs log and judges find: rows in, an Altair chart out.

Rows are a list of dicts, a mapping of columns, or a data frame of pandas, polars or pyarrow. A chart shows itself in a
notebook; `drawing` writes the same chart into a page, an SVG file or a PNG file.

>>> chart = draw_curves({"step": [0, 10], "name": ["kNN", "kNN"], "value": [0.4, 0.8]}, unit="%")
>>> chart.save("accuracy.png")  # doctest: +SKIP
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import altair as alt
import narwhals as nw
import numpy as np

from mi_contrast.reporting.colours import LIGHT, theme

WIDTH, HEIGHT, PANEL, ROW = 560, 220, 330, 38  # pixels: a chart, one of several side by side, a row of settings
FEW = 200  # images below which an accuracy is drawn pale
MOST_POINTS, MOST_DOTS = 240, 40  # rows of a curve as drawn; rows of a curve whose points are marked
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
AXIS_FORMATS = {"%": "~%"}  # of a unit; Vega's own for others
TIP_FORMATS = {"%": ".1%", "nats": ".2f", "": ",.4~r"}
Row = dict[str, Any]


def as_rows(data: Any) -> list[Row]:
    """Returns the rows of a list of dicts, a mapping of columns or a data frame; NaN and infinities become None."""
    if isinstance(data, Mapping):
        data = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    frame = nw.from_native(data, eager_only=True, pass_through=True)
    rows = frame.rows(named=True) if isinstance(frame, nw.DataFrame) else frame
    return [{name: _as_json(value) for name, value in row.items()} for row in rows]


def _as_json(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def curve_rows(name: str, steps: np.ndarray, values: np.ndarray, most: int = MOST_POINTS) -> list[Row]:
    """Returns the rows (step, name, value) of one curve for `draw_curves`.

    A curve of more than `most` points becomes `most` rows, so that a page stays small: each row has the mean step and
    value of neighbouring points, their least and greatest value as low and high, and under `bad` how many of them are
    not finite.

    Args:
      steps: int64 [n], rising.
      values: float64 [n].
    """
    if len(steps) <= most:
        return as_rows({"step": steps, "name": [name] * len(steps), "value": values})
    rows: list[Row] = []
    for part_steps, part in zip(np.array_split(steps, most), np.array_split(values, most), strict=True):
        finite = part[np.isfinite(part)]
        spread = {"value": finite.mean(), "low": finite.min(), "high": finite.max()} if len(finite) else {"value": None}
        rows.append({"step": round(part_steps.mean()), "name": name, **spread, "bad": len(part) - len(finite)})
    return as_rows(rows)


def draw_curves(
    data: Any,
    *,
    unit: str = "",
    ceiling: str | None = None,
    untrained: Mapping[str, float] | None = None,
    reach: Sequence[float] = (),
    logarithmic: bool = False,
    between: bool = False,
    resumed: Sequence[int] = (),
    span: tuple[int, int] | None = None,
) -> alt.LayerChart:
    """Returns a chart of curves over training steps, with one tooltip a step that tells all their values.

    A gap and a red triangle on the axis show values that are not finite.

    Args:
      data: rows with step, name and value; where a row stands for several values, low and high make a band.
      unit: 'nats', '%' (values are shares) or nothing.
      ceiling: the name among the rows that is drawn dashed.
      untrained: the untrained network's value of a name, drawn as a dotted line in the curve's colour.
      reach: values that the axis must reach.
      logarithmic: use a logarithmic axis if all values are positive and span more than a factor of 20.
      between: shade between the first two curves.
      resumed: the steps from which training was started again.
      span: the first and the last step of the axis; the rows' own by default.
    """
    rows = as_rows(data)
    names = list(dict.fromkeys(row["name"] for row in rows))
    rows = [row | {"curve": f"curve {names.index(row['name'])}"} for row in rows]
    curves = [name for name in names if name != ceiling]
    known = [row[end] for row in rows for end in ("value", "low", "high") if row.get(end) is not None]
    log = logarithmic and bool(known) and min(known) > 0 and max(known) > 20 * min(known)
    steps = [row["step"] for row in rows]
    first, last = span or (min(steps, default=0), max(steps, default=1))
    if log:  # a mark at every power of ten: more, and Vega draws a line at every 2, 3, 4 ... 9 as well
        decades = math.ceil(math.log10(max(known))) - math.floor(math.log10(min(known)))
        scale, axis = alt.Scale(type="log", nice=True), alt.Axis(format="~g", tickCount=min(decades, 6))
    else:
        domain = alt.DomainUnionWith(unionWith=list(reach)) if reach else alt.Undefined
        scale, axis = alt.Scale(zero=False, domain=domain), _axis(unit)
    x = alt.X("step:Q", scale=alt.Scale(domain=(first, max(last, first + 1)), nice=False), axis=_step_axis())
    title = None if unit in ("", "%") else unit
    y, low = (alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis) for field in ("value", "low"))
    colour = alt.Color("name:N", scale=alt.Scale(domain=curves), legend=alt.Undefined if len(curves) > 1 else None)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x)
    drawn = base.transform_filter(alt.FieldOneOfPredicate(field="name", oneOf=curves))
    wide = base.transform_pivot("curve", value="value", groupby=["step"], op="max")
    counts = [sum(row["name"] == name for row in rows) for name in curves]

    layers: list[alt.Chart] = []
    if between and len(curves) > 1:
        ends = (f"curve {names.index(name)}:Q" for name in curves[:2])
        layers.append(wide.mark_area(style="first", opacity=0.15).encode(y=next(ends), y2=next(ends)))
    if any("low" in row for row in rows):
        band = drawn.transform_filter("isValid(datum.low)").mark_area(opacity=0.18)
        layers.append(band.encode(y=low, y2="high:Q", color=colour))
    if untrained:
        levels = [{"name": name, "value": value} for name, value in untrained.items()]
        dotted = alt.Chart(alt.InlineData(values=as_rows(levels))).mark_rule(strokeDash=[1, 4], strokeCap="round")
        layers.append(dotted.encode(y=y, color=colour, strokeWidth=alt.value(1.8)))
    if ceiling is not None and ceiling in names:
        limit = base.transform_filter(alt.FieldEqualPredicate(field="name", equal=ceiling))
        layers.append(limit.mark_line(style="ceiling", strokeDash=[6, 4], strokeWidth=1.4).encode(y=y))
    dots = {"size": 24, "filled": True} if max(counts, default=0) <= MOST_DOTS else False
    line = drawn.mark_line(strokeWidth=2, strokeJoin="round", strokeCap="round", point=dots)
    layers.append(line.encode(y=y, color=colour))
    if resumed := [step for step in resumed if first < step < last]:
        starts = alt.Chart(alt.InlineData(values=[{"step": step} for step in resumed]))
        tip = [alt.Tooltip("step:Q", title="started again from step", format=",")]
        layers.append(starts.mark_rule(style="hover", strokeDash=[2, 3]).encode(x=x, tooltip=tip))

    layers.append(_pointer(wide, names, TIP_FORMATS.get(unit, TIP_FORMATS[""])))
    bad = base.transform_filter("!isValid(datum.value) || datum.bad > 0")
    tips = [alt.Tooltip("step:Q", format=","), alt.Tooltip("name:N", title="not finite")]
    layers.append(bad.mark_point(style="bad", shape="triangle-up", size=50).encode(y=alt.value(HEIGHT), tooltip=tips))
    return finish(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT))


def draw_settings(
    data: Any,
    names: Mapping[str, str],
    *,
    headings: Collection[str] = (),
    unit: str = "",
    reference: str | None = None,
    ceiling: float | None = None,
) -> alt.LayerChart:
    """Returns a number of every setting of a study: a dot a seed, a stroke at their mean, a bar from least to greatest.

    Rings are untrained networks; a dotted line goes through the reference's mean, a dashed one is the ceiling.

    Args:
      data: rows with setting, kind and value. A row of kind 'seed' has a seed as well, one of kind 'mean' the ends of
        its spread as low and high; the third kind is 'untrained'.
      names: the settings from the top, and what is written above each.
      headings: the names that are no settings, but headings above a group.
      unit: 'nats', '%' (values are shares), another one or nothing.
      reference: the setting that the others are compared with.
      ceiling: the largest value that is possible.
    """
    rows = as_rows(data)
    x, low = _linear(alt.X, ("value", "low"), unit)
    y, titles = _names(names, "setting", headings)
    tables = {kind: _table([row for row in rows if row["kind"] == kind]) for kind in ("seed", "mean", "untrained")}
    place, value = alt.Tooltip("setting:N"), _tip("value", unit)
    ends = [place, _tip("value", unit, "mean"), _tip("low", unit, "least"), _tip("high", unit, "greatest")]
    layers = [*titles]
    if ceiling is not None:
        tip = _tip("value", unit, "ceiling")
        limit = _table([{"value": ceiling}]).mark_rule(style="ceiling", strokeDash=[6, 4])
        layers.append(limit.encode(x=x, tooltip=tip))
    if reference is not None:
        line = tables["mean"].transform_filter(_equal("setting", reference)).mark_rule(style="first", strokeDash=[2, 3])
        layers.append(line.encode(x=x, opacity=alt.value(0.6)))
    rings = tables["untrained"].mark_point(style="second", size=44, opacity=1)
    layers += [
        rings.encode(x=x, y=y, tooltip=[place, _tip("value", unit, "untrained")]),
        tables["mean"]
        .mark_rule(style="first", strokeWidth=9, opacity=0.2)
        .encode(x=low, x2="high:Q", y=y, tooltip=ends),
        tables["seed"]
        .mark_circle(style="first", size=40)
        .encode(x=x, y=y, tooltip=[place, alt.Tooltip("seed:N"), value]),
        tables["mean"].mark_tick(style="first", thickness=2.6, size=16).encode(x=x, y=y, tooltip=ends),
    ]
    return finish(alt.layer(*layers).properties(width=WIDTH, height=alt.Step(ROW)))


def draw_against(
    data: Any,
    *,
    x: str,
    y: str,
    x_unit: str = "",
    y_unit: str = "",
    joined: bool = False,
    untrained: float | None = None,
) -> alt.LayerChart:
    """Returns one number of every setting against another, as Tian et al. 2020 (InfoMin) draw accuracy against nats.

    Args:
      data: rows with setting, x and y; where y is the mean of several seeds, also its least and greatest as low and
        high.
      x: the title of the number along the bottom; y: of that up the side.
      x_unit: 'nats', '%' (values are shares), another one or nothing; y_unit: likewise.
      joined: join the settings in their order, as steps of a scale.
      untrained: the untrained network's y, drawn dashed.
    """
    rows = [row | {"order": order} for order, row in enumerate(as_rows(data))]
    across, (up, low) = _linear(alt.X, ("x",), x_unit, x)[0], _linear(alt.Y, ("y", "low"), y_unit, y)
    names = alt.Scale(domain=[row["setting"] for row in rows])
    legend = alt.Legend(orient="bottom", columns=3, symbolSize=70)
    colour = alt.Color("setting:N", scale=names, legend=legend)
    shape = alt.Shape("setting:N", scale=alt.Scale(domain=names.domain, range=_cycle(SHAPES, len(rows))), legend=legend)
    points = _table(rows)
    tips = [alt.Tooltip("setting:N"), _tip("x", x_unit, x), _tip("y", y_unit, y)]
    layers: list[Any] = []
    if untrained is not None:
        level = _table([{"y": untrained}]).mark_rule(style="ceiling", strokeDash=[6, 4])
        layers.append(level.encode(y=up, tooltip=_tip("y", y_unit, "untrained")))
    if joined:
        layers.append(points.mark_line(style="ceiling", strokeWidth=1.2).encode(x=across, y=up, order="order:O"))
    spread = points.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=6, opacity=0.25)
    layers.append(spread.encode(x=across, y=low, y2="high:Q", color=colour))
    marks = points.mark_point(filled=True, size=70, opacity=1)
    layers.append(marks.encode(x=across, y=up, color=colour, shape=shape, tooltip=tips))
    return finish(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT + 20))


def draw_accuracies(data: Any) -> alt.LayerChart:
    """Returns the top-1 of each of several judgements: a dot with its 95 % interval, from 0 to 100 %.

    An untrained twin is a ring with its interval below; a short stroke is chance.

    Args:
      data: rows with name, kind ('trained' or 'untrained'), and the shares top1, low, high and chance; one without
        top1 has nothing but a name, and the reason under `missing`. Rows whose `n`, the number of images, is below 200
        are pale.
    """
    rows = as_rows(data)
    names = {row["name"]: row["name"] + (f": {row['missing']}" if row.get("missing") else "") for row in rows}
    y, titles = _names(names, "name")
    pale = alt.condition(f"isValid(datum.n) && datum.n < {FEW}", alt.value(0.35), alt.value(1))
    scale, axis = alt.Scale(domain=[0, 1]), _axis("%")
    x, low, chance = (alt.X(f"{field}:Q", title=None, scale=scale, axis=axis) for field in ("top1", "low", "chance"))
    tips = [
        alt.Tooltip("name:N"),
        alt.Tooltip("kind:N"),
        *(_tip(field, "%") for field in ("top1", "low", "high", "chance")),
        *([alt.Tooltip("n:Q", format=",")] if any(row.get("n") is not None for row in rows) else []),
    ]
    layers = [*titles]
    judged = [row for row in rows if row.get("top1") is not None]
    level = _table(judged).mark_tick(style="ceiling", thickness=1.5, size=10, yOffset=4)  # below the names
    layers.append(level.encode(x=chance, y=y, tooltip=tips))
    for kind, style, below in (("untrained", "second", 6), ("trained", "first", 0)):
        table = _table([row for row in judged if row["kind"] == kind])
        interval = table.mark_rule(style=style, strokeWidth=2.2, yOffset=below)
        dot = table.mark_point(style=style, filled=kind == "trained", size=50, yOffset=below)
        layers.append(interval.encode(x=low, x2="high:Q", y=y, opacity=pale, tooltip=tips))
        layers.append(dot.encode(x=x, y=y, opacity=pale, tooltip=tips))
    value = _table([row for row in judged if row["kind"] == "trained"]).mark_text(
        style="ink", align="right", dy=-ROW * 0.36, fontWeight=600
    )
    layers.append(value.encode(x=alt.XValue("width"), y=y, opacity=pale, text=alt.Text("top1:Q", format=".1%")))
    return finish(alt.layer(*layers).properties(width=WIDTH, height=alt.Step(ROW)))


def lay_out(
    panels: Sequence[tuple[str, str, Any]],
    *,
    title: str,
    note: str | Sequence[str] = "",
    columns: int = 3,
    width: int = PANEL,
    one_legend: bool = False,
) -> alt.ConcatChart:
    """Returns one chart of several panels, for a file.

    Args:
      panels: the title, a note and the chart of each.
      columns: how many stand side by side.
      width: pixels of a panel.
      one_legend: the panels' colours mean the same, so that one legend serves all.
    """
    parts = []
    for heading, remark, chart in panels:
        part = chart.copy(deep=False)
        part.config = alt.Undefined  # only the whole has a theme
        parts.append(part.properties(width=width, title=title_of(heading, remark)))
    whole = alt.concat(*parts, columns=columns, spacing=30)
    whole = whole.properties(title=title_of(title, note, fontSize=19, offset=18))
    return finish(whole.resolve_scale(color="shared" if one_legend else "independent", shape="independent"))


def title_of(text: str, notes: str | Sequence[str] = "", **style: Any) -> alt.Title:
    """Returns a chart's title with notes below it, a line each: `chart.properties(title=title_of(...))`."""
    return alt.Title(text, subtitle=[notes] if isinstance(notes, str) else list(notes), **style)


def _step_axis() -> alt.Axis:
    text = "datum.value % 1 ? '' : format(datum.value, datum.value < 10000 ? ',' : '~s')"
    return alt.Axis(
        title="step", labelExpr=text, tickMinStep=1, tickCount=alt.ExprRef("max(2, width / 90)"), grid=False
    )


def _pointer(wide: alt.Chart, names: Sequence[str], form: str) -> alt.Chart:
    """A line at the step next to the pointer, which tells the values there; `wide` has a row a step."""
    name = re.sub(r"\W", "_", "_".join(("at", *names)))  # of its own, where a page or a figure has several charts
    nearest = alt.selection_point(
        name=name, fields=["step"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    shown = alt.when(nearest).then(alt.value(1)).otherwise(alt.value(0))
    # Quantitative tooltips alone: in the areas next to a mark Vega-Lite reads any other from the wrong place.
    tips = [alt.Tooltip("step:Q", format=",")]
    tips += [alt.Tooltip(f"curve {i}:Q", title=name, format=form) for i, name in enumerate(names)]
    return wide.mark_rule(style="hover").encode(tooltip=tips, opacity=shown).add_params(nearest)


def _table(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def _tip(field: str, unit: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title or field, format=TIP_FORMATS.get(unit, TIP_FORMATS[""]))


def _equal(field: str, value: str) -> alt.FieldEqualPredicate:
    return alt.FieldEqualPredicate(field=field, equal=value)


def _linear(channel: Any, fields: Sequence[str], unit: str, title: str | None = None) -> list[Any]:
    """A channel for each of the fields that share one linear axis."""
    return [channel(f"{field}:Q", title=title, scale=alt.Scale(zero=False), axis=_axis(unit)) for field in fields]


def _axis(unit: str) -> alt.Axis:
    return alt.Axis(format=AXIS_FORMATS.get(unit, alt.Undefined), tickCount=5)


def _names(names: Mapping[str, str], field: str, headings: Collection[str] = ()) -> tuple[alt.Y, list[Any]]:
    """The places of named rows, and the layers that write the name of each above it, where a phone has room for it."""
    y = alt.Y(f"{field}:N", title=None, scale=alt.Scale(domain=list(names)), axis=None)
    rows = [{field: name, "text": text, "heading": name in headings} for name, text in names.items()]
    rail = _table([row for row in rows if not row["heading"]]).mark_rule(style="rail", strokeWidth=1)
    layers = [rail.encode(y=y)]
    for heading, shift, weight in ((False, -ROW * 0.36, 400), (True, 4, 600)):
        table = _table([row for row in rows if row["heading"] is heading]).encode(x=alt.value(0), y=y, text="text:N")
        text: dict[str, Any] = {"align": "left", "dy": shift, "fontWeight": weight, "limit": alt.ExprRef("width")}
        layers += [
            table.mark_text(style="halo", strokeWidth=5, **text),  # keeps lines away from the letters
            table.mark_text(style="ink" if heading else "soft", **text),
        ]
    return y, layers


def _cycle(items: Sequence[str], count: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(items), count))


def finish(chart: Any) -> Any:
    """Returns the chart with the project's theme in light colours, as a notebook shows it."""
    return chart.configure(**theme(LIGHT))
