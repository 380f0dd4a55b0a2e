"""Draws the figures of the studies from the tables on their pages: `python -m docs.draw_figures`.

The figures are kept in docs/studies/figures/, and tests/docs/test_figures.py checks that they show the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mi_contrast.reporting import charts, drawing

STUDIES = Path(__file__).resolve().parent / "studies"
FIGURES = STUDIES / "figures"
NUMBER = r"-?\d*\.?\d+"


class Spread(NamedTuple):
    """A number of a table, with the least and the greatest of several seeds where the table has them."""

    value: float
    low: float | None = None
    high: float | None = None


def read_tables(page: str) -> list[list[list[str]]]:
    """Returns the tables of a page of Markdown: rows of cells, the first row its head."""
    text = (STUDIES / f"{page}.md").read_text(encoding="utf-8")
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in block.splitlines()]
        rows = [[cell.strip(" |") for cell in row] for row in rows]
        tables.append([rows[0], *rows[2:]])
    return tables


def read_number(cell: str) -> Spread | None:
    """Returns the number of a cell such as '43.0 % (42.4 to 43.5)', percentages as shares; None where there is none."""
    found = re.match(rf"({NUMBER})(?: %)?(?: \(({NUMBER}) to ({NUMBER})\))?$", cell)
    if found is None:
        return None
    scale = 0.01 if "%" in cell else 1.0
    return Spread(*(None if part is None else round(scale * float(part), 6) for part in found.groups()))  # type: ignore[arg-type]


def settings(page: str, column: int, untrained: int | None = None, table: int = 0, unit: str = "%") -> Any:
    """Returns a chart of one column of a table, a row for each setting; untrained networks are rings."""
    rows: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    reference: Spread | None = None
    for cells in read_tables(page)[table][1:]:
        number = read_number(cells[column])
        if untrained is not None:
            reference = read_number(cells[untrained]) or reference
        if number is None:
            continue
        names[cells[0]] = cells[0]
        if reference is not None:
            rows.append({"setting": cells[0], "kind": "untrained", "value": reference.value})
        if number.low is None:
            rows.append({"setting": cells[0], "kind": "seed", "seed": 0, "value": number.value})
        else:
            ends = {"low": number.low, "high": number.high}
            rows.append({"setting": cells[0], "kind": "mean", "value": number.value, **ends})
    return charts.draw_settings(rows, names, unit=unit)


def against(page: str, *, across: bool, nats: int, accuracy: int, table: int = 0, joined: bool = False) -> Any:
    """Returns a chart of accuracy against nats.

    Args:
      across: whether the settings are the columns of the table, and not its rows.
      nats, accuracy: the row or the column of each number.
      joined: whether the settings are steps of a scale.
    """
    cells = read_tables(page)[table]
    lines = list(map(list, zip(*cells, strict=True))) if across else cells
    rows = []
    for line in lines[1:]:
        x, y = read_number(line[nats]), read_number(line[accuracy])
        if x is None or y is None:
            continue
        scale = 1.0 if "%" in line[accuracy] else 0.01  # the head of the row has the unit
        ends = {} if y.low is None or y.high is None else {"low": scale * y.low, "high": scale * y.high}
        rows.append({"setting": line[0], "x": x.value, "y": scale * y.value, **ends})
    return charts.draw_against(
        rows, x="nats of held-out pairs", y="linear, top-1", x_unit="nats", y_unit="%", joined=joined
    )


DRAWINGS: dict[str, Callable[[], Any]] = {
    "methods": lambda: settings("methods", 2, untrained=1),
    "negatives": lambda: settings("negatives", 1),
    "shared_factors": lambda: settings("shared_factors", 1),
    "learned_views": lambda: settings("learned_views", 2, untrained=1),
    "splits": lambda: against("splits", across=True, nats=1, accuracy=2),
    "strengths": lambda: against("strengths", across=True, nats=1, accuracy=2, joined=True),
    "patch_distance": lambda: against("patch_distance", across=True, nats=1, accuracy=2, joined=True),
    "generators": lambda: against("generators", across=False, nats=2, accuracy=3),
    "pairs": lambda: settings("pairs", 2),
}


def main() -> None:
    """Draws all figures."""
    FIGURES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FIGURES / f"{name}.svg").write_text(drawing.as_svg(draw()), encoding="utf-8")


if __name__ == "__main__":
    main()
