"""Estimates the mutual information of two arrays in a file, in nats, by several estimators, and gives a verdict.

  python -m mi_contrast.estimate file.npz [--methods=ksg,cca,info_nce,nwj,smile] [--k=3] [--seed=0] [--x=x] [--y=y]
                                          [--ranks=yes] [--most=20000] [--json=path]

The arrays are [N, d] or [N]. Row i of both is one pair of samples, and the rows are independent draws. The estimators
by nearest neighbours and by correlation use the normal scores of each column (--ranks=no: the columns themselves). A
column with few different values is treated as a label.
"""

from __future__ import annotations

import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.config import parse
from mi_contrast.core.errors import FileError, UserError, nearest, run_job, unknown
from mi_contrast.core.heartbeat import report_time
from mi_contrast.core.layout import write_json
from mi_contrast.estimators.registry import DEFAULT, METHODS, EstimatorMethod, discrete_sides, replace_for_labels
from mi_contrast.reporting.estimates import reach_verdict

NEAR_CEILING = 0.5  # nats: an estimate this close to its ceiling is only a lower limit
PILOT = 2000  # pairs from which the time for all pairs is predicted
ROUNDING = 1e-3  # nats by which sums in float32 may exceed a ceiling

FLAGS = {
    "file=": "an .npz file; '--file=' may be omitted",
    "methods=": f"a list of {', '.join(METHODS)}; {DEFAULT} by default",
    "k=": "number of neighbours, 3 by default",
    "seed=": "of the trained methods and of the random subset, 0 by default",
    "x=": "name of the first array, x by default",
    "y=": "name of the second array, y by default",
    "ranks=": "yes (default): neighbours and correlation use normal scores of each column; no: the columns themselves",
    "most=": "number of pairs to use, a random subset if the file has more; 20000 by default",
    "json=": "a file to write the table to",
}


def read_samples(path: Path, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two arrays of an .npz file, [N, d] each, in the type in which they are stored.

    Raises:
      UserError if there is no such file or array, if the file is not an .npz file, or if the arrays are not finite
      numbers [N, d] or [N] of equal length with no more columns than rows.
    """
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.npz")))
        raise FileError(f"file {str(path)!r} does not exist", nearest=near, fix="give an .npz file")
    try:
        check_npz_sizes(path)
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            present = list(file)
            for name in names:
                if name not in present:
                    fix = f"it holds: {', '.join(present) or 'nothing'}; say --x=NAME --y=NAME"
                    raise UserError(f"no array {name!r} in {path}", nearest=nearest(name, present), fix=fix)
            x, y = (_to_columns(name, file[name]) for name in names)
    except UserError:  # some are a ValueError or an OSError too, and say more than the line below
        raise
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        raise FileError(
            f"{path} is not an .npz file of numbers", fix="write it with numpy.savez(path, x=x, y=y)"
        ) from None
    if len(x) != len(y):
        raise UserError(f"{names[0]} has {len(x)} samples, {names[1]} has {len(y)}", fix="give as many of both")
    for name, array in zip(names, (x, y), strict=True):
        if array.shape[1] > len(array):
            what = f"array {name!r} is {list(array.shape)}: more columns than samples"
            raise UserError(f"{what}; is it transposed?", fix="give one sample a row")
    return x, y


def _to_columns(name: str, x: np.ndarray) -> np.ndarray:
    """Returns the array as [N, d]. Raises UserError unless it is [N, d] or [N] of finite numbers."""
    if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or 0 in x.shape:
        raise UserError(f"array {name!r} is {x.dtype} {list(x.shape)}", fix="give numbers [N, d] or [N]")
    x = x.reshape(len(x), -1)
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        raise UserError(f"array {name!r} has NaN or infinity in {bad} of {len(x)} rows", fix="leave those pairs out")
    return x


def measure(
    x: np.ndarray, y: np.ndarray, methods: list[str], k: int, seed: int, *, ranks: bool = True
) -> list[dict[str, Any]]:
    """Returns a row for each method: method, nats, standard_error, low, high, ceiling, seconds, what, samples, sound.

    If a method can't handle the samples, its row has NaN, `what` gives the reason, and `sound` is False.

    Args:
      x, y: [N, d] samples.
      methods: names in METHODS.
      k: number of neighbours.
      seed: of the trained methods.
      ranks: whether the methods by neighbours and by correlation use normal scores of the columns.
    """
    rows = []
    for name in methods:
        method, start_time = METHODS[name], time.perf_counter()
        note = method.description.format(k=k)
        numbers: tuple[float, ...] = (np.nan,) * 5
        if method.takes_normal_scores:
            note += "; of normal scores" if ranks else "; of the columns as they are"
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                with report_time(name, _predict_seconds(method, x, y, k, ranks)):
                    estimate = jax.block_until_ready(method.estimate(x, y, k, jax.random.key(seed), ranks))
            note += "".join(f"; {w.message}" for w in caught if str(w.message).startswith("a value repeats"))
            fields = ("nats", "standard_error", "ceiling", "low", "high")
            numbers = tuple(float(getattr(estimate, field)) for field in fields)
            sound = not np.isnan(numbers[0])
            if not sound:
                note = f"none: a sample comes {k + 1} times or more; add noise below the data's resolution"
        except UserError as error:
            sound, note = False, f"none: {error}"
        nats, standard_error, ceiling, low, high = numbers
        if nats > ceiling + ROUNDING:
            sound, note = False, f"an error: {nats:.3f} nats is above the ceiling; do not use it"
        elif ceiling - nats < NEAR_CEILING and method.saturates:
            high, note = np.inf, f"{note}; near its ceiling: a lower limit"
        elif high == np.inf:
            note += "; a lower limit"
        seconds = time.perf_counter() - start_time
        row = dict(method=name, nats=nats, standard_error=standard_error, low=low, high=high, ceiling=ceiling)
        rows.append(row | dict(seconds=seconds, what=note, samples=len(x), sound=sound))
    return rows


def _predict_seconds(method: EstimatorMethod, x: np.ndarray, y: np.ndarray, k: int, ranks: bool) -> float | None:
    """Predicts the time of a method by neighbours from a few pairs: it grows with the square of their number.

    Returns None for other methods, and if there are few pairs.
    """
    if not method.is_quadratic or len(x) < 4 * PILOT:
        return None
    rng, seconds = jax.random.key(0), 0.0
    for _ in range(2):  # the first call compiles
        start_time = time.perf_counter()
        jax.block_until_ready(method.estimate(x[:PILOT], y[:PILOT], k, rng, ranks).nats)
        seconds = time.perf_counter() - start_time
    return seconds * (len(x) / PILOT) ** 2


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as lines of text with a heading."""
    head = f"{'method':<16} {'nats':>8} {'+-':>7} {'low':>8} {'high':>8} {'ceiling':>8} {'seconds':>8} {'samples':>8}"
    lines = [f"{head}  what it is"]
    for row in rows:
        ceiling, high = ("none" if row[name] == np.inf else f"{row[name]:.3f}" for name in ("ceiling", "high"))
        lines.append(
            f"{row['method']:<16} {row['nats']:>8.3f} {row['standard_error']:>7.3f} {row['low']:>8.3f} {high:>8} "
            f"{ceiling:>8} {row['seconds']:>8.1f} {row['samples']:>8}  {row['what']}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="file").flags
    if "file" not in flags:
        raise UserError("no file", fix="give an .npz file that holds arrays x and y")
    methods = list(dict.fromkeys(name.strip() for name in flags.get("methods", DEFAULT).split(",")))
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    k, seed, most = (
        _parse_whole(name, flags.get(name, default), least)
        for name, default, least in (("k", "3", 1), ("seed", "0", 0), ("most", "20000", 8))
    )
    ranks = flags.get("ranks", "yes")
    if ranks not in ("yes", "no"):
        raise UserError(f"--ranks={ranks}", fix="give yes or no")
    names = (flags.get("x", "x"), flags.get("y", "y"))
    x, y = read_samples(Path(flags["file"]), names)
    notes, total = [], len(x)
    if total > most:
        subset = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
        x, y = x[subset], y[subset]
        notes.append(f"{most:,} of {total:,} pairs are read, drawn at random (--most={total} reads all)")
    are_labels = discrete_sides(x, y, k)
    if any(are_labels):
        arrays = " and ".join(name for name, is_label in zip(names, are_labels, strict=True) if is_label)
        methods, switched = replace_for_labels(methods, are_labels)
        if switched:
            words = "have few values and are" if all(are_labels) else "has few values and is"
            notes.append(f"{arrays} {words} read as labels: {', '.join(switched)}")
    for note in notes:
        print(note, flush=True)
    rows = measure(x, y, methods, k, seed, ranks=ranks == "yes")
    verdict = reach_verdict(rows)
    print(format_table(rows))
    print(verdict.text)
    if "json" in flags:
        finite = [
            {name: v if v == v and v not in (np.inf, -np.inf) else None for name, v in row.items()} for row in rows
        ]
        outcome = {"verdict": verdict.text, "outcome": verdict.outcome, "notes": notes}
        write_json(Path(flags["json"]), {"file": flags["file"], "seed": seed, "rows": finite, **outcome})
        print(f"written to {flags['json']}", file=sys.stderr)
    if not any(row["sound"] for row in rows):
        first = rows[0]
        raise UserError(
            f"no method could read these samples; {first['method']}: {first['what'].removeprefix('none: ')}"
        )


def _parse_whole(name: str, text: str, least: int) -> int:
    """Returns the whole number in a flag. Raises UserError if it is not one, or below `least`."""
    if not text.isdigit() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}", fix=f"give a whole number from {least} up")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_job(main))
