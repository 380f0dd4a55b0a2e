"""The charts of a study: every number of its settings, and accuracy against one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

from mi_contrast.reporting import charts
from mi_contrast.reporting.story import Figure
from mi_contrast.reporting.study_runs import CEILINGS, Column, Setting, Study

SHARES = {"bound_share": "share of anchors", "same_class": "share of negatives", "same_instance": "share of negatives"}
NEAR = 0.35  # a ceiling is drawn if it exceeds the largest value by less than this share of the values' range


def draw_numbers(study: Study) -> Iterator[Figure]:
    """Yields a chart of each number that the study draws, with a row for every setting."""
    names, labels = _names(study), {setting.label for setting in study.settings}
    for column in study.figure:
        rows = setting_rows(study, column)
        ceiling = common_ceiling(study, column)
        values = [row["value"] for row in rows]
        near = ceiling is not None and bool(values)
        if near and ceiling >= max(values) + NEAR * (max(values) - min(values)):  # type: ignore[operator]
            near = False
        chart = charts.draw_settings(
            rows,
            names,
            headings=[name for name in names if name not in labels],
            unit=column.unit,
            reference=study.reference,
            ceiling=ceiling if near else None,
        )
        yield Figure(column.name if column.task else column.title, _note(column, ceiling), chart)


def setting_rows(study: Study, column: Column) -> list[dict[str, Any]]:
    """Returns the rows of `charts.draw_settings`: each setting's seeds, their mean if there are several, its twins'."""
    rows: list[dict[str, Any]] = []
    for setting in study.settings:
        spread, twins = setting.values.get(column.name), setting.untrained.get(column.name)
        named = {"setting": setting.label}
        if twins is not None:
            rows.append({**named, "kind": "untrained", "value": twins.mean})
        if spread is not None:
            rows += [{**named, "kind": "seed", "seed": seed, "value": value} for seed, value in spread.values.items()]
            if spread.n > 1:
                ends = {"low": spread.low, "high": spread.high}
                rows.append({**named, "kind": "mean", "value": spread.mean, **ends})
    return rows


def draw_curves(study: Study) -> Iterator[Figure]:
    """Yields the charts of accuracy against the study's curve column: one for each group of settings and each task."""
    if study.curve is None:
        return
    for group, members in groupby(study.settings, key=lambda setting: setting.group):
        settings = list(members)
        for task in (column for column in study.columns if column.task):
            rows = curve_rows(settings, study.curve, task)
            twins = [setting.untrained[task.name].mean for setting in settings if task.name in setting.untrained]
            ceiling = common_ceiling(study, study.curve)
            chart = charts.draw_against(
                rows,
                x=f"{study.curve.title}, {_note(study.curve, ceiling)}",
                y=task.title,
                x_unit=study.curve.unit,
                y_unit=task.unit,
                joined=is_scale([row["setting"] for row in rows]),
                untrained=sum(twins) / len(twins) if twins and rows else None,
            )
            note = "Top-1 on the test split. Dashed: untrained." if rows else "nothing judged yet"
            yield Figure(f"{group or study.name}: {task.name}", note, chart)


def curve_rows(settings: list[Setting], across: Column, task: Column) -> list[dict[str, Any]]:
    """Returns the rows of `charts.draw_against`: a setting's mean of both numbers, and the ends of its accuracy."""
    rows = []
    for setting in settings:
        x, y = setting.values.get(across.name), setting.values.get(task.name)
        if x is not None and y is not None:
            ends = {"low": y.low, "high": y.high} if y.n > 1 else {}
            rows.append({"setting": setting.label, "x": x.mean, "y": y.mean, **ends})
    return rows


def is_scale(labels: list[str]) -> bool:
    """Returns whether every label holds a number, and the last numbers of the labels rise or fall throughout."""
    numbers = [re.findall(r"\d*\.?\d+", label) for label in labels]
    if not all(numbers):
        return False
    steps = [float(after[-1]) - float(before[-1]) for before, after in pairwise(numbers)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def common_ceiling(study: Study, column: Column) -> float | None:
    """Returns the ceiling of the number if every setting has the same, else None."""
    spreads = [s.values[CEILINGS[column.name]] for s in study.settings if CEILINGS.get(column.name) in s.values]
    ends = {round(value, 4) for spread in spreads for value in (spread.low, spread.high)}
    return ends.pop() if len(ends) == 1 else None


def say_marks(study: Study) -> str:
    """Returns what the marks of the study's charts mean."""
    text = "A dot is a seed."
    if any(len(setting.runs) > 1 for setting in study.settings):
        text += " A stroke is the mean of the seeds, a bar goes from the least to the greatest."
    if any(column.task for column in study.figure):
        text += " An orange ring is the untrained network."
    return text + (f" The dotted line goes through the mean of {study.reference}." if study.reference else "")


def _names(study: Study) -> dict[str, str]:
    """What is written above each setting's row, with a heading above each group."""
    names = {}
    for group, settings in groupby(study.settings, key=lambda setting: setting.group):
        if group:
            names[f"heading {group}"] = group
        for setting in settings:
            done, failed, total = setting.count("done"), setting.count("failed"), len(setting.runs)
            state = f"{failed} failed" if failed else f"n {done}" if done == total else f"{done} of {total}"
            names[setting.label] = f"{setting.label} · {state}"
    return names


def _note(column: Column, ceiling: float | None) -> str:
    if column.task:
        return "top-1 on the test split"
    if ceiling is not None:
        return f"nats, at most {ceiling:.2f}"
    return SHARES.get(column.name, "") if column.unit == "%" else column.unit
