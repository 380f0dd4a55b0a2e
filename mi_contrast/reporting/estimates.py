"""Shows several estimates of one mutual information as a table, and says what they mean together."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The intervals of these are meant to hold the truth.
TWO_SIDED = ("ksg", "ksg2", "info_nce", "discrete", "discrete_continuous")
LABELS = ("discrete", "discrete_continuous")
LOWER = ("cca", "nwj", "jensen_shannon")  # lower bounds, which can contradict the others but not confirm them
WIDTH = 100  # columns of a terminal
FEWEST = 60  # rows from which on all estimators answer
TOLERANCE = 0.02  # nats by which two intervals may miss each other and still agree


class Verdict(NamedTuple):
    """What estimates say together.

    Attributes:
      text: a sentence.
      outcome: 'believe', 'lower limit', 'disagree', 'dependent rows' or 'nothing'.
      nats: what is believed, or None.
      low, high: the ends of the interval, or None. A lower limit has `low` alone.
    """

    text: str
    outcome: str
    nats: float | None = None
    low: float | None = None
    high: float | None = None


def reach_verdict(
    rows: Sequence[Mapping[str, Any]], names: tuple[str, str] = ("x", "y"), *, doubt: str = ""
) -> Verdict:
    """Returns what the rows of a table of estimates say together, in one sentence with nats and bits.

    The verdict rests on the estimators whose intervals are meant to hold the truth. If one of them gives only a lower
    limit and the others lie below it, the limit is the verdict. If their intervals do not overlap, or a lower bound
    lies above them all, the estimators disagree. Where the rows are not independent, nothing is believed.

    Args:
      rows: each with method, nats, low, high (infinite for a lower limit) and sound (whether it may be trusted).
      names: of the two variables.
      doubt: why the rows are not independent draws; '' if nothing speaks against it.
    """
    verdict = _compare_intervals(rows, names)
    if not doubt or verdict.outcome == "nothing":
        return verdict
    read = ", ".join(
        f"{row['method']} {row['nats']:.3f}" for row in rows if row["sound"] and row["method"] in TWO_SIDED
    )
    return Verdict(f"verdict: do not believe these numbers ({read} nats): {doubt}", "dependent rows")


def _compare_intervals(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> Verdict:
    """Returns the verdict on independent rows."""
    both = f"{names[0]} and {names[1]}"
    sound = [row for row in rows if row["sound"]]
    intervals = [row for row in sound if row["method"] in TWO_SIDED and row["low"] == row["low"]]
    bounds = [row for row in sound if row["method"] in LOWER and row["low"] == row["low"]]
    if not intervals:
        if not sound:
            return Verdict("verdict: nothing is known from these samples", "nothing")
        methods = _names(sound)
        return Verdict(f"verdict: none from {methods} alone; add ksg or info_nce to --methods", "nothing")
    highest = max(row["low"] for row in intervals)
    consistent = [row for row in intervals if row["high"] >= highest - TOLERANCE]
    limits = [row for row in consistent if row["high"] == math.inf]
    above = [row for row in bounds if row["low"] > min(row["high"] for row in consistent) + TOLERANCE]
    if len(limits) == len(consistent):
        best = max(limits, key=lambda row: row["low"])
        beyond = [row for row in bounds if row["low"] > best["low"] + TOLERANCE]
        higher = "".join(f"; {row['method']} reads {_both(row['nats'])}" for row in beyond)
        below = [row for row in intervals if row not in consistent]
        lower = f"; {_names(below)} reads less, which does not contradict it" if below else ""
        if best["low"] <= 0:
            return Verdict(f"verdict: {_describe_shortage(limits)}", "lower limit", low=0.0)
        least = f"at least {_both(best['low'])} ({best['method']}) are shared by {both}"
        curve = _describe_curve(bounds, best["low"])
        return Verdict(f"verdict: a lower limit: {least}{higher}{lower}{curve}", "lower limit", low=best["low"])
    two_sided = [row for row in consistent if row["high"] < math.inf]
    if len(consistent) < len(intervals) or above:
        least = min(max(row["low"], 0.0) for row in intervals)
        parts = ", ".join(f"{row['method']} {row['nats']:.3f}" for row in [*intervals, *above])
        text = f"verdict: the estimators disagree ({parts}): believe no number, only at least {_both(least)}"
        return Verdict(text, "disagree", low=least)
    nats = max(sum(row["nats"] for row in two_sided) / len(two_sided), 0.0)
    low, high = min(row["low"] for row in two_sided), max(*(row["high"] for row in two_sided), 0.0)
    interval = f"90 % interval {max(low, 0.0):.3f} to {high:.3f} nats"
    numbers = {"nats": nats, "low": max(low, 0.0), "high": high}
    has_correlation = all(row["method"] not in LABELS for row in two_sided)
    agree = f"by {two_sided[0]['method']}"
    if len(two_sided) > 1:
        agree = f"the mean of {_names(two_sided)}, whose intervals overlap, and the interval that spans theirs"
    if low <= 0:
        most = f" (a correlation of {find_correlation(high):.2f})" if has_correlation else ""
        text = f"no dependence of {both} found; up to {high:.3f} nats{most} is not excluded ({interval}, {agree})"
        if any(row["low"] > 0 for row in [*two_sided, *bounds]):
            text = f"believe that {both} share little or nothing: {_both(nats)}, {interval} ({agree})"
        return Verdict(f"verdict: {text}", "believe", **numbers)
    text = f"verdict: believe that {both} share {_both(nats)}, {interval} ({agree})"
    if curve := _describe_curve(bounds, low):
        text += curve
    elif has_correlation:
        text += f"; two normal variables with a correlation of {find_correlation(nats):.2f} share as much"
    return Verdict(text, "believe", **numbers)


def _describe_shortage(limits: Sequence[Mapping[str, Any]]) -> str:
    """Returns that there are too few rows, where the best lower limit is 0, and how many are needed where known."""
    rows = min(row.get("samples", FEWEST) for row in limits)
    few = "too few rows to say anything"
    return f"{few}{f'; give at least {FEWEST}' if rows < FEWEST else ' about so many columns'} ({rows} now)"


def _describe_curve(bounds: Sequence[Mapping[str, Any]], low: float) -> str:
    """Returns that a relation is a curve, if its linear part is about 0 and at least `low` nats are shared; else ''."""
    linear = next((row for row in bounds if row["method"] == "cca"), None)
    if linear is None or linear["low"] > 0 or linear["high"] + TOLERANCE >= low:
        return ""
    return f"; the relation is a curve, not a line: its linear part (cca) is {abs(linear['nats']):.3f} nats"


def find_correlation(nats: float) -> float:
    """Returns the correlation rho >= 0 at which two normal variables share this: -log(1 - rho^2) / 2 = nats."""
    return math.sqrt(-math.expm1(-2 * max(nats, 0.0)))


HEADS = ("method", "nats", "+-", "low", "high", "ceiling", "seconds", "samples")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as lines of text of at most 100 columns with a heading; long remarks go on below themselves.

    Args:
      rows: those of `mi_contrast.estimate.measure`.
    """
    lines = [_write_cells(row) for row in rows]
    are_empty = [all(math.isnan(row[name]) for name in ("nats", "low", "high")) and not row["sound"] for row in rows]
    shown = [HEADS, *(line for line, is_empty in zip(lines, are_empty, strict=True) if not is_empty)]
    widths = [max(len(line[i]) for line in shown) for i in range(len(HEADS))]
    widths[0] = max(len(line[0]) for line in [HEADS, *lines])
    table = [f"{_align(HEADS, widths)}  what it is"]
    for row, line, is_empty in zip(rows, lines, are_empty, strict=True):
        start = f"{line[0]:<{widths[0]}}  " if is_empty else f"{_align(line, widths)}  "
        indent = " " * len(start)
        what = row["what"] if len(start) + len(row["what"]) <= WIDTH else _shorten(row["what"])
        table += textwrap.wrap(what, WIDTH, initial_indent=start, subsequent_indent=indent) or [start.rstrip()]
    return "\n".join(table)


def explain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line on the words of the table: of its heading, and of the remarks that need one."""
    text = "+-: standard error; ceiling: the most a method can show"
    has_clipped = any("clipped" in row["what"] for row in rows)
    return f"{text}; clipped, no bound: may err both ways" if has_clipped else text


def _shorten(what: str) -> str:
    """Returns the part of a remark on a lower limit that counts most: that it is near its ceiling, else what it is."""
    first, _, last = what.rpartition("; ")
    return what if "a lower limit" not in last else last if last.startswith("near") else first


def _write_cells(row: Mapping[str, Any]) -> list[str]:
    limits = [_write_number(row[name], "none") for name in ("high", "ceiling")]
    numbers = [_write_number(row[name]) for name in ("nats", "standard_error", "low")]
    return [row["method"], *numbers, *limits, f"{row['seconds']:.1f}", str(row["samples"])]


def _write_number(value: float, infinite: str = "inf") -> str:
    if value == math.inf:
        return infinite
    return f"{value:.3f}" if math.isnan(value) or abs(value) < 1000 else f"{value:.0e}"


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join([f"{cells[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(cells[1:], widths[1:], strict=True))])


def _both(nats: float) -> str:
    return f"{nats:.3f} nats ({nats / math.log(2):.3f} bits)"


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [row["method"] for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
