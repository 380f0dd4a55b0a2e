"""Estimates the mutual information of two variables, in nats, by several estimators, and gives a verdict.

  mi-contrast estimate table.csv --x=temp --y=pressure        one column each
  mi-contrast estimate table.csv --x=temp,wind --y=pressure   several columns together
  mi-contrast estimate samples.npz                            its arrays x and y, [N] or [N, d]
  mi-contrast estimate table.csv --pairs                      every two columns, and a page with a heat map
  mi_contrast.estimate(x, y)                                  from Python: help(mi_contrast.estimate)

A row of the file is one pair of samples, and the rows are independent draws. Where neighbouring rows resemble each
other, as in a time series, no number is to be believed: --every=K keeps each K-th row. Rows are compared in the order
of the file, and in that of a column of dates; a series that was shuffled without these can't be seen. Text that
repeats, and numbers with few different values, are read as labels. The estimators by nearest neighbours and by
correlation use the normal scores of each column (--ranks=no: the columns themselves).
"""

from __future__ import annotations

import inspect
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.heartbeat import BETWEEN, report_time
from mi_contrast.core.layout import write_json
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data.columns import KINDS, Columns, find_orders, open_columns
from mi_contrast.estimation import describe_dependence, estimate, prepare_samples, thin_rows
from mi_contrast.estimators.registry import (
    DEFAULT,
    METHODS,
    NEIGHBOUR_METHODS,
    EstimatorMethod,
    discrete_sides,
    replace_for_labels,
    tied_sides,
)
from mi_contrast.estimators.serial import SerialCorrelation, correlate_orders
from mi_contrast.estimators.ties import spread_ties
from mi_contrast.reporting import pairs_page
from mi_contrast.reporting.estimates import explain_table, format_table, reach_verdict
from mi_contrast.samples import (
    COMMAND,
    check_finite,
    check_varies,
    choose_names,
    find_whole_rows,
    read_pair,
    read_variable,
    split_names,
)

__all__ = ["estimate"]  # what help() shows of this module, which is called from Python

NEAR_CEILING = 0.5  # nats: an estimate this close to its ceiling is only a lower limit
PILOT = 2000  # pairs from which the time for all pairs is predicted
ROUNDING = 1e-3  # nats by which sums in float32 may exceed a ceiling

MOST, MOST_FOR_PAIRS = 20_000, 2000  # rows that are used by default
SHOWN = 20  # pairs of columns that are printed; the page and --json have all

FLAGS = {
    "file=": f"a {KINDS} file; '--file=' may be omitted",
    "x=": "the column or array, or several with commas; x by default, or the first of two",
    "y=": "likewise; y by default, or the second of two",
    "pairs[=]": "every two columns instead, or of those given with commas: one quick method, and a heat map",
    "methods=": f"a list of {', '.join(METHODS)}; {DEFAULT} by default",
    "k=": "number of neighbours, 3 by default",
    "seed=": "of the trained methods and of the random subset, 0 by default",
    "ranks=": "yes (default): neighbours and correlation use normal scores of each column; no: the columns themselves",
    "most=": f"number of rows to use, a random subset if there are more; {MOST}, or {MOST_FOR_PAIRS} with --pairs",
    "every=": "use each such row alone, such as each 10th of a time series; 1 by default",
    "drop_missing": "leave out rows in which a value is missing; with --pairs, of the two columns of each pair",
    "json=": "a file to write the table to",
    "out=": "with --pairs, the page: <file>-pairs.html in the working folder by default",
}


def measure(
    x: np.ndarray, y: np.ndarray, methods: list[str], k: int, seed: int, *, ranks: bool = True
) -> list[dict[str, Any]]:
    """Returns a row for each method: method, nats, standard_error, low, high, ceiling, seconds, what, samples, sound.

    If a method can't handle the samples, its row has NaN, `what` gives the reason, and `sound` is False. Methods by
    nearest neighbours take repeated numbers as `spread_ties` returns them.

    Args:
      x, y: [N, d] samples.
      methods: names in METHODS.
      k: number of neighbours.
      seed: of the trained methods and of the order of equal values.
      ranks: whether the methods by neighbours and by correlation use normal scores of the columns.
    """
    rows: list[dict[str, Any]] = []
    spread = x, y
    if any(tied_sides(x, y, k)):
        rng, are_labels = np.random.default_rng(seed), discrete_sides(x, y, k)
        spread = x if are_labels[0] else spread_ties(x, k, rng), y if are_labels[1] else spread_ties(y, k, rng)
    for name in methods:
        method, start_time = METHODS[name], time.perf_counter()
        note = method.description.format(k=k)
        numbers: tuple[float, ...] = (np.nan,) * 5
        if method.takes_normal_scores:
            note += " of normal scores" if ranks else ", columns as they are"
        pair = spread if name in NEIGHBOUR_METHODS else (x, y)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of ties: they are spread, or the row says why not
                with report_time(name, _predict_seconds(method, *pair, k, ranks)):
                    result = jax.block_until_ready(method.estimate(*pair, k, jax.random.key(seed), ranks))
            fields = ("nats", "standard_error", "ceiling", "low", "high")
            numbers = tuple(float(getattr(result, field)) for field in fields)
            sound = not np.isnan(numbers[0])
            if not sound:
                note = f"none: a sample comes {k + 1} times or more; add noise below the data's resolution"
        except UserError as error:
            sound, note = False, f"none: {error}"
        nats, standard_error, ceiling, low, high = numbers
        if nats > ceiling + ROUNDING:
            sound, note = False, f"an error: {nats:.3f} nats is above the ceiling (not used)"
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


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="file").flags
    if "file" not in flags:
        raise UserError("no file", fix=f"give a {KINDS} file of samples")
    default, most_by_default = ("ksg", MOST_FOR_PAIRS) if "pairs" in flags else (DEFAULT, MOST)
    methods = list(dict.fromkeys(name.strip() for name in flags.get("methods", default).split(",")))
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    k, seed, most, every = (
        _parse_whole(name, flags.get(name, default), least)
        for name, default, least in (
            ("k", "3", 1),
            ("seed", "0", 0),
            ("most", str(most_by_default), 8),
            ("every", "1", 1),
        )
    )
    ranks = flags.get("ranks", "yes")
    if ranks not in ("yes", "no"):
        raise UserError(f"--ranks={ranks}", fix="give yes or no")
    if "pairs" in flags:
        _estimate_pairs(flags, methods[0], k, seed, ranks == "yes", most=most, every=every)
        return
    if "out" in flags:
        raise UserError("--out without --pairs", fix="add --pairs, or give --json=PATH")
    path = Path(flags["file"])
    columns = open_columns(path)
    pair = read_pair(columns, choose_names(columns, flags, path), path, drop_missing="drop_missing" in flags)
    samples = prepare_samples(pair, methods, k=k, seed=seed, most=most, every=every)
    for note in samples.notes:
        print(note, flush=True)
    rows = measure(samples.x, samples.y, samples.methods, k, seed, ranks=ranks == "yes")
    verdict = reach_verdict(rows, pair.names, doubt=samples.doubt)
    print("\n".join([format_table(rows), explain_table(rows), *samples.remarks, verdict.text]))
    if "json" in flags:
        numbers = {"nats": verdict.nats, "low": verdict.low, "high": verdict.high}
        words = {"verdict": verdict.text, "outcome": verdict.outcome}
        outcome = words | numbers | {"notes": samples.notes, "remarks": samples.remarks}
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


class Rows(NamedTuple):
    """Which rows of each pair of columns are used: `most` at random, of each `every`-th, of those without a gap."""

    most: int = sys.maxsize
    every: int = 1
    seed: int = 0

    def select(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Returns the rows of two variables, and of what else has as many rows. Raises UserError if there are none."""
        whole = find_whole_rows(arrays[:2])
        kept, _ = thin_rows([array[whole] for array in arrays], **self._asdict(), door=COMMAND)
        return kept


def measure_pairs(
    variables: Mapping[str, np.ndarray],
    method: str,
    k: int,
    seed: int,
    *,
    ranks: bool = True,
    rows: Rows | None = None,
) -> list[dict[str, Any]]:
    """Returns a row for every two variables, the most nats first: those of `measure` and the names x and y.

    Args:
      variables: [N, d] samples by name. A row that is not finite in one of two variables is left out of that pair.
      method: a name in METHODS; replaced where a side is a label.
      rows: which rows are used, by default all.
    """
    names, table = list(variables), []
    rows = rows or Rows(seed=seed)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    progress = ProgressBar("estimating", len(pairs), unit="pair", seconds_between=BETWEEN["log"])
    try:
        for a, b in pairs:
            table.append({"x": a, "y": b} | _measure_pair(variables[a], variables[b], method, k, seed, ranks, rows))
            progress.advance()
    finally:
        progress.close()
    return sorted(table, key=lambda row: -row["nats"] if row["sound"] else np.inf)


def _measure_pair(
    x: np.ndarray, y: np.ndarray, method: str, k: int, seed: int, ranks: bool, rows: Rows
) -> dict[str, Any]:
    """Returns the row of `measure` for one pair, which is not sound if its rows without gaps can't be used."""
    try:
        x, y = rows.select(x, y)
        for array in (x, y):
            check_varies("a column", array)
    except UserError as error:
        numbers = dict.fromkeys(("nats", "standard_error", "low", "high", "ceiling"), np.nan)
        samples = int((np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)).sum())
        row = {"method": method, **numbers, "seconds": 0.0, "samples": samples}
        return row | {"what": f"none: {error}", "sound": False}
    are_labels = discrete_sides(x, y, k)
    methods = replace_for_labels([method], are_labels)[0] if any(are_labels) else [method]
    return measure(x, y, methods, k, seed, ranks=ranks)[0]


def format_pairs(rows: list[dict[str, Any]]) -> str:
    """Returns the first rows of `measure_pairs` as lines of text with a heading."""
    width = min(34, max(len(f"{row['x']} and {row['y']}") for row in rows))
    lines = [f"{'columns':<{width}} {'nats':>8} {'low':>8} {'high':>8} {'ceiling':>8} {'rows':>6}  method"]
    for row in rows[:SHOWN]:
        ceiling, high = ("none" if row[name] == np.inf else f"{row[name]:.3f}" for name in ("ceiling", "high"))
        name = f"{row['x']} and {row['y']}"
        name = name if len(name) <= width else name[: width - 3] + "..."
        numbers = f"{row['nats']:>8.3f} {row['low']:>8.3f} {high:>8} {ceiling:>8} {row['samples']:>6}"
        lines.append(f"{name:<{width}} {numbers}  {row['method'] if row['sound'] else row['what'][:60]}")
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN} more pairs with fewer nats")
    return "\n".join(lines)


def _estimate_pairs(
    flags: Mapping[str, str], method: str, k: int, seed: int, ranks: bool, *, most: int, every: int
) -> None:
    """Runs the job with --pairs: prints the table of every two columns, and writes the page with the heat map."""
    if wrong := next((flag for flag in ("x", "y") if flag in flags), None):
        raise UserError(f"--{wrong} beside --pairs", fix="name the columns as --pairs=a,b,c")
    if "," in flags.get("methods", ""):
        raise UserError(f"--methods={flags['methods']} beside --pairs", fix="give one method, such as --methods=ksg")
    path = Path(flags["file"])
    page = Path(flags.get("out") or f"{path.stem}-pairs.html")
    pairs_page.check_replaceable(page)
    columns = open_columns(path)
    variables, notes = _read_variables(columns, flags["pairs"], path, drop_missing="drop_missing" in flags)
    names = list(variables)
    used = Rows(most, every, seed)
    notes += describe_pair_rows(variables, used)
    for note in notes:
        print(note, flush=True)
    rows = measure_pairs(variables, method, k, seed, ranks=ranks, rows=used)
    sentence = pairs_page.describe_pairs(rows)
    orders = find_orders(columns, [])
    correlations = [(row, *_correlate_pair(variables, orders, row, used)) for row in rows if row["samples"] > 1]
    if strong := [item for item in correlations if item[1].is_strong]:
        row, worst, order, spacing = max(strong, key=lambda item: item[1].product)
        doubt = describe_dependence(worst, (row["x"], row["y"]), COMMAND, spacing, order)
        count = f"the numbers of {len(strong)} of {len(rows)} pairs"
        rest = f". {sentence.removeprefix('verdict: ')}" if len(strong) < len(rows) else ""
        sentence = f"verdict: do not believe {count}: {doubt}{rest}"
    print(f"{format_pairs(rows)}\nby one quick method; run a pair alone for the full answer: --x=NAME --y=NAME")
    print(sentence)
    pairs_page.write_page(page, rows, names, title=path.name, note="; ".join(notes), sentence=sentence)
    print(f"look at {page}")
    if "json" in flags:
        contents = {"file": flags["file"], "seed": seed, "rows": _to_json(rows), "verdict": sentence, "notes": notes}
        write_json(Path(flags["json"]), contents)
        print(f"written to {flags['json']}", file=sys.stderr)


def describe_pair_rows(variables: Mapping[str, np.ndarray], used: Rows) -> list[str]:
    """Returns notes on the rows that pairs of columns are estimated from."""
    arrays = list(variables.values())
    gaps = int((~np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays])).sum())
    _, more = thin_rows(arrays, **used._asdict(), door=COMMAND)
    missing = [f"{gaps:,} of {len(arrays[0]):,} rows have missing values and are left out of the pairs that lack them"]
    return [*(missing if gaps else []), *(more or [f"{len(arrays[0]):,} rows"])]


def _correlate_pair(
    variables: Mapping[str, np.ndarray], orders: Mapping[str, np.ndarray], row: Mapping[str, Any], used: Rows
) -> tuple[SerialCorrelation, str, float]:
    """Returns how neighbouring rows of a pair resemble each other, in which order, and their spacing.

    See `correlate_orders`, and `describe_dependence` for the spacing.
    """
    orders = {name: places for name, places in orders.items() if name not in (repr(row["x"]), repr(row["y"]))}
    both = variables[row["x"]], variables[row["y"]]
    x, y, *places = used.select(*both, *orders.values())
    correlation, order = correlate_orders(x, y, dict(zip(orders, places, strict=True)))
    return correlation, order, int(find_whole_rows(both).sum()) / len(x)


def _read_variables(
    columns: Columns, named: str, path: Path, *, drop_missing: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the columns that are named, or all that can be read and vary, [N, d] each, and notes. Raises UserError.

    Args:
      named: names of columns, with commas; '' for all, of which those that can't be used are left out and noted.
    """
    names = split_names(named, columns) if named else list(columns.names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{columns.kind} {twice[0]!r} is named twice", fix="name each column once")
    variables, notes = {}, []
    for name in names:
        try:
            array = read_variable(columns, [name], path)
            check_varies(f"{columns.kind} {name!r}", array)
            variables[name] = array
        except UserError as error:
            if named:
                raise
            notes.append(f"left out: {str(error).partition(';')[0]}")
    if len(variables) < 2:
        raise UserError(f"{path}: {len(variables)} columns make no pair", fix="; ".join(["give two or more", *notes]))
    if len({len(array) for array in variables.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in variables.items())
        raise UserError(f"the {columns.kind}s of {path} differ in length: {lengths}", fix="name some: --pairs=a,b,c")
    for name, array in variables.items() if not drop_missing else ():
        check_finite(f"{columns.kind} {name!r}", array, COMMAND.drop_missing)
    return variables, notes


def _parse_whole(name: str, text: str, least: int) -> int:
    """Returns the whole number in a flag. Raises UserError if it is not one, or below `least`."""
    if not text.isdigit() or not least <= int(text) < 2**31:
        raise UserError(f"--{name}={text}", fix=f"give a whole number from {least} up")
    return int(text)


class _CallableModule(ModuleType):
    """The class of this module, which is a function too: `mi_contrast.estimate(x, y)`.

    Importing this module binds the name `mi_contrast.estimate` to it, so that no function can keep that name.
    """

    __signature__ = inspect.signature(estimate)  # what help, inspect.signature and editors show

    def __call__(self, *samples: Any, **settings: Any) -> Any:
        return estimate(*samples, **settings)

    __call__.__doc__ = estimate.__doc__


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(run_job(main))
