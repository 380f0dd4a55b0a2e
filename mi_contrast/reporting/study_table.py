"""Writes a study as a table with a row for each setting: CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from mi_contrast.reporting.study_runs import CEILINGS, Spread, Study, compare_settings, list_failures
from mi_contrast.reporting.words import THIN, number


def cell(spread: Spread | None, unit: str, of: int | None = None) -> str:
    """Returns a cell in words: '52.1 % (50.9 to 53.0)', or '52.1 %' of one seed.

    Args:
      of: the seeds that should have the number; if fewer have it, their n is added.
    """
    if spread is None:
        return ""
    text = number(spread.mean, unit)
    if spread.n > 1:
        low, high = (number(v, unit).removesuffix(f"{THIN}{unit}") for v in (spread.low, spread.high))
        text += f" ({low} to {high})"
    return text if of is None or spread.n == of else f"{text}, n {spread.n}"


def as_json(study: Study) -> dict[str, Any]:
    """Returns the whole study as plain data: mean, least, greatest, n and values by seed of every number."""

    def describe(spread: Spread) -> dict[str, Any]:
        seeds = {str(seed): value for seed, value in spread.values.items()}
        ends = {"low": spread.low, "high": spread.high} if spread.n > 1 else {"low": None, "high": None}
        return {"mean": spread.mean, **ends, "n": spread.n, "seeds": seeds}

    return {
        "study": study.name,
        "variant": study.variant,
        "reference": study.reference,
        "settings": [
            {
                "label": setting.label,
                "group": setting.group,
                "changes": setting.changes,
                "command": setting.command,
                "runs": [
                    {"seed": seed, "folder": folder, "state": state.word, "reason": state.reason or None}
                    for seed, folder, state in setting.runs
                ],
                "values": {name: describe(spread) for name, spread in sorted(setting.values.items())},
                "untrained": {name: describe(spread) for name, spread in setting.untrained.items()},
            }
            for setting in study.settings
        ],
        "comparisons": [
            {"label": one.label, "column": one.title, "difference": describe(one.points), "verdict": one.verdict}
            for one in compare_settings(study)
        ],
    }


def rows(study: Study) -> tuple[list[str], list[list[str]]]:
    """Returns the table's head and its rows in words. An accuracy is followed by its untrained twin's."""
    head = ["setting", "seeds"]
    shown = [c for c in study.columns if c.name not in CEILINGS.values()]
    for column in shown:
        head += [column.title, "untrained"] if column.task else [column.title]
    body = []
    for setting in study.settings:
        done = setting.count("done")
        row = [setting.label, f"{done} of {len(setting.runs)}" if done < len(setting.runs) else str(done)]
        if setting.count("failed"):
            row[1] += f", {setting.count('failed')} failed"
        for column in shown:
            text = cell(setting.values.get(column.name), column.unit, done or None)
            top = setting.values.get(CEILINGS.get(column.name, ""))
            row.append(f"{text} of {number(top.mean, 'nats')}" if text and top else text)
            if column.task:
                row.append(cell(setting.untrained.get(column.name), column.unit, done or None))
        body.append(row)
    return head, body


def as_markdown(study: Study) -> str:
    """Returns Markdown: the table, the comparisons with the reference, and the failed runs."""
    head, body = rows(study)
    cells = [[text.replace("|", "/") for text in row] for row in [head, ["---"] * len(head), *body]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    spread = "Mean over seeds (least to greatest); a single seed has no spread, and no difference is read from it."
    parts = ["\n".join(lines), spread]
    if said := compare_settings(study):
        lines = [f"- {one.label}, {one.title}: {one} relative to {study.reference}, {one.verdict}." for one in said]
        parts.append("\n".join(lines))
    if failed := list_failures(study):
        parts.append("\n".join(f"- {where} failed: {reason}" for where, _, reason in failed))
    return "\n\n".join(parts).replace(THIN, " ") + "\n"


def as_csv(study: Study) -> str:
    """Returns a line for each setting: its label, its runs, then mean, low, high and n of every column."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    names = [name for c in study.columns for name in ((c.name, f"{c.name}_untrained") if c.task else (c.name,))]
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high", "_n")]
    write.writerow(["label", "group", "done", "failed", "asked", *ends])
    for setting in study.settings:
        spreads = {**setting.values, **{f"{name}_untrained": spread for name, spread in setting.untrained.items()}}
        counts = [setting.count("done"), setting.count("failed"), len(setting.runs)]
        numbers = [number for name in names for number in _numbers(spreads.get(name))]
        write.writerow([setting.label, setting.group, *counts, *numbers])
    return out.getvalue()


def _numbers(spread: Spread | None) -> list[Any]:
    """Returns [mean, low, high, n] for one setting; low and high are '' for a single seed."""
    if spread is None:
        return ["", "", "", 0]
    return [spread.mean, *((spread.low, spread.high) if spread.n > 1 else ("", "")), spread.n]


def dumps(study: Study) -> str:
    """Returns the text of table.json."""
    return json.dumps(as_json(study), indent=2) + "\n"
