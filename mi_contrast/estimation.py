"""The mutual information of two variables from Python: `mi_contrast.estimate(x, y)`, which shows its verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.samples import COMMAND, PYTHON, Door, Pair, choose_names, pair_arrays, read_pair

COLUMNS = ("nats", "low", "high", "ceiling")
FEWEST_THINNED = 60  # rows that every k-th row must leave: with fewer, no estimator is trained


@dataclass(frozen=True, repr=False)
class Estimates:
    """Estimates of one mutual information by several methods. It shows itself as a table with its verdict.

    Attributes:
      rows: of each method 'method', 'nats', 'standard_error', 'low', 'high', 'ceiling', 'seconds', 'what', 'samples'
        and 'sound', whether it may be trusted.
      verdict: what they say together, in a sentence.
      outcome: 'believe', 'lower limit', 'disagree', 'dependent rows' or 'nothing'.
      notes: what was done to the samples first.
      remarks: what else there is to know about them.
      nats: the mutual information that the verdict believes; None where it believes no number.
      low, high: the ends of its interval, in nats; None where there is none. A lower limit has `low` alone.
    """

    rows: tuple[Mapping[str, Any], ...]
    verdict: str
    outcome: str
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    nats: float | None = None
    low: float | None = None
    high: float | None = None

    def __repr__(self) -> str:
        from mi_contrast.reporting.estimates import format_table

        return "\n".join([format_table(self.rows), *self._list_lines(), self.verdict])

    def _list_lines(self) -> list[str]:
        """Returns the lines between the table and the verdict."""
        from mi_contrast.reporting.estimates import explain_table

        numbers = {".nats": self.nats, ".low": self.low, ".high": self.high}
        words = ", ".join(f"{name} {'None' if value is None else f'{value:.3f}'}" for name, value in numbers.items())
        return [explain_table(self.rows), *self.notes, *self.remarks, words]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("method", *COLUMNS, "what it is"))
        body = "".join(_write_row(row) for row in self.rows)
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in self._list_lines())
        return f"<table><tr>{head}</tr>{body}</table>{lines}<p><b>{html.escape(self.verdict)}</b></p>"


def _write_row(row: Mapping[str, Any]) -> str:
    numbers = ["none" if row[name] == math.inf else f"{row[name]:.3f}" for name in COLUMNS]
    pale = "" if row["sound"] else ' style="opacity:.5"'
    cells = [row["method"], *numbers, row["what"]]
    return f"<tr{pale}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def estimate(
    first: Any = None,
    second: Any = None,
    /,
    *,
    x: Any = None,
    y: Any = None,
    methods: str | Sequence[str] | None = None,
    k: int = 3,
    seed: int = 0,
    ranks: bool = True,
    most: int = 20_000,
    every: int = 1,
    drop_missing: bool = False,
) -> Estimates:
    """Returns estimates of the mutual information of two variables by several methods, and what they say together.

    Three calls, of which the first takes arrays, the others take names of columns:

      estimate(x, y)
      estimate("plots.csv", x="rain", y="yield")
      estimate(frame, x=["rain", "soil"], y="yield")

    Row i of both is one pair, and the rows are independent draws. Where neighbouring rows resemble each other, as in a
    time series, the verdict says so and believes no number. It compares them in the order given, and in the order of
    an index or of a column of dates; it cannot see a series that was shuffled without these. Text and numbers of few
    different values are read as labels.

    Args:
      first: numbers [N, d] or [N], labels [N], or a Series, the samples of x. Or a data frame, or a file (.csv, .tsv,
        .txt, .npy, .npz or .parquet).
      second: the samples of y; not with a file or a data frame. Two Series need equal indexes.
      x, y: the samples by name. With a file or a data frame, the name of a column, or several in a list; not needed
        where there are two columns alone, or two that are named x and y.
      methods: names, or one string with commas; by default those of `mi-contrast estimate`.
      k: number of neighbours.
      seed: of the trained methods, of the random subset and of the order of equal values.
      ranks: whether the methods by neighbours and by correlation use normal scores of the columns.
      most: number of pairs that are used, a random subset if there are more.
      every: use every such row alone, such as each 10th of a time series.
      drop_missing: leave out rows in which a value is missing.
    Returns:
      the estimates, in nats: `.verdict`, with its numbers `.nats`, `.low` and `.high`; `.outcome`, `.rows`, `.notes`
      and `.remarks`.
    Raises:
      UserError: a method or a column is unknown, the file can't be read, or the samples are not finite numbers of
      equal length.

    >>> mi_contrast.estimate(x, y).verdict  # doctest: +SKIP
    'verdict: believe that x and y share 0.511 nats (0.737 bits), 90 % interval 0.470 to 0.552 nats (...)'
    """
    from mi_contrast.estimate import measure
    from mi_contrast.estimators.registry import DEFAULT, METHODS
    from mi_contrast.reporting.estimates import reach_verdict

    names = DEFAULT.split(",") if methods is None else methods.split(",") if isinstance(methods, str) else methods
    wanted = list(dict.fromkeys(name.strip() for name in names))
    for name in wanted:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    pair = _read(first, second, x, y, drop_missing)
    samples = prepare_samples(pair, wanted, k=k, seed=seed, most=most, every=every, door=PYTHON)
    rows = measure(samples.x, samples.y, samples.methods, k, seed, ranks=ranks)
    verdict = reach_verdict(rows, pair.names, doubt=samples.doubt)
    notes, remarks = tuple(samples.notes), tuple(samples.remarks)
    return Estimates(
        tuple(rows), verdict.text, verdict.outcome, notes, remarks, verdict.nats, verdict.low, verdict.high
    )


def _read(first: Any, second: Any, x: Any, y: Any, drop_missing: bool) -> Pair:
    """Returns the samples that the arguments of `estimate` name. Raises UserError."""
    from mi_contrast.data.columns import open_columns, open_frame

    is_file, is_frame = isinstance(first, (str, Path)), hasattr(first, "columns") and second is None
    if is_file or (is_frame and (_is_name(x) or _is_name(y) or y is None)):
        if second is not None:
            raise UserError("a file and a second argument", fix=f"name the columns: {PYTHON.name_columns}")
        columns, place = (open_columns(Path(first)), first) if is_file else (open_frame(first), "the data frame")
        named = {"x": x, "y": y}
        if wrong := next((side for side, name in named.items() if name is not None and not _is_name(name)), None):
            raise UserError(f"{wrong} is a {type(named[wrong]).__name__} beside {place}", fix="give names of columns")
        sides = choose_names(columns, named, place, PYTHON)
        return read_pair(columns, sides, place, drop_missing=drop_missing, door=PYTHON)
    given = [values for values in (first, second, x, y) if values is not None]
    if len(given) != 2 or (second is not None and first is None) or (first is not None and x is not None):
        raise UserError(
            f"estimate takes the samples of two variables, and {len(given)} came",
            fix=f'call estimate(x, y), or estimate("data.csv", {PYTHON.name_columns})',
        )
    return pair_arrays(*given, drop_missing=drop_missing, door=PYTHON)


def _is_name(value: Any) -> bool:
    """Whether a value is the name of a column, or a list of such names."""
    return isinstance(value, str) or (isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value))


class PreparedSamples(NamedTuple):
    """What is estimated from, and by which methods.

    Attributes:
      x, y: the samples that are used, [N, d].
      methods: names in METHODS, for labels where a side is one.
      notes: a line for each change that was made.
      remarks: a line for each thing to know about the result.
      doubt: why these rows are not independent; '' where nothing speaks against it.
    """

    x: np.ndarray
    y: np.ndarray
    methods: list[str]
    notes: list[str]
    remarks: list[str]
    doubt: str


def prepare_samples(
    pair: Pair, methods: list[str], *, k: int, seed: int, most: int, every: int = 1, door: Door = COMMAND
) -> PreparedSamples:
    """Returns the pairs and the methods that are used, and a note for each change that was made to them.

    Args:
      pair: the samples in the order of the file, and their names.
      methods: names in METHODS; those that read numbers alone are replaced where a side is a label.
      most: number of pairs that are used, drawn at random if there are more.
      every: use every such row alone.
      door: how the user writes flags.
    """
    from mi_contrast.estimators.registry import discrete_sides, replace_for_labels, tied_sides
    from mi_contrast.estimators.serial import correlate_orders

    arrays = [pair.x, pair.y, *pair.orders.values()]
    (x, y, *places), more = thin_rows(arrays, most=most, every=every, seed=seed, door=door)
    notes, remarks = [*pair.notes, *more], []
    are_labels = discrete_sides(x, y, k)
    if any(are_labels):
        methods, switched = replace_for_labels(methods, are_labels)
        if switched:
            words = "have few values and are" if all(are_labels) else "has few values and is"
            notes.append(f"{_join(pair.names, are_labels)} {words} read as labels: {', '.join(switched)}")
    are_tied = tied_sides(x, y, k)
    if any(are_tied):
        have = "have" if all(are_tied) else "has"
        remarks.append(f"{_join(pair.names, are_tied)} {have} repeated (rounded) values; ties are broken at random")
    correlation, order = correlate_orders(x, y, dict(zip(pair.orders, places, strict=True)))
    doubt = describe_dependence(correlation, pair.names, door, len(pair.x) / len(x), order)
    if pair.orders and not doubt:
        remarks.append(f"neighbouring rows were compared in the order of {' and '.join(pair.orders)}, too")
    return PreparedSamples(x, y, methods, notes, remarks, doubt)


def _join(names: Sequence[str], are_meant: Sequence[bool]) -> str:
    return " and ".join(name for name, is_meant in zip(names, are_meant, strict=True) if is_meant)


def thin_rows(
    arrays: Sequence[np.ndarray], *, most: int, every: int, seed: int, door: Door
) -> tuple[list[np.ndarray], list[str]]:
    """Returns every such row of the arrays, and of these `most` at random; and a note for each that changes anything.

    Raises UserError if `every` is no number of rows.
    """
    notes, total = [], len(arrays[0])
    if every < 1:
        raise UserError(f"{door.every}={every}", fix="give a whole number from 1 up")
    if every > 1:
        arrays = [array[::every] for array in arrays]
        notes.append(f"{len(arrays[0]):,} of {total:,} rows are read, every {ordinal(every)} ({door.every}={every})")
        total = len(arrays[0])
    if total > most:
        subset = draw_rows(total, most, seed)
        arrays = [array[subset] for array in arrays]
        notes.append(f"{most:,} of {total:,} pairs are read, drawn at random ({door.most}={total} reads all)")
    return list(arrays), notes


def draw_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Returns the numbers of `count` of `total` rows, drawn without replacement, in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def describe_dependence(
    correlation: Any, names: Sequence[str], door: Door, spacing: float = 1.0, order: str = ""
) -> str:
    """Returns why rows are not independent, and what to do; '' if they may be.

    Args:
      correlation: a `SerialCorrelation`.
      names: of the two variables.
      door: how the user writes flags.
      spacing: how many rows of the file there are for each row that is used.
      order: by what the rows are sorted to find it; '' for the order of the file.
    """
    if not correlation.is_strong:
        return ""
    rows, step = correlation.rows, math.ceil(correlation.thinning * spacing)
    both, sorting = f"{names[0]} and {names[1]}", f"sort them by {order} and " if order else ""
    place = f" in the order of {order}" if order else ""
    text = (
        f"neighbouring rows of {both} resemble each other{place} (correlations r = {correlation.x:.2f} and "
        f"r' = {correlation.y:.2f} with the next row), so that {rows:,} rows count as about "
        f"{correlation.effective_rows:,.0f}, n (1 - r r') / (1 + r r')"
    )
    if rows * spacing / step >= FEWEST_THINNED:
        text += f"; {sorting}keep every {ordinal(step)} row: {door.every}={step}"
        text += "; or test all rows by shifts: mi_contrast.estimators.twins"
    else:
        text += f"; only every {ordinal(step)} row is nearly independent, which is too few: take more rows"
    never = "do not shuffle them: that hides the dependence and does not remove it"
    return f"{text}; if the rows are a time series {never}"


def ordinal(number: int) -> str:
    """Returns a number with its ending.

    >>> [ordinal(n) for n in (2, 3, 11, 21)]
    ['2nd', '3rd', '11th', '21st']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
