"""The mutual information of two arrays of a file, in nats, by several estimators, and a verdict on what to believe.

  python -m mi_contrast.estimate file.npz [--methods=ksg,cca,info_nce,nwj,smile] [--k=3] [--seed=0] [--x=x] [--y=y]
                                          [--ranks=yes] [--most=20000] [--json=path]

The arrays are [N, d] or [N], one pair of samples a row, rows independent draws. Estimates by neighbours and by
correlation read normal scores of each column (--ranks=no: the columns as they are). Columns of few values are read as
labels.
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
from mi_contrast.core.errors import UserError, nearest, run_job, unknown
from mi_contrast.core.heartbeat import report_time
from mi_contrast.core.layout import write_json
from mi_contrast.estimators.registry import DEFAULT, METHODS, Method, discrete_sides, replace_for_labels
from mi_contrast.reporting.estimates import reach_verdict

NEAR = 0.5  # nats below the ceiling from where the ceiling may be what is read
PILOT = 2000  # pairs from which the time of many is foretold
ROUNDING = 1e-3  # nats by which float32 sums may pass a ceiling

FLAGS = {
    "file=": "an .npz file; may be given bare",
    "methods=": f"some of {', '.join(METHODS)}; {DEFAULT} by default",
    "k=": "neighbours, 3 by default",
    "seed=": "of the learned methods and of the subsample, 0 by default",
    "x=": "the name of one array, x by default",
    "y=": "the name of the other, y by default",
    "ranks=": "yes (default): neighbours and correlation read normal scores of each column; no: the columns themselves",
    "most=": "pairs that are read, drawn at random where the file holds more; 20000 by default",
    "json=": "a file to write the table to",
}


def read_samples(path: Path, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of an .npz file, [N, d] each, in the type in which they are stored.

    Raises:
      UserError: no such file, not an .npz file, no such array, not numbers, not [N, d], other lengths, not finite, more
      columns than rows.
    """
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.npz")))
        raise UserError(f"file {str(path)!r} does not exist", nearest=near, fix="give an .npz file")
    try:
        check_npz_sizes(path)
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            held = list(file)
            for name in names:
                if name not in held:
                    fix = f"it holds: {', '.join(held) or 'nothing'}; say --x=NAME --y=NAME"
                    raise UserError(f"no array {name!r} in {path}", nearest=nearest(name, held), fix=fix)
            x, y = (_columns(name, file[name]) for name in names)
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        raise UserError(
            f"{path} is not an .npz file of numbers", fix="write it with numpy.savez(path, x=x, y=y)"
        ) from None
    if len(x) != len(y):
        raise UserError(f"{names[0]} has {len(x)} samples, {names[1]} has {len(y)}", fix="give as many of both")
    for name, array in zip(names, (x, y), strict=True):
        if array.shape[1] > len(array):
            what = f"array {name!r} is {list(array.shape)}: more columns than samples"
            raise UserError(f"{what}; is it transposed?", fix="give one sample a row")
    return x, y


def _columns(name: str, x: np.ndarray) -> np.ndarray:
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
    """One row a method: method, nats, standard_error, low, high, ceiling, seconds, what, samples, sound.

    A method that cannot read the samples has a row of NaN that says why, and is not sound.
    """
    rows = []
    for name in methods:
        method, began = METHODS[name], time.perf_counter()
        note = method.description.format(k=k)
        found: tuple[float, ...] = (np.nan,) * 5
        if method.takes_normal_scores:
            note += "; of normal scores" if ranks else "; of the columns as they are"
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", UserWarning)
                with report_time(name, _expected_seconds(method, x, y, k, ranks)):
                    answer = jax.block_until_ready(method.estimate(x, y, k, jax.random.key(seed), ranks))
            note += "".join(f"; {w.message}" for w in said if str(w.message).startswith("a value repeats"))
            found = tuple(
                float(v) for v in (answer.nats, answer.standard_error, answer.ceiling, answer.low, answer.high)
            )
            sound = not np.isnan(found[0])
            if not sound:
                note = f"none: a sample comes {k + 1} times or more; add noise below the data's resolution"
        except UserError as error:
            sound, note = False, f"none: {error}"
        nats, standard_error, ceiling, low, high = found
        if nats > ceiling + ROUNDING:
            sound, note = False, f"an error: {nats:.3f} nats is above the ceiling; do not use it"
        elif ceiling - nats < NEAR and method.saturates:
            high, note = np.inf, f"{note}; near its ceiling: a lower limit"
        elif high == np.inf:
            note += "; a lower limit"
        seconds = time.perf_counter() - began
        row = dict(method=name, nats=nats, standard_error=standard_error, low=low, high=high, ceiling=ceiling)
        rows.append(row | dict(seconds=seconds, what=note, samples=len(x), sound=sound))
    return rows


def _expected_seconds(method: Method, x: np.ndarray, y: np.ndarray, k: int, ranks: bool) -> float | None:
    """How long a method by neighbours will take, from a few pairs: its time grows with the square of their number."""
    if not method.is_quadratic or len(x) < 4 * PILOT:
        return None
    key, seconds = jax.random.key(0), 0.0
    for _ in range(2):  # the first compiles
        began = time.perf_counter()
        jax.block_until_ready(method.estimate(x[:PILOT], y[:PILOT], k, key, ranks).nats)
        seconds = time.perf_counter() - began
    return seconds * (len(x) / PILOT) ** 2


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as lines of text, a heading first."""
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
    """The command line's job. See the module's text."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="file").flags
    if "file" not in flags:
        raise UserError("no file", fix="give an .npz file that holds arrays x and y")
    methods = list(dict.fromkeys(name.strip() for name in flags.get("methods", DEFAULT).split(",")))
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    k, seed, most = (
        _whole(name, flags.get(name, default), least)
        for name, default, least in (("k", "3", 1), ("seed", "0", 0), ("most", "20000", 8))
    )
    ranks = flags.get("ranks", "yes")
    if ranks not in ("yes", "no"):
        raise UserError(f"--ranks={ranks}", fix="give yes or no")
    names = (flags.get("x", "x"), flags.get("y", "y"))
    x, y = read_samples(Path(flags["file"]), names)
    notes, total = [], len(x)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
        x, y = x[chosen], y[chosen]
        notes.append(f"{most:,} of {total:,} pairs are read, drawn at random (--most={total} reads all)")
    labels = discrete_sides(x, y, k)
    if any(labels):
        which = " and ".join(name for name, few in zip(names, labels, strict=True) if few)
        methods, switched = replace_for_labels(methods, labels)
        if switched:
            words = "have few values and are" if all(labels) else "has few values and is"
            notes.append(f"{which} {words} read as labels: {', '.join(switched)}")
    for note in notes:
        print(note, flush=True)
    rows = measure(x, y, methods, k, seed, ranks=ranks == "yes")
    verdict = reach_verdict(rows)
    print(table(rows))
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


def _whole(name: str, text: str, least: int) -> int:
    if not text.isdigit() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}", fix=f"give a whole number from {least} up")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_job(main))
