"""Compares the estimates of all estimators of samples with the true mutual information, in a figure and a table.

There are three families of tasks in 3 + 3 dimensions: normal pairs, the same with long tails (half-cube), and the same
rotated by an angle that grows with the radius (spiral). Each runs from 0 nats to more than the samples can show. All
estimators get the same draws and use their defaults. With --data=FILE.npz (arrays x_00, y_00, x_01, ...) and
--truth=FILE.json ({"00": {"mi_nats": ..}, ..}) they get the samples in that file instead; the true values are read
after all estimates are made.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.benchmarks import mi_tasks_figure
from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import read_json
from mi_contrast.core.progress import ProgressBar
from mi_contrast.estimators.result import Estimate

REPEATS = 2  # draws of the samples
TRAINED = ("info_nce", "nwj", "smile", "jensen_shannon", "donsker_varadhan", "mine")
METHODS_OF_FILE = ("ksg", "info_nce", "nwj", "smile")
DIMENSIONS, SAMPLES, LADDER = 3, 2000, (0.0, 1.0, 2.0, 4.0, 8.0)

EstimateFunction = Callable[[np.ndarray, np.ndarray, jax.Array], Estimate]


def list_methods() -> dict[str, EstimateFunction]:
    """Returns every estimator of samples, as a function of x, y and a random key."""

    def train(name: str) -> EstimateFunction:
        return lambda x, y, rng: mi.estimate(x, y, method=name, key=rng)

    return {
        "ksg": lambda x, y, rng: mi.ksg(x, y),
        "three_kl": lambda x, y, rng: mi.three_kl(x, y),
        "canonical_correlation": lambda x, y, rng: mi.canonical_correlation(x, y),
        **{name: train(name) for name in TRAINED},
    }


def make_families(nats: float, dimensions: int = DIMENSIONS) -> dict[str, mi.tasks.Task]:
    """Returns tasks with this many nats: pairs of correlation sqrt(1 - e^{-2 nats / dimensions}), and maps of them."""
    rho = math.sqrt(-math.expm1(-2 * nats / dimensions))
    normal = mi.tasks.gaussian(dimensions, dimensions, rho, pairs=dimensions)
    return {"normal": normal, "half-cube": normal.half_cube(), "spiral": normal.spiral()}


def run(repeats: int, small: bool = False, data: str = "", truth: str = "") -> dict[str, Any]:
    """Returns all estimates with their seconds, and for each estimator the mean and the worst absolute error.

    Raises UserError if only one of data and truth is given, or if they don't fit each other.
    """
    if bool(data) != bool(truth):
        raise UserError("--data and --truth belong together", fix="give --data=FILE.npz and --truth=FILE.json")
    return run_on_file(Path(data), Path(truth), small) if data else run_on_draws(repeats, small)


def run_on_draws(repeats: int, small: bool) -> dict[str, Any]:
    """Runs every method on draws of the families."""
    samples, ladder = (120, (0.0, 1.0)) if small else (SAMPLES, LADDER)
    few = ("ksg", "canonical_correlation", "smile")
    methods = {name: method for name, method in list_methods().items() if not small or name in few}
    cases = []
    for draw in range(repeats):
        for i, nats in enumerate(ladder):
            for j, (family, task) in enumerate(make_families(nats).items()):
                rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(draw), i), j)
                cases.append(({"family": family, "truth": nats, "draw": draw}, rng, *task.sample(rng, samples)))
    points = list(run_methods(methods, cases))
    return {
        "what": f"{DIMENSIONS} + {DIMENSIONS} dimensions; {samples:,} pairs, {repeats} draw{'s' * (repeats > 1)}",
        "samples": samples,
        "table": make_table(points),
        "points": points,
    }


def run_on_file(data: Path, truth: Path, small: bool) -> dict[str, Any]:
    """Runs some methods on the samples of a file, and compares them with the true values at the end."""
    try:
        check_npz_sizes(data)
        with np.load(data, allow_pickle=False) as arrays:
            tasks = sorted(name[2:] for name in arrays.files if name.startswith("x_"))
            cases = [({"task": t}, jax.random.key(i), arrays[f"x_{t}"], arrays[f"y_{t}"]) for i, t in enumerate(tasks)]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FileError(f"--data={data}: {error}", fix="give an .npz of arrays x_00, y_00, x_01, ...") from None
    methods = {name: list_methods()[name] for name in (("ksg", "smile") if small else METHODS_OF_FILE)}
    if small:
        cases = [(facts, rng, x[:120], y[:120]) for facts, rng, x, y in cases]
    points = list(run_methods(methods, cases))
    truths = read_json(truth)
    for point in points:
        try:
            point["truth"] = float(truths[point["task"]]["mi_nats"])
        except (KeyError, TypeError, ValueError):
            fix = 'give {"00": {"mi_nats": ..}, ..}'
            raise UserError(f"--truth={truth} has no mi_nats of {point['task']!r}", fix=fix) from None
    return {"what": f"{len(cases)} tasks of {data.name}", "table": make_table(points), "points": points}


def run_methods(
    methods: dict[str, EstimateFunction], cases: list[tuple[dict[str, Any], jax.Array, Any, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields a point for each method and case: the estimate, and its seconds, compilation included."""
    progress = ProgressBar("mi_tasks", len(methods) * len(cases), unit="estimate")
    for name, method in methods.items():
        for facts, rng, x, y in cases:
            start = time.perf_counter()
            estimate = jax.block_until_ready(method(np.asarray(x), np.asarray(y), rng))
            seconds = time.perf_counter() - start
            numbers = {field: to_json_number(value) for field, value in vars(estimate).items()}
            yield {"method": name, **facts, **numbers, "seconds": seconds}
            progress.advance(note=name)
    progress.close()


def to_json_number(value: Any) -> float | None:
    """Returns a number for JSON, with None for infinity and NaN."""
    return float(value) if math.isfinite(value) else None


def make_table(points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns, for each method, the mean and the worst absolute error in nats, and the median and mean of the seconds.

    An estimate that is not finite has an infinite error. The mean of the seconds includes compilation.
    """
    rows = {}
    for name, group in groupby(points, key=lambda point: point["method"]):
        own = list(group)
        errors = [math.inf if p["nats"] is None else abs(p["nats"] - p["truth"]) for p in own]
        seconds = [p["seconds"] for p in own]
        rows[name] = {
            "mean_absolute_error": float(np.mean(errors)),
            "worst_absolute_error": max(errors),
            "seconds_median": float(np.median(seconds)),
            "seconds_mean": float(np.mean(seconds)),
        }
    return rows


def draw_figures(figures: dict[str, Any]) -> str:
    """Returns the figure of a run on its own draws as SVG; '' for a run on a file."""
    return mi_tasks_figure.draw(figures) if "samples" in figures else ""


def format_figures(figures: dict[str, Any]) -> str:
    """Returns the table as lines of text."""
    lines = [f"{'':<22} mean |error|  worst  seconds (median, mean)"]
    for name, row in figures["table"].items():
        mean, worst, median, average = row.values()
        lines.append(f"{name:<22} {mean:12.3f} {worst:6.2f}  {median:.2f}, {average:.2f}")
    return "\n".join(lines)
