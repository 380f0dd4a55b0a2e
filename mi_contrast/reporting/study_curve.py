"""A study as curves: accuracy against another number, a panel a group of settings and a task; every setting a point.

What Tian et al. 2020 (InfoMin) draw: nats between the views along the bottom, accuracy up the side. Settings of a group
that are steps of a scale, whose names' numbers rise or fall, are joined in that order; kinds of something are not. One
SVG, no script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, pairwise, product

from markupsafe import escape

from mi_contrast.reporting.figures import scale, svg_text
from mi_contrast.reporting.study_figure import STYLE
from mi_contrast.reporting.study_runs import CEILINGS, Column, Setting, Spread, Study
from mi_contrast.reporting.words import number

PANEL, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 440.0, 250.0, 62.0, 22.0, 62.0, 52.0, 56.0
LETTER, LINE = 6.4, 12.0  # the mean width of a letter of a name, and its height
LIFTS = (-7.0, 15.0, -20.0, 28.0, -33.0, 41.0, -46.0, 54.0, -59.0, 67.0)  # of a name's foot from its point
Point = tuple[Setting, Spread, Spread]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def draw(study: Study) -> str:
    """The curves as a whole SVG file that carries its colours for light and dark; '' where the study has none."""
    if study.curve is None:
        return ""
    groups = [(group, tuple(settings)) for group, settings in groupby(study.settings, key=lambda s: s.group)]
    tasks = [column for column in study.columns if column.task]
    width = LEFT + len(tasks) * (PANEL + BETWEEN) - BETWEEN + RIGHT
    height = len(groups) * (TOP + HEIGHT + BOTTOM)
    body: list[str] = []
    for row, (group, settings) in enumerate(groups):
        for at, task in enumerate(tasks):
            left, top = LEFT + at * (PANEL + BETWEEN), row * (TOP + HEIGHT + BOTTOM) + TOP
            body += _panel(study.curve, task, group or study.name, settings, left, top)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    said = f"{study.name}: accuracy against {study.curve.title}"
    head = f'<svg class="study" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(said)}">'
    card = f'<rect class="card" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="10"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", card, *body, "</svg>\n"])


def _panel(
    along: Column, task: Column, group: str, settings: tuple[Setting, ...], left: float, top: float
) -> Iterator[str]:
    """One curve: axes, the untrained networks' accuracy, and a point a setting with its name."""
    points: list[Point] = []
    for setting in settings:
        across, up = setting.values.get(along.name), setting.values.get(task.name)
        if across is not None and up is not None:
            points.append((setting, across, up))
    yield svg_text("h1", left, top - 34, f"{group}: {task.name}")
    tops = {round(s.values[c].mean, 2) for s in settings if (c := CEILINGS.get(along.name, "")) in s.values}
    ceiling = f", at most {tops.pop():.2f}" if len(tops) == 1 else ""
    yield svg_text("facts", left, top - 16, f"top-1 on the test split against {along.title}, {along.unit}{ceiling}")
    if not points:
        yield svg_text("facts", left, top + 20, "nothing judged yet")
        return
    twins = [s.untrained[task.name].mean for s in settings if task.name in s.untrained]
    wide = [v for _, a, _ in points for v in a.values.values()]
    tall = [v for _, _, u in points for v in u.values.values()] + twins
    x, marks = scale(min(wide), max(wide), along.unit, 5, (left + 12, left + PANEL - 40))
    for mark, said in marks:
        yield f'<path class="grid" d="M{x(mark):.1f} {top:.1f}V{top + HEIGHT:.1f}"/>'
        yield svg_text("tick", x(mark), top + HEIGHT + 16, said, "middle")
    y, marks = scale(min(tall), max(tall), task.unit, 5, (top + HEIGHT - 8, top + 8))
    for mark, said in marks:
        yield f'<path class="grid" d="M{left:.1f} {y(mark):.1f}H{left + PANEL:.1f}"/>'
        yield svg_text("tick", left - 6, y(mark) + 4, said, "end")
    taken: list[Box] = []
    if twins:
        mean = sum(twins) / len(twins)
        taken.append((left + PANEL - LETTER * len("untrained"), y(mean) - 5 - LINE, left + PANEL, y(mean) - 5))
        yield f'<path class="ceiling" d="M{left:.1f} {y(mean):.1f}H{left + PANEL:.1f}"/>'
        yield svg_text("tick", left + PANEL, y(mean) - 5, "untrained", "end")
    if _is_scale([setting.label for setting, *_ in points]):
        for (_, one, up), (_, other, next_up) in pairwise(points):
            ends = f"M{x(one.mean):.1f} {y(up.mean):.1f}L{x(other.mean):.1f} {y(next_up.mean):.1f}"
            yield f'<path class="mean" d="{ends}" style="stroke-width:1.2"/>'
    for setting, across, up in points:
        told = f"{setting.label}: {number(across.mean, along.unit)}, {number(up.mean, task.unit)}"
        yield f"<g><title>{escape(told)}</title>"
        if up.n > 1:
            ends = f"M{x(across.mean):.1f} {y(up.low):.1f}V{y(up.high):.1f}"
            yield f'<path class="span" d="{ends}" style="stroke-width:6"/>'
        yield f'<circle class="seed" cx="{x(across.mean):.1f}" cy="{y(up.mean):.1f}" r="4"/></g>'
    named = [(setting.label, x(across.mean), y(up.mean)) for setting, across, up in points]
    yield from _names(named, taken, (left, top, left + PANEL, top + HEIGHT))


def _is_scale(labels: list[str]) -> bool:
    """Whether each label holds a number and these rise, or fall, throughout."""
    found = [re.findall(r"\d*\.?\d+", label) for label in labels]
    if not all(found):
        return False
    steps = [float(after[-1]) - float(before[-1]) for before, after in pairwise(found)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def _names(points: list[tuple[str, float, float]], taken: list[Box], panel: Box) -> Iterator[str]:
    """Points' names, each at the nearest of LIFTS where it covers no name, point or panel's end, and nothing that is
    taken; a thin line leads to one that is not beside its point. Where all is full, beside it all the same.
    """
    taken = [*taken, *((x - 4, y - 4, x + 4, y + 4) for _, x, y in points)]
    for label, x, y in points:
        wide = LETTER * len(label)
        boxes = [(at, y + lift - LINE, at + wide, y + lift) for lift, at in product(LIFTS, (x + 7, x - 7 - wide))]
        free = (box for box in boxes if _within(box, panel) and not any(_meet(box, other) for other in taken))
        taken.append(box := next(free, boxes[0]))
        if box not in boxes[:4]:
            side, foot = (box[0] if box[0] > x else box[2]), box[3] - LINE / 3
            yield f'<path class="grid" d="M{x:.1f} {y:.1f}L{side:.1f} {foot:.1f}" style="stroke: var(--faint)"/>'
        yield svg_text("tick", box[0], box[3], label)


def _within(box: Box, panel: Box) -> bool:
    return panel[0] <= box[0] and box[2] <= panel[2] and panel[1] <= box[1] and box[3] <= panel[3]


def _meet(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
