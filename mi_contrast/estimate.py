"""The mutual information of two arrays of a file, in nats, by several estimators: what each reads, and what it can.

  python -m mi_contrast.estimate file.npz [--methods=ksg,cca,info_nce,nwj,smile] [--k=3] [--seed=0] [--x=x] [--y=y]
                                          [--json=path]

The arrays are [N, d] or [N], one pair of samples a row, rows independent draws.
"""

from __future__ import annotations

import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, nearest, run_job, unknown
from mi_contrast.core.layout import write_json
from mi_contrast.core.progress import Progress


class Method(NamedTuple):
    """How a method reads x, y (with k and a key), and what its number is."""

    read: Callable[[np.ndarray, np.ndarray, int, jax.Array], mi.Estimate]
    what: str


def _learned(method: str, what: str) -> Method:
    return Method(lambda x, y, k, key: mi.estimate(x, y, method, key=key), what)


METHODS = {
    "ksg": Method(lambda x, y, k, key: mi.ksg(x, y, k, standardise=True), "estimate: {k} nearest neighbours"),
    "ksg2": Method(lambda x, y, k, key: mi.ksg(x, y, k, 2, standardise=True), "estimate: {k} nearest neighbours"),
    "three_kl": Method(
        lambda x, y, k, key: mi.three_kl(x, y, k, standardise=True), "estimate: three entropies, often far off"
    ),
    "cca": Method(
        lambda x, y, k, key: mi.canonical_correlation(x, y, corrected=True), "estimate: as if Gaussian (linear part)"
    ),
    "info_nce": _learned("info_nce", "lower bound"),
    "nwj": _learned("nwj", "lower bound"),
    "jensen_shannon": _learned("jensen_shannon", "lower bound"),
    "donsker_varadhan": _learned("donsker_varadhan", "estimate: lower bound but for log of a mean"),
    "mine": _learned("mine", "estimate: lower bound but for log of a mean"),
    "smile": _learned("smile", "estimate: clipped, no bound"),
}
DEFAULT = "ksg,cca,info_nce,nwj,smile"
NEAR = 0.5  # nats below the ceiling from where the ceiling may be what is read

FLAGS = {
    "file=": "an .npz file; may be given bare",
    "methods=": f"some of {', '.join(METHODS)}; {DEFAULT} by default",
    "k=": "neighbours, 3 by default",
    "seed=": "of the learned methods, 0 by default",
    "x=": "the name of one array, x by default",
    "y=": "the name of the other, y by default",
    "json=": "a file to write the table to",
}


def read_samples(path: Path, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of an .npz file, float64 [N, d] each.

    Raises:
      UserError: no such file, not an .npz file, no such array, not numbers, not [N, d], other lengths, not finite.
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
    return x, y


def _columns(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or 0 in x.shape:
        raise UserError(f"array {name!r} is {x.dtype} {list(x.shape)}", fix="give numbers [N, d] or [N]")
    x = x.astype(np.float64).reshape(len(x), -1)
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        raise UserError(f"array {name!r} has NaN or infinity in {bad} of {len(x)} rows", fix="leave those pairs out")
    return x


def measure(
    x: np.ndarray, y: np.ndarray, methods: list[str], k: int, seed: int, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row a method: method, nats, standard_error, ceiling, seconds, what, samples.

    Raises:
      UserError: what an estimator cannot read, with the method's name.
    """
    rows = []
    for name in methods:
        began = time.perf_counter()
        try:
            found = METHODS[name].read(x, y, k, jax.random.key(seed))
        except UserError as error:
            raise UserError(f"{name}: {error.what}", fix=f"{error.fix}, or leave {name} out of --methods") from None
        nats, standard_error, ceiling = (float(value) for value in found)
        seconds = time.perf_counter() - began
        what = METHODS[name].what.format(k=k)
        if np.isnan(nats):
            what = f"none: a sample comes {k + 1} times or more; add noise below the data's resolution"
        elif ceiling - nats < NEAR:
            what += "; near its ceiling, may be more"
        row = dict(method=name, nats=nats, standard_error=standard_error, ceiling=ceiling, seconds=seconds)
        rows.append(row | {"what": what, "samples": len(x)})
        if progress is not None:
            progress.advance(note=name)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as lines of text, a heading first."""
    lines = [f"{'method':<16} {'nats':>8} {'+-':>7} {'ceiling':>8} {'seconds':>8} {'samples':>8}  what it is"]
    for row in rows:
        ceiling = "none" if row["ceiling"] == np.inf else f"{row['ceiling']:.3f}"
        lines.append(
            f"{row['method']:<16} {row['nats']:>8.3f} {row['standard_error']:>7.3f} {ceiling:>8} "
            f"{row['seconds']:>8.1f} {row['samples']:>8}  {row['what']}"
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
    k, seed = (
        _whole(name, flags.get(name, default), least) for name, default, least in (("k", "3", 1), ("seed", "0", 0))
    )
    x, y = read_samples(Path(flags["file"]), (flags.get("x", "x"), flags.get("y", "y")))
    progress = Progress("estimating", len(methods), unit="method", seconds_between=5.0)
    try:
        rows = measure(x, y, methods, k, seed, progress)
    finally:
        progress.close()
    print(table(rows))
    if "json" in flags:
        finite = [
            {name: v if v == v and v not in (np.inf, -np.inf) else None for name, v in row.items()} for row in rows
        ]
        write_json(Path(flags["json"]), {"file": flags["file"], "seed": seed, "rows": finite})
        print(f"written to {flags['json']}", file=sys.stderr)


def _whole(name: str, text: str, least: int) -> int:
    if not text.isdigit() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}", fix=f"give a whole number from {least} up")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_job(main))
