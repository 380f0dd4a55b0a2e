"""Says what several estimates of one mutual information mean together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The intervals of these are meant to hold the truth.
TWO_SIDED = ("ksg", "ksg2", "info_nce", "discrete", "discrete_continuous")
LABELS = ("discrete", "discrete_continuous")
LOWER = ("cca", "nwj", "jensen_shannon")  # lower bounds, which can contradict the others but not confirm them
TOLERANCE = 0.02  # nats by which two intervals may miss each other and still agree


class Verdict(NamedTuple):
    """A line of text, and its kind: 'believe', 'lower limit', 'disagree' or 'nothing'."""

    text: str
    outcome: str


def reach_verdict(rows: Sequence[Mapping[str, Any]], names: tuple[str, str] = ("x", "y")) -> Verdict:
    """Returns what the rows of a table of estimates say together, in one sentence with nats and bits.

    The verdict rests on the estimators whose intervals are meant to hold the truth. If one of them gives only a lower
    limit and the others lie below it, the limit is the verdict. If their intervals do not overlap, or a lower bound
    lies above them all, the estimators disagree.

    Args:
      rows: each with method, nats, low, high (infinite for a lower limit) and sound (whether it may be trusted).
      names: of the two variables.
    """
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
            return Verdict("verdict: a lower limit, and it is 0: these samples are too few to tell more", "lower limit")
        least = f"at least {_both(best['low'])} ({best['method']}) are shared by {both}"
        return Verdict(f"verdict: a lower limit: {least}{higher}{lower}", "lower limit")
    two_sided = [row for row in consistent if row["high"] < math.inf]
    if len(consistent) < len(intervals) or above:
        least = min(max(row["low"], 0.0) for row in intervals)
        parts = ", ".join(f"{row['method']} {row['nats']:.3f}" for row in [*intervals, *above])
        text = f"verdict: the estimators disagree ({parts}): believe no number, only at least {_both(least)}"
        return Verdict(text, "disagree")
    nats = sum(row["nats"] for row in two_sided) / len(two_sided)
    low, high = min(row["low"] for row in two_sided), max(row["high"] for row in two_sided)
    interval = f"90 % interval {max(low, 0.0):.3f} to {max(high, 0.0):.3f} nats"
    agree = f"{_names(two_sided)} agree" if len(two_sided) > 1 else f"by {two_sided[0]['method']}"
    share = f"{_both(max(nats, 0.0))}, {interval} ({agree})"
    if low <= 0:
        return Verdict(f"verdict: believe that {both} share little or nothing: {share}", "believe")
    text = f"verdict: believe that {both} share {share}"
    if all(row["method"] not in LABELS for row in two_sided):
        text += f"; two normal variables with a correlation of {find_correlation(nats):.2f} share as much"
    return Verdict(text, "believe")


def find_correlation(nats: float) -> float:
    """Returns the correlation rho >= 0 at which two normal variables share this: -log(1 - rho^2) / 2 = nats."""
    return math.sqrt(-math.expm1(-2 * max(nats, 0.0)))


def _both(nats: float) -> str:
    return f"{nats:.3f} nats ({nats / math.log(2):.3f} bits)"


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [row["method"] for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
