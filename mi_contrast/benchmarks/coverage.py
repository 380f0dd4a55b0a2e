"""Counts how often the interval of `estimate` contains the true mutual information, over draws of the samples.

Twelve cells have Gaussians and increasing maps of their coordinates, for which the interval is made. Six cells have
other distributions, to show how far it can be trusted there. Each estimate is appended to a file as soon as it is made,
so that a stopped table can be continued.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import beta

import mi_contrast
from mi_contrast import estimators as mi
from mi_contrast.core.errors import FileError
from mi_contrast.core.progress import ProgressBar

REPEATS = 50  # draws per cell
OTHER_REPEATS = 10  # largest number of draws for a cell of another distribution
GOAL, MAX_WIDTH = 0.9, 6.6  # coverage; median width in standard deviations of the estimate

MAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda t: t,
    "exp": np.exp,
    "cube": lambda t: t**3,
}
TASKS: dict[str, mi.tasks.Task] = {
    "student": mi.tasks.student(1, 1, 1),
    "additive": mi.tasks.additive(0.75),
    "swiss roll": mi.tasks.gaussian(1, 1, 0.75).normal_cdf().swiss_roll(),
    "student, 3": mi.tasks.student(3, 3, 3),
    "spiral": mi.tasks.gaussian(3, 3, 0.8, pairs=2).spiral(),
    "ten": mi.tasks.gaussian(10, 10, 0.6, pairs=10),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    samples: number of pairs in a draw.
    kind: 'gaussian', or a name in TASKS.
    dimensions, rho, map: of 'gaussian': pairs of coordinates, their correlation, and the map of each coordinate.
    """

    samples: int
    dimensions: int = 1
    rho: float = 0.0
    map: str = "none"
    kind: str = "gaussian"

    @property
    def name(self) -> str:
        """The name of this cell in the rows of the file."""
        if self.kind != "gaussian":
            return f"{self.kind}, N {self.samples}"
        return f"N {self.samples}, d {self.dimensions}, rho {self.rho:g}, {self.map}"

    @property
    def nats(self) -> float:
        """The true mutual information in nats."""
        return TASKS[self.kind].nats if self.kind in TASKS else -self.dimensions / 2 * math.log1p(-(self.rho**2))

    def sample(self, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns draw number `draw`, float64 [N, dx] and [N, dy]."""
        if self.kind in TASKS:
            x, y = TASKS[self.kind].sample(jax.random.key(1000 + draw), self.samples)
            return np.asarray(x, np.float64), np.asarray(y, np.float64)
        seed = [draw, self.samples, self.dimensions, round(100 * self.rho)]
        x, noise = np.random.default_rng(seed).normal(size=(2, self.samples, self.dimensions))
        y = self.rho * x + math.sqrt(1 - self.rho**2) * noise
        return MAPS[self.map](x), MAPS[self.map](y)


CELLS = (
    Cell(500, 1, 0.0, "none"),
    Cell(500, 1, 0.9, "exp"),
    Cell(500, 2, 0.3, "cube"),
    Cell(500, 5, 0.0, "exp"),
    Cell(500, 5, 0.6, "none"),
    Cell(500, 5, 0.9, "cube"),
    Cell(2000, 1, 0.3, "cube"),
    Cell(2000, 3, 0.6, "exp"),
    Cell(2000, 5, 0.9, "none"),
    Cell(5000, 1, 0.9, "none"),
    Cell(5000, 2, 0.0, "cube"),
    Cell(5000, 5, 0.6, "exp"),
)
OTHER_CELLS = tuple(Cell(500 if kind == "ten" else 2000, kind=kind) for kind in TASKS)


def run(repeats: int, small: bool = False, rows: str = "") -> dict[str, Any]:
    """Returns the table: coverage with its binomial interval, width, bias and seconds of every cell.

    Args:
      repeats: draws per cell; cells of other distributions have at most 10.
      small: two small cells with three draws, to see that it runs.
      rows: a file of finished estimates, one JSON object per line. It is read first, and new estimates are appended.
        Rows of another version of the package are ignored.
    Raises:
      UserError if a line of `rows` is not an estimate.
    """
    cells: tuple[Cell, ...] = (Cell(120, 1, 0.6, "exp"), Cell(120, 2, 0.0)) if small else CELLS + OTHER_CELLS
    draws = {cell: min(repeats, 3 if small else OTHER_REPEATS if cell.kind in TASKS else repeats) for cell in cells}
    path = Path(rows) if rows else None
    finished = _read_rows(path)
    # The loop runs draw by draw, so that a table that is stopped early has equally many draws of every cell.
    todo = [(c, d) for d in range(max(draws.values())) for c in cells if d < draws[c] and (c.name, d) not in finished]
    progress = ProgressBar("coverage", len(todo), unit="estimate")
    for cell, draw in todo:
        row = measure(cell, draw)
        finished[cell.name, draw] = row
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        progress.advance(note=cell.name)
    progress.close()
    table = [summarise(cell, [finished[cell.name, d] for d in range(draws[cell])]) for cell in cells]
    return {"seconds": sum(row["seconds"] * row["draws"] for row in table), "table": table}


def _read_rows(path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns {(cell, draw): row} of the finished estimates of this version."""
    if path is None or not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
        return {(row["cell"], row["draw"]): row for row in rows if row["version"] == mi_contrast.__version__}
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path} has a line that is no estimate: {error}", fix="correct the line, or move the file away"
        ) from None


def measure(cell: Cell, draw: int) -> dict[str, Any]:
    """Makes one estimate of one draw and returns it as a row.

    `high` is None if the estimate gives only a lower limit.
    """
    x, y = cell.sample(draw)
    start = time.perf_counter()
    estimate = mi.estimate(x, y, key=jax.random.key(draw))
    values = {name: float(getattr(estimate, name)) for name in ("nats", "standard_error", "low", "high")}
    numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
    seconds = time.perf_counter() - start
    return {"cell": cell.name, "draw": draw, "version": mi_contrast.__version__, **numbers, "seconds": seconds}


def summarise(cell: Cell, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a row of the table.

    from, to: the exact 95 % interval (Clopper and Pearson 1934) of the coverage.
    width: median width, divided by the standard deviation of the estimate over draws; None if a draw has only a lower
      limit.
    """
    nats = np.array([row["nats"] for row in rows], np.float64)
    low = np.array([row["low"] for row in rows], np.float64)
    high = np.array([math.inf if row["high"] is None else row["high"] for row in rows])
    hits = int(((low <= cell.nats + 1e-9) & (cell.nats <= high)).sum())
    count, limits = len(rows), int(np.isinf(high).sum())
    spread = float(nats.std(ddof=1)) if count > 1 else math.nan
    return {
        "cell": cell.name,
        "goal": cell.kind == "gaussian",
        "truth": cell.nats,
        "draws": count,
        "hits": hits,
        "coverage": hits / count,
        "from": float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0,
        "to": float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0,
        "bias": float(nats.mean() - cell.nats),
        "spread": spread,
        "width": None if limits or not spread > 0 else float(np.median(high - low)) / spread,
        "lower_limits": limits,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }


def format_figures(figures: dict[str, Any]) -> str:
    """Returns the table in Markdown."""
    lines = [
        "| cell | truth | coverage | 95 % interval | bias | spread | width / spread | lower limits | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["table"]:
        width = "" if row["width"] is None else f"{row['width']:.1f}"
        lines.append(
            f"| {row['cell']} | {row['truth']:.3f} | {row['hits']} of {row['draws']} | "
            f"{row['from']:.2f} to {row['to']:.2f} | {row['bias']:+.4f} | {row['spread']:.4f} | {width} | "
            f"{row['lower_limits']} | {row['seconds']:.1f} |"
        )
    goal = [row for row in figures["table"] if row["goal"]]
    met = [row["coverage"] >= GOAL and not row["lower_limits"] and (row["width"] or 99) <= MAX_WIDTH for row in goal]
    lines.append(f"\n{sum(met)} of {len(goal)} Gaussian cells meet the goal; {figures['seconds']:.0f} seconds in all.")
    return "\n".join(lines)
