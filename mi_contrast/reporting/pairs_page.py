"""The page of a table's columns: a heat map of the nats that every two of them share, and the numbers below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from mi_contrast.core.errors import FileError
from mi_contrast.core.layout import write_text
from mi_contrast.reporting import charts, drawing, templates

MARK = "Made by mi_contrast.estimate"  # in every such page, so that no other file is replaced
CELL, SMALLEST_MAP, LARGEST_MAP = 64, 220, 900  # pixels: the side of a cell, and of the map
MOST_NUMBERS = 14  # columns up to which each cell shows its number
Row = Mapping[str, Any]


def check_replaceable(path: Path) -> None:
    """Raises FileError if there is a file at `path` that no earlier call has written."""
    if path.exists() and (not path.is_file() or MARK not in path.read_text(encoding="utf-8", errors="replace")):
        raise FileError(f"{path} exists and is not a page of pairs", fix="name another with --out=PAGE.html")


def describe_pairs(rows: Sequence[Row]) -> str:
    """Returns the sentence on the pair that shares most, and on how many pairs share anything.

    Args:
      rows: each with x, y, nats, low, high (infinite for a lower limit) and sound, the most nats first.
    """
    sound = [row for row in rows if row["sound"]]
    if not sound:
        return "verdict: nothing is known of these columns"
    best, related = sound[0], sum(row["low"] > 0 for row in sound)
    if related == 0:
        return f"verdict: no two of these columns are shown to share anything, in {_count(len(sound))}"
    interval = f"90 % interval {max(best['low'], 0.0):.3f} to {best['high']:.3f}"
    amount = f"{best['nats']:.3f} nats ({best['nats'] / math.log(2):.3f} bits, {interval})"
    if best["high"] == math.inf:
        amount = f"at least {best['low']:.3f} nats ({best['low'] / math.log(2):.3f} bits)"
    counted = f"of {_count(len(sound))}, {related} {'has an interval' if related == 1 else 'have intervals'} above 0"
    chance = f", and by chance alone {0.05 * len(sound):.1f} would" if len(sound) >= 10 else ""
    return f"verdict: {best['x']} and {best['y']} share most, {amount}; {counted}{chance}"


def _count(pairs: int) -> str:
    return f"{pairs} pair{'s' if pairs > 1 else ''}"


def draw_heat_map(rows: Sequence[Row], names: Sequence[str]) -> alt.LayerChart:
    """Returns a square of cells, one for every two columns: the more nats they share, the darker the cell.

    Args:
      rows: as in `describe_pairs`.
      names: of all columns, in the order of the axes.
    """
    cells = [
        {"row": a, "column": b, "nats": max(row["nats"], 0.0), "low": row["low"], "high": row["high"],
         "label": _label(row)}
        for row in rows if row["sound"] for a, b in ((row["x"], row["y"]), (row["y"], row["x"]))
    ]  # fmt: skip
    side = min(max(CELL * len(names), SMALLEST_MAP), LARGEST_MAP)
    order = list(names)
    base = alt.Chart(alt.InlineData(values=charts.as_rows(cells))).encode(
        x=alt.X("column:N", sort=order, scale=alt.Scale(domain=order), title=None, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("row:N", sort=order, scale=alt.Scale(domain=order), title=None),
    )
    top = max((cell["nats"] for cell in cells), default=0.0) or 1.0
    squares = base.mark_rect(style="first", cornerRadius=3).encode(
        opacity=alt.Opacity("nats:Q", scale=alt.Scale(domain=[0.0, top], range=[0.05, 0.75]), legend=None),
        tooltip=[alt.Tooltip("row:N", title="one"), alt.Tooltip("column:N", title="other"),
                 *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("nats", "low", "high"))],
    )  # fmt: skip
    layers = [squares]
    if len(names) <= MOST_NUMBERS:
        layers.append(base.mark_text(style="ink").encode(text="label:N"))
    return charts.finish(alt.layer(*layers).properties(width=side, height=side))


def _label(row: Row) -> str:
    return f"≥ {row['low']:.2f}" if row["high"] == math.inf else f"{max(row['nats'], 0.0):.2f}"


@drawing.unvalidated
def write_page(path: Path, rows: Sequence[Row], names: Sequence[str], *, title: str, note: str, sentence: str) -> None:
    """Writes the page, whole or not at all, for reading without a network.

    Args:
      rows: as in `describe_pairs`.
      names: of all columns, in the order of the axes.
      title: the file's name.
      note: how many rows were read.
      sentence: what the rows say together.
    """
    text = templates.render(
        "pairs.html.j2",
        title=title,
        note=note,
        sentence=sentence.removeprefix("verdict: "),
        chart=draw_heat_map(rows, names),
        rows=[_cells(row) for row in rows],
        mark=MARK,
    )
    write_text(path, text)


def _cells(row: Row) -> tuple[str, ...]:
    if not row["sound"]:
        return (row["x"], row["y"], "", "", "", str(row["samples"]), row["what"])
    high = "" if row["high"] == math.inf else f"{row['high']:.3f}"
    return (row["x"], row["y"], f"{row['nats']:.3f}", f"{row['low']:.3f}", high, str(row["samples"]), row["method"])
