"""Estimates of mutual information against the truth, for every estimator that reads samples: a figure and a table.

Three families in 3 + 3 dimensions, each from 0 nats to more than so many samples can show: normal pairs, the same with
long tails (half-cube), and turned by an angle that grows with the radius (spiral). Every estimator reads the same
draws, at its defaults. With --data=FILE.npz (arrays x_00, y_00, x_01, ...) and --truth=FILE.json ({"00": {"mi_nats":
..}, ..}) the estimators read that file's samples instead; the truth is opened when all estimates are made.
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
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import read_json
from mi_contrast.core.progress import Progress
from mi_contrast.estimators.result import Estimate

REPEATS = 2  # draws of the samples
LEARNED = ("info_nce", "nwj", "smile", "jensen_shannon", "donsker_varadhan", "mine")
ON_A_FILE = ("ksg", "info_nce", "nwj", "smile")
DIMENSIONS, SAMPLES, LADDER = 3, 2000, (0.0, 1.0, 2.0, 4.0, 8.0)

Method = Callable[[np.ndarray, np.ndarray, jax.Array], Estimate]


def methods() -> dict[str, Method]:
    """Every estimator of samples, as a function of x, y and a key."""

    def learned(name: str) -> Method:
        return lambda x, y, key: mi.estimate(x, y, method=name, key=key)

    return {
        "ksg": lambda x, y, key: mi.ksg(x, y),
        "three_kl": lambda x, y, key: mi.three_kl(x, y),
        "canonical_correlation": lambda x, y, key: mi.canonical_correlation(x, y),
        **{name: learned(name) for name in LEARNED},
    }


def families(nats: float, dimensions: int = DIMENSIONS) -> dict[str, mi.tasks.Task]:
    """Tasks of that truth: `dimensions` pairs of correlation sqrt(1 - e^{-2 nats / dimensions}), and maps of them."""
    rho = math.sqrt(-math.expm1(-2 * nats / dimensions))
    normal = mi.tasks.gaussian(dimensions, dimensions, rho, pairs=dimensions)
    return {"normal": normal, "half-cube": normal.half_cube(), "spiral": normal.spiral()}


def run(repeats: int, small: bool = False, data: str = "", truth: str = "") -> dict[str, Any]:
    """Estimates and seconds of each, and per estimator the mean and the worst absolute error.

    Raises: UserError where data and truth don't come together or don't fit each other.
    """
    if bool(data) != bool(truth):
        raise UserError("--data and --truth belong together", fix="give --data=FILE.npz and --truth=FILE.json")
    return on_file(Path(data), Path(truth), small) if data else on_draws(repeats, small)


def on_draws(repeats: int, small: bool) -> dict[str, Any]:
    """The families' draws, every method on each."""
    samples, ladder = (120, (0.0, 1.0)) if small else (SAMPLES, LADDER)
    chosen = {
        name: m for name, m in methods().items() if not small or name in ("ksg", "canonical_correlation", "smile")
    }
    cases = []
    for draw in range(repeats):
        for place, nats in enumerate(ladder):
            for other, (family, task) in enumerate(families(nats).items()):
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(draw), place), other)
                cases.append(({"family": family, "truth": nats, "draw": draw}, key, *task.sample(key, samples)))
    points = list(measured(chosen, cases))
    return {
        "what": f"{DIMENSIONS} + {DIMENSIONS} dimensions; {samples:,} pairs, {repeats} draw{'s' * (repeats > 1)}",
        "samples": samples,
        "table": table(points),
        "points": points,
    }


def on_file(data: Path, truth: Path, small: bool) -> dict[str, Any]:
    """The samples of a file, in the methods that a file is judged by; scored at the end."""
    try:
        check_npz_sizes(data)
        with np.load(data, allow_pickle=False) as arrays:
            places = sorted(name[2:] for name in arrays.files if name.startswith("x_"))
            cases = [({"task": p}, jax.random.key(i), arrays[f"x_{p}"], arrays[f"y_{p}"]) for i, p in enumerate(places)]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"--data={data}: {error}", fix="give an .npz of arrays x_00, y_00, x_01, ...") from None
    chosen = {name: methods()[name] for name in (("ksg", "smile") if small else ON_A_FILE)}
    points = list(measured(chosen, [(*case[:2], *(t[:120] if small else t for t in case[2:])) for case in cases]))
    truths = read_json(truth)
    for point in points:
        try:
            point["truth"] = float(truths[point["task"]]["mi_nats"])
        except (KeyError, TypeError, ValueError):
            fix = 'give {"00": {"mi_nats": ..}, ..}'
            raise UserError(f"--truth={truth} has no mi_nats of {point['task']!r}", fix=fix) from None
    return {"what": f"{len(cases)} tasks of {data.name}", "table": table(points), "points": points}


def measured(
    chosen: dict[str, Method], cases: list[tuple[dict[str, Any], jax.Array, Any, Any]]
) -> Iterator[dict[str, Any]]:
    """One point a method and case, method by method: what it read, and the seconds with whatever it compiled."""
    progress = Progress("mi_tasks", len(chosen) * len(cases), unit="estimate")
    for name, method in chosen.items():
        for facts, key, x, y in cases:
            began = time.perf_counter()
            read = jax.block_until_ready(method(np.asarray(x), np.asarray(y), key))
            seconds = time.perf_counter() - began
            yield {"method": name, **facts, **{k: finite(v) for k, v in vars(read).items()}, "seconds": seconds}
            progress.advance(note=name)
    progress.close()


def finite(value: Any) -> float | None:
    """A number as JSON has it: None where it is infinite or NaN."""
    return float(value) if math.isfinite(value) else None


def table(points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per method: mean and worst absolute error in nats (an estimate that is no number counts as infinite), and
    seconds an estimate, median and mean (the mean has the compilation in it).
    """
    rows = {}
    for name, group in groupby(points, key=lambda point: point["method"]):
        mine = list(group)
        errors = [math.inf if p["nats"] is None else abs(p["nats"] - p["truth"]) for p in mine]
        seconds = [p["seconds"] for p in mine]
        rows[name] = {
            "mean_absolute_error": float(np.mean(errors)),
            "worst_absolute_error": max(errors),
            "seconds_median": float(np.median(seconds)),
            "seconds_mean": float(np.mean(seconds)),
        }
    return rows


def picture(found: dict[str, Any]) -> str:
    """The figure of what `run` found on its own draws, as SVG; the empty string where it read a file."""
    return mi_tasks_figure.draw(found) if "samples" in found else ""


def words(found: dict[str, Any]) -> str:
    """The table, for a terminal."""
    lines = [f"{'':<22} mean |error|  worst  seconds (median, mean)"]
    for name, row in found["table"].items():
        mean, worst, median, average = row.values()
        lines.append(f"{name:<22} {mean:12.3f} {worst:6.2f}  {median:.2f}, {average:.2f}")
    return "\n".join(lines)
