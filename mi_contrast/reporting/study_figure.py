"""A study as a figure: a row a setting, a panel a number; every seed a dot, their mean a stroke. One SVG, no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import groupby

from markupsafe import escape

from mi_contrast.reporting.figures import scale, svg_text
from mi_contrast.reporting.study_runs import CEILINGS, Column, Setting, Spread, Study
from mi_contrast.reporting.words import number

WIDTH, MARGIN, BETWEEN = 1100.0, 24.0, 22.0
HEAD, ROW, GROUP, FOOT = 84.0, 27.0, 27.0, 64.0  # heights: titles, a setting, a group's name, axis and legend
LABELS = (150.0, 300.0)  # the least and the most that the settings' names take
OF = {"bound_share": "of anchors", "same_class": "of negatives", "same_instance": "of negatives"}
LETTER = 6.7  # the mean width of a letter of a label
STYLE = """
.study { color-scheme: light dark; --card: #ffffff; --ink: #1b1d21; --soft: #5d636e; --faint: #8b919b; --rule: #e4e1da;
  --grid: #ecebe6; --stripe: #f8f7f4; --c1: #2459c4; --c2: #c8641b; --bad: #c0262d; }
@media (prefers-color-scheme: dark) { .study { --card: #1b1e24; --ink: #e9e7e3; --soft: #a9afba; --faint: #7c838f;
  --rule: #2b2f37; --grid: #262a32; --stripe: #20242b; --c1: #82a8ff; --c2: #f0a061; --bad: #ff6b6b; } }
.study text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; fill: var(--ink); }
.study text.h1 { font-size: 15px; font-weight: 620; }
.study text.facts, .study text.group { font-size: 12px; fill: var(--soft); }
.study text.group { font-weight: 620; }
.study text.tick { font-size: 11.5px; fill: var(--faint); font-variant-numeric: tabular-nums; }
.study text.bad { font-size: 12px; fill: var(--bad); }
.study .card { fill: var(--card); stroke: var(--rule); }
.study .stripe { fill: var(--stripe); }
.study path { fill: none; }
.study .grid { stroke: var(--grid); }
.study .reference { stroke: var(--c1); stroke-opacity: .55; stroke-width: 1.2; stroke-dasharray: 2 3; }
.study .ceiling { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 6 4; }
.study .span { stroke: var(--c1); stroke-width: 9; stroke-opacity: .2; }
.study .mean { stroke: var(--c1); stroke-width: 2.6; stroke-linecap: round; }
.study .seed { fill: var(--c1); fill-opacity: .75; }
.study .twin { fill: none; stroke: var(--c2); stroke-width: 1.6; }
"""


def draw(study: Study) -> str:
    """The figure as a whole SVG file that carries its colours for light and dark."""
    widest = max((len(setting.label) for setting in study.settings), default=0)
    left = MARGIN + max(min(max(LETTER * widest + 62, LABELS[0]), LABELS[1]), 8.7 * len(_title(study)) + 14)
    panels = max(len(study.figure), 1)
    width = (WIDTH - MARGIN - left - BETWEEN * (panels - 1)) / panels
    places = dict(_places(study))
    bottom = max([HEAD, *(y for y in places.values())]) + ROW / 2 + 2
    height = bottom + FOOT
    body = [*_names(study, places, left), *_legend(study, bottom + 46)]
    for i, column in enumerate(study.figure):
        at = left + i * (width + BETWEEN)
        body += _panel(study, column, places, (at, at + width), bottom)
    size = f'viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" height="{height:.0f}"'
    said = f"{study.name}: {len(study.settings)} settings, " + ", ".join(column.title for column in study.figure)
    head = f'<svg class="study" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(said)}">'
    card = f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1:.0f}" height="{height - 1:.0f}" rx="10"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", card, *body, "</svg>\n"])


def _places(study: Study) -> Iterator[tuple[str, float]]:
    """The middle of each setting's row, by label; of a group's name, by ('group', name)."""
    y = HEAD
    for group, settings in groupby(study.settings, key=lambda setting: setting.group):
        if group:
            yield f"group {group}", y + GROUP / 2 + 3
            y += GROUP
        for setting in settings:
            yield setting.label, y + ROW / 2
            y += ROW


def _title(study: Study) -> str:
    return study.name + (f" : {study.variant}" if study.variant else "")


def _names(study: Study, places: dict[str, float], left: float) -> Iterator[str]:
    """The rows' stripes and names, with how many seeds each rests on, and how many failed."""
    yield svg_text("h1", MARGIN, 36, _title(study))
    yield svg_text("facts", MARGIN, 56, "mean and seeds")
    room = int((left - MARGIN - 62) / LETTER) + 1
    for i, setting in enumerate(study.settings):
        y = places[setting.label]
        if i % 2 == 0:
            wide = WIDTH - 2 * MARGIN + 16
            place = f'x="{MARGIN - 8:.1f}" y="{y - ROW / 2:.1f}" width="{wide:.1f}" height="{ROW:.1f}"'
            yield f'<rect class="stripe" {place} rx="4"/>'
        label = setting.label if len(setting.label) <= room else setting.label[: room - 1] + "…"
        yield svg_text("row", MARGIN, y + 4.5, label)
        done, failed, asked = setting.count("done"), setting.count("failed"), len(setting.runs)
        if failed:
            yield svg_text("bad", left - 14, y + 4.5, f"{failed} failed", "end")
        else:
            yield svg_text("tick", left - 14, y + 4.5, f"n {done}" if done == asked else f"{done} of {asked}", "end")
    for group in dict.fromkeys(setting.group for setting in study.settings if setting.group):
        yield svg_text("group", MARGIN, places[f"group {group}"] + 4.5, group)


def _panel(
    study: Study, column: Column, places: dict[str, float], ends: tuple[float, float], bottom: float
) -> Iterator[str]:
    left, right = ends
    drawn = [(s, s.values.get(column.name), s.untrained.get(column.name)) for s in study.settings]
    yield svg_text("h1", left, 36, column.name if column.task else column.title)
    for line, text in enumerate(_facts(study, column)):
        yield svg_text("facts", left, 56 + 16 * line, text)
    values = [v for _, spread, twin in drawn for some in (spread, twin) if some for v in some.values.values()]
    if not values:
        return
    low, high = min(values), max(values)
    top = _ceiling(study, column)
    high = top if top is not None and top < high + 0.35 * (high - low) else high
    x, marks = scale(low, high, column.unit, 4 if right - left < 190 else 6, ends)
    free = math.inf  # where the number to the right begins: one that would touch it gives way, the greatest stays
    for mark, text in reversed(marks):
        yield f'<path class="grid" d="M{x(mark):.1f} {HEAD:.1f}V{bottom:.1f}"/>'
        half = LETTER * len(text) / 2
        room = half - BETWEEN / 2 + 1  # what would reach into the next panel moves over
        at = min(max(x(mark), left + room), right - room)
        if at + half + LETTER / 2 < free:
            free = at - half - LETTER / 2
            yield svg_text("tick", at, bottom + 15, text, "middle")
    if top is not None and left <= x(top) <= right:
        yield f'<path class="ceiling" d="M{x(top):.1f} {HEAD:.1f}V{bottom:.1f}"/>'
    for setting, spread, _ in drawn:
        if setting.label == study.reference and spread is not None:
            yield f'<path class="reference" d="M{x(spread.mean):.1f} {HEAD:.1f}V{bottom:.1f}"/>'
    for setting, spread, twin in drawn:
        yield from _marks(setting, column, (spread, twin), places[setting.label], x)


def _marks(
    setting: Setting, column: Column, found: tuple[Spread | None, Spread | None], y: float, x: Callable[[float], float]
) -> Iterator[str]:
    """A setting's number in a panel, at height y: the untrained twin's mean, the seeds, their span and mean."""
    spread, twin = found
    if twin is not None:
        said = f"<title>untrained: {number(twin.mean, column.unit)}</title>"
        yield f'<circle class="twin" cx="{x(twin.mean):.1f}" cy="{y:.1f}" r="3.2">{said}</circle>'
    if spread is None:
        return
    yield f"<g><title>{escape(_said(setting, column, spread))}</title>"
    if spread.n > 1:
        yield f'<path class="span" d="M{x(spread.low):.1f} {y:.1f}H{max(x(spread.high), x(spread.low) + 1):.1f}"/>'
    for value in spread.values.values():
        yield f'<circle class="seed" cx="{x(value):.1f}" cy="{y:.1f}" r="3"/>'
    if spread.n > 1:
        yield f'<path class="mean" d="M{x(spread.mean):.1f} {y - 8:.1f}v16"/>'
    yield "</g>"


def _facts(study: Study, column: Column) -> Iterator[str]:
    top = _ceiling(study, column)
    if column.task:
        yield "top-1 on the test split"
    elif top is not None:
        yield f"nats, at most {top:.2f}"
    elif column.unit != "%":
        yield column.unit
    else:
        yield OF.get(column.name, "")


def _ceiling(study: Study, column: Column) -> float | None:
    """The number's ceiling where every setting has the same."""
    tops = [s.values[CEILINGS[column.name]] for s in study.settings if CEILINGS.get(column.name) in s.values]
    ends = {round(v, 4) for spread in tops for v in (spread.low, spread.high)}
    return ends.pop() if len(ends) == 1 else None


def _said(setting: Setting, column: Column, spread: Spread) -> str:
    seeds = ", ".join(f"seed {seed}: {number(value, column.unit)}" for seed, value in spread.values.items())
    mean = f"mean {number(spread.mean, column.unit)}; " if spread.n > 1 else ""
    return f"{setting.label}, {column.title}\n{mean}{seeds}"


def _legend(study: Study, y: float) -> Iterator[str]:
    x = MARGIN
    several = any(len(setting.runs) > 1 for setting in study.settings)
    entries = [("seed", "a seed")]
    entries += [("mean", "mean, over least to greatest")] if several else []
    entries += [("twin", "untrained")] if any(column.task for column in study.figure) else []
    entries += [("reference", study.reference)] if study.reference else []
    for kind, text in entries:
        if kind in ("seed", "twin"):
            yield f'<circle class="{kind}" cx="{x + 9:.1f}" cy="{y:.1f}" r="3.2"/>'
        elif kind == "mean":
            yield f'<path class="span" d="M{x - 2:.1f} {y:.1f}h22"/>'
            yield f'<path class="mean" d="M{x + 9:.1f} {y - 7:.1f}v14"/>'
        else:
            yield f'<path class="reference" d="M{x + 9:.1f} {y - 8:.1f}v16"/>'
        yield svg_text("facts", x + 27, y + 4.5, text)
        x += 27 + 6.6 * len(text) + 26
