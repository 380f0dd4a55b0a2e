"""How often the interval of `estimate` holds the true mutual information, over draws of the samples.

Twelve cells of Gaussians and of coordinatewise rising maps of them, for which the interval is meant; and six cells of
other distributions, which show how far it can be trusted elsewhere. Each cell names its samples, dimensions and
correlation. Every estimate is written to a file of rows as soon as it is made, so that a stopped table goes on.
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
from mi_contrast.core.progress import Progress

REPEATS = 50  # draws a cell
OTHERS = 10  # draws a cell of other distributions, at most
GOAL, WIDEST = 0.9, 6.6  # coverage, and median width in standard deviations of the estimate

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
    """samples: pairs a draw. kind: 'gaussian' with pairs of correlation rho through a map, or a name of TASKS."""

    samples: int
    dimensions: int = 1
    rho: float = 0.0
    through: str = "none"
    kind: str = "gaussian"

    @property
    def name(self) -> str:
        """What the rows of this cell are known by."""
        if self.kind != "gaussian":
            return f"{self.kind}, N {self.samples}"
        return f"N {self.samples}, d {self.dimensions}, rho {self.rho:g}, {self.through}"

    @property
    def nats(self) -> float:
        """The true mutual information."""
        return TASKS[self.kind].nats if self.kind in TASKS else -self.dimensions / 2 * math.log1p(-(self.rho**2))

    def sample(self, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw number `draw`, float64 [N, dx] and [N, dy]."""
        if self.kind in TASKS:
            x, y = TASKS[self.kind].sample(jax.random.key(1000 + draw), self.samples)
            return np.asarray(x, np.float64), np.asarray(y, np.float64)
        seed = [draw, self.samples, self.dimensions, round(100 * self.rho)]
        x, noise = np.random.default_rng(seed).normal(size=(2, self.samples, self.dimensions))
        y = self.rho * x + math.sqrt(1 - self.rho**2) * noise
        return MAPS[self.through](x), MAPS[self.through](y)


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
    """The table: coverage with its binomial interval, width, bias and seconds of every cell.

    Args:
      repeats: draws a cell; cells of other distributions have at most 10.
      small: two small cells of three draws, to see that it runs.
      rows: a file of finished estimates, one JSON object a line; it is read first and added to. Rows of another version
        of the package are left alone and not counted.
    Raises:
      UserError: a line of `rows` that is no row.
    """
    cells: tuple[Cell, ...] = (Cell(120, 1, 0.6, "exp"), Cell(120, 2, 0.0)) if small else CELLS + OTHER_CELLS
    draws = {cell: min(repeats, 3 if small else OTHERS if cell.kind in TASKS else repeats) for cell in cells}
    path = Path(rows) if rows else None
    finished = _read(path)
    # draw by draw, so that a table that is stopped early has as many draws of every cell
    todo = [(c, d) for d in range(max(draws.values())) for c in cells if d < draws[c] and (c.name, d) not in finished]
    progress = Progress("coverage", len(todo), unit="estimate")
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


def _read(path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
        return {(row["cell"], row["draw"]): row for row in rows if row["version"] == mi_contrast.__version__}
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} has a line that is no estimate: {error}", fix="mend it or move it aside") from None


def measure(cell: Cell, draw: int) -> dict[str, Any]:
    """One estimate of one draw, as a row. `high` is None for a lower limit."""
    x, y = cell.sample(draw)
    began = time.perf_counter()
    found = mi.estimate(x, y, key=jax.random.key(draw))
    read = {name: float(getattr(found, name)) for name in ("nats", "standard_error", "low", "high")}
    numbers = {name: value if math.isfinite(value) else None for name, value in read.items()}
    seconds = time.perf_counter() - began
    return {"cell": cell.name, "draw": draw, "version": mi_contrast.__version__, **numbers, "seconds": seconds}


def summarise(cell: Cell, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table. `from`, `to`: the exact 95 % interval (Clopper and Pearson 1934) of the coverage.

    `width` is the median width over the standard deviation of the estimate over draws; None where some draw has only a
    lower limit.
    """
    nats = np.array([row["nats"] for row in rows], np.float64)
    low = np.array([row["low"] for row in rows], np.float64)
    high = np.array([math.inf if row["high"] is None else row["high"] for row in rows])
    held = int(((low <= cell.nats + 1e-9) & (cell.nats <= high)).sum())
    count, limits = len(rows), int(np.isinf(high).sum())
    spread = float(nats.std(ddof=1)) if count > 1 else math.nan
    return {
        "cell": cell.name,
        "goal": cell.kind == "gaussian",
        "truth": cell.nats,
        "draws": count,
        "held": held,
        "coverage": held / count,
        "from": float(beta.ppf(0.025, held, count - held + 1)) if held else 0.0,
        "to": float(beta.ppf(0.975, held + 1, count - held)) if held < count else 1.0,
        "bias": float(nats.mean() - cell.nats),
        "spread": spread,
        "width": None if limits or not spread > 0 else float(np.median(high - low)) / spread,
        "lower_limits": limits,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }


def words(found: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = [
        "| cell | truth | coverage | 95 % interval | bias | spread | width / spread | lower limits | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["table"]:
        width = "" if row["width"] is None else f"{row['width']:.1f}"
        lines.append(
            f"| {row['cell']} | {row['truth']:.3f} | {row['held']} of {row['draws']} | "
            f"{row['from']:.2f} to {row['to']:.2f} | {row['bias']:+.4f} | {row['spread']:.4f} | {width} | "
            f"{row['lower_limits']} | {row['seconds']:.1f} |"
        )
    goal = [row for row in found["table"] if row["goal"]]
    met = [row["coverage"] >= GOAL and not row["lower_limits"] and (row["width"] or 99) <= WIDEST for row in goal]
    lines.append(f"\n{sum(met)} of {len(goal)} Gaussian cells meet the goal; {found['seconds']:.0f} seconds in all.")
    return "\n".join(lines)
