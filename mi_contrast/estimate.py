"""Estimates the mutual information of two variables in a file, in nats, by several estimators, and gives a verdict.

  python -m mi_contrast.estimate table.csv --x=temp --y=pressure        one column each
  python -m mi_contrast.estimate table.csv --x=temp,wind --y=pressure   several columns together
  python -m mi_contrast.estimate samples.npz                            its arrays x and y, [N] or [N, d]
  python -m mi_contrast.estimate table.csv --pairs                      every two columns, and a page with a heat map

The file is a .csv, .tsv, .npy, .npz or .parquet file. A row is one pair of samples, and the rows are independent draws.
The estimators by nearest neighbours and by correlation use the normal scores of each column (--ranks=no: the columns
themselves). Words, and numbers with few different values, are treated as labels.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, nearest, run_job, unknown
from mi_contrast.core.heartbeat import report_time
from mi_contrast.core.layout import write_json
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data.columns import Columns, open_columns
from mi_contrast.estimation import draw_rows, prepare_samples
from mi_contrast.estimators.registry import DEFAULT, METHODS, EstimatorMethod, discrete_sides, replace_for_labels
from mi_contrast.reporting import pairs_page
from mi_contrast.reporting.estimates import reach_verdict

NEAR_CEILING = 0.5  # nats: an estimate this close to its ceiling is only a lower limit
PILOT = 2000  # pairs from which the time for all pairs is predicted
ROUNDING = 1e-3  # nats by which sums in float32 may exceed a ceiling

MOST, MOST_FOR_PAIRS = 20_000, 2000  # rows that are used by default
SHOWN = 20  # pairs of columns that are printed; the page and --json have all

FLAGS = {
    "file=": "a .csv, .tsv, .npy, .npz or .parquet file; '--file=' may be omitted",
    "x=": "the column or array, or several with commas; x by default, or the first of two",
    "y=": "likewise; y by default, or the second of two",
    "pairs[=]": "every two columns instead, or of the columns given with commas; by ksg, and a page with a heat map",
    "methods=": f"a list of {', '.join(METHODS)}; {DEFAULT} by default",
    "k=": "number of neighbours, 3 by default",
    "seed=": "of the trained methods and of the random subset, 0 by default",
    "ranks=": "yes (default): neighbours and correlation use normal scores of each column; no: the columns themselves",
    "most=": f"number of rows to use, a random subset if there are more; {MOST}, or {MOST_FOR_PAIRS} with --pairs",
    "drop_missing": "leave out rows in which a value is missing",
    "json=": "a file to write the table to",
    "out=": "with --pairs, the page: <file>-pairs.html in the working folder by default",
}


def read_samples(path: Path, names: tuple[str, str], *, drop_missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the samples of two variables in a file, [N, d] each, in the type in which they are stored.

    Args:
      path: the file, of one of the kinds that `open_columns` reads.
      names: of the two columns or arrays. Several names with commas between them are one variable of several columns.
      drop_missing: leave out rows in which a value is missing, and say how many.
    Raises:
      UserError if there is no such file or column, if the file is damaged, or if the samples are not finite numbers
      [N, d] or [N] of equal length with no more columns than rows.
    """
    columns = open_columns(path)
    x, y = (_read_variable(columns, name, path) for name in names)
    if len(x) != len(y):
        raise UserError(f"{names[0]} has {len(x)} samples, {names[1]} has {len(y)}", fix="give as many of both")
    if drop_missing:
        x, y = _drop_missing([x, y])
    for name, array in zip(names, (x, y), strict=True):
        _check_finite(columns.kind, name, array)
        if array.shape[1] > len(array):
            what = f"array {name!r} is {list(array.shape)}: more columns than samples"
            raise UserError(f"{what}; is it transposed?", fix="give one sample a row")
    return x, y


def split_names(text: str, columns: Columns) -> list[str]:
    """Returns the names in a flag, divided by commas. A column whose name has commas is named alone."""
    return [text] if text in columns.names else [name.strip() for name in text.split(",")]


def _read_variable(columns: Columns, text: str, path: Path) -> np.ndarray:
    """Returns the columns of one variable side by side, [N, d]. Raises UserError."""
    names = split_names(text, columns)
    for name in names:
        if name not in columns.names:
            fix = f"it holds: {', '.join(columns.names) or 'nothing'}; say --x=NAME --y=NAME"
            near = nearest(name, columns.names)
            raise UserError(f"no {columns.kind} {name!r} in {path}", nearest=near, fix=fix)
    if len(names) > 1 and 0 < len(columns.words.intersection(names)) < len(names):
        raise UserError(f"{text}: columns of words beside columns of numbers", fix="give words alone or numbers alone")
    parts = [_to_columns(name, columns.read(name)) for name in names]
    if len({len(part) for part in parts}) > 1:
        raise UserError(f"{text}: {', '.join(str(len(part)) for part in parts)} samples", fix="give as many of each")
    if columns.words.intersection(names):
        for name, part in zip(names, parts, strict=True):
            _check_words(name, part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _to_columns(name: str, x: np.ndarray) -> np.ndarray:
    """Returns the array as [N, d]. Raises UserError unless it is [N, d] or [N] of numbers."""
    if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or 0 in x.shape:
        raise UserError(f"array {name!r} is {x.dtype} {list(x.shape)}", fix="give numbers [N, d] or [N]")
    return x.reshape(len(x), -1)


def _check_words(name: str, x: np.ndarray) -> None:
    """Raises UserError unless a column of words, which are numbered, repeats them as labels do."""
    if not discrete_sides(x, x, 3)[0]:
        count = len(np.unique(x[np.isfinite(x)]))
        raise UserError(
            f"column {name!r} holds words, {count} different ones in {len(x)} rows",
            fix="give numbers, or words of which each occurs four times or more",
        )


def _check_finite(kind: str, name: str, x: np.ndarray) -> None:
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        fix = "leave those pairs out" + ("" if kind == "array" else " with --drop_missing")
        raise UserError(f"{kind} {name!r} has NaN or infinity in {bad} of {len(x)} rows", fix=fix)


def _drop_missing(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the arrays without the rows in which one of them is not finite, and prints how many those are."""
    whole = np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays])
    if not whole.all():
        print(f"{(~whole).sum():,} of {len(whole):,} rows have missing values and are left out", flush=True)
    return [array[whole] for array in arrays]


def choose_names(columns: Columns, flags: Mapping[str, str], path: Path) -> tuple[str, str]:
    """Returns the names of the two variables: those of the flags, x and y, or the only two. Raises UserError."""
    first, second = flags.get("x"), flags.get("y")
    if len(columns.names) == 2 and not {"x", "y"} <= set(columns.names):
        others = [name for name in columns.names if name not in (first, second)]
        first, second = first or others[0], second or others[-1]
    if (first is None and "x" not in columns.names) or (second is None and "y" not in columns.names):
        shown = ", ".join(columns.names[:24]) + (", ..." if len(columns.names) > 24 else "")
        missing = "x" if first is None and "x" not in columns.names else "y"
        fix = f"say --x=NAME --y=NAME, of: {shown}; or --pairs for every two"
        raise UserError(f"{path} has no {columns.kind} {missing!r}", fix=fix)
    return first or "x", second or "y"


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
        raise UserError("no file", fix="give a .csv, .npy, .npz or .parquet file of samples")
    default, most_by_default = ("ksg", MOST_FOR_PAIRS) if "pairs" in flags else (DEFAULT, MOST)
    methods = list(dict.fromkeys(name.strip() for name in flags.get("methods", default).split(",")))
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    k, seed, most = (
        _parse_whole(name, flags.get(name, default), least)
        for name, default, least in (("k", "3", 1), ("seed", "0", 0), ("most", str(most_by_default), 8))
    )
    ranks = flags.get("ranks", "yes")
    if ranks not in ("yes", "no"):
        raise UserError(f"--ranks={ranks}", fix="give yes or no")
    if "pairs" in flags:
        _estimate_pairs(flags, methods, k, seed, most, ranks == "yes")
        return
    if "out" in flags:
        raise UserError("--out without --pairs", fix="add --pairs, or give --json=PATH")
    path = Path(flags["file"])
    names = choose_names(open_columns(path), flags, path)
    x, y = read_samples(path, names, drop_missing="drop_missing" in flags)
    x, y, methods, notes = prepare_samples(x, y, names, methods, k=k, seed=seed, most=most, flag="--most")
    for note in notes:
        print(note, flush=True)
    rows = measure(x, y, methods, k, seed, ranks=ranks == "yes")
    verdict = reach_verdict(rows, names)
    print(format_table(rows))
    print(verdict.text)
    if "json" in flags:
        outcome = {"verdict": verdict.text, "outcome": verdict.outcome, "notes": notes}
        write_json(Path(flags["json"]), {"file": flags["file"], "seed": seed, "rows": _to_json(rows), **outcome})
        print(f"written to {flags['json']}", file=sys.stderr)
    if not any(row["sound"] for row in rows):
        first = rows[0]
        raise UserError(
            f"no method could read these samples; {first['method']}: {first['what'].removeprefix('none: ')}"
        )


def _to_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with None for what is not finite."""
    return [{name: v if v == v and v not in (np.inf, -np.inf) else None for name, v in row.items()} for row in rows]


def measure_pairs(
    variables: Mapping[str, np.ndarray], method: str, k: int, seed: int, *, ranks: bool = True
) -> list[dict[str, Any]]:
    """Returns a row for every two variables, the most nats first: those of `measure` and the names x and y.

    Args:
      variables: [N, d] samples by name.
      method: a name in METHODS; replaced where a side is a label.
    """
    names, rows = list(variables), []
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    progress = ProgressBar("estimating", len(pairs), unit="pair")
    try:
        for a, b in pairs:
            x, y = variables[a], variables[b]
            are_labels = discrete_sides(x, y, k)
            methods = replace_for_labels([method], are_labels)[0] if any(are_labels) else [method]
            rows.append({"x": a, "y": b} | measure(x, y, methods, k, seed, ranks=ranks)[0])
            progress.advance()
    finally:
        progress.close()
    return sorted(rows, key=lambda row: -row["nats"] if row["sound"] else np.inf)


def format_pairs(rows: list[dict[str, Any]]) -> str:
    """Returns the first rows of `measure_pairs` as lines of text with a heading."""
    width = min(34, max(len(f"{row['x']} and {row['y']}") for row in rows))
    lines = [f"{'columns':<{width}} {'nats':>8} {'low':>8} {'high':>8} {'ceiling':>8}  method"]
    for row in rows[:SHOWN]:
        ceiling, high = ("none" if row[name] == np.inf else f"{row[name]:.3f}" for name in ("ceiling", "high"))
        name = f"{row['x']} and {row['y']}"
        name = name if len(name) <= width else name[: width - 3] + "..."
        numbers = f"{row['nats']:>8.3f} {row['low']:>8.3f} {high:>8} {ceiling:>8}"
        lines.append(f"{name:<{width}} {numbers}  {row['method'] if row['sound'] else row['what'][:60]}")
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN} more pairs with fewer nats")
    return "\n".join(lines)


def _estimate_pairs(flags: Mapping[str, str], methods: list[str], k: int, seed: int, most: int, ranks: bool) -> None:
    """Runs the job with --pairs: prints the table of every two columns, and writes the page with the heat map."""
    if wrong := next((flag for flag in ("x", "y") if flag in flags), None):
        raise UserError(f"--{wrong} beside --pairs", fix="name the columns as --pairs=a,b,c")
    if len(methods) > 1:
        raise UserError(f"--methods={flags['methods']} beside --pairs", fix="give one method, such as --methods=ksg")
    path = Path(flags["file"])
    page = Path(flags.get("out") or f"{path.stem}-pairs.html")
    pairs_page.check_replaceable(page)
    columns = open_columns(path)
    names = split_names(flags["pairs"], columns) if flags["pairs"] else list(columns.names)
    if len(names) < 2:
        raise UserError(f"{path}: {len(names)} columns make no pair", fix="give two or more")
    variables = {name: _read_variable(columns, name, path) for name in names}
    if len({len(array) for array in variables.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in variables.items())
        raise UserError(f"the {columns.kind}s of {path} differ in length: {lengths}", fix="name some: --pairs=a,b,c")
    if "drop_missing" in flags:
        variables = dict(zip(variables, _drop_missing(list(variables.values())), strict=True))
    for name, array in variables.items():
        _check_finite(columns.kind, name, array)
    total = len(next(iter(variables.values())))
    note = f"{total:,} rows"
    if total > most:
        subset = draw_rows(total, most, seed)
        variables = {name: array[subset] for name, array in variables.items()}
        note = f"{most:,} of {total:,} rows, drawn at random (--most={total} reads all)"
    rows = measure_pairs(variables, methods[0], k, seed, ranks=ranks)
    sentence = pairs_page.describe_pairs(rows)
    print(f"{note}\n{format_pairs(rows)}\n{sentence}")
    pairs_page.write_page(page, rows, names, title=path.name, note=note, sentence=sentence)
    print(f"look at {page}")
    if "json" in flags:
        contents = {"file": flags["file"], "seed": seed, "rows": _to_json(rows), "verdict": sentence, "notes": [note]}
        write_json(Path(flags["json"]), contents)
        print(f"written to {flags['json']}", file=sys.stderr)


def _parse_whole(name: str, text: str, least: int) -> int:
    """Returns the whole number in a flag. Raises UserError if it is not one, or below `least`."""
    if not text.isdigit() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}", fix=f"give a whole number from {least} up")
    return int(text)


class _CallableModule(ModuleType):
    """The class of this module, which is a function too: `mi_contrast.estimate(x, y)`.

    Importing this module binds the name `mi_contrast.estimate` to it, so that no function can keep that name.
    """

    def __call__(self, *samples: Any, **settings: Any) -> Any:
        from mi_contrast.estimation import estimate

        return estimate(*samples, **settings)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(run_job(main))
