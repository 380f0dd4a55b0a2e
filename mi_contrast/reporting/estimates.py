"""The verdict on several estimates of one mutual information: what to believe, a lower limit, or a disagreement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TWO_SIDED = ("ksg", "ksg2", "info_nce", "discrete", "discrete_continuous")  # intervals that mean to hold the truth
LOWER = ("cca", "nwj", "jensen_shannon")  # lower bounds, of normal scores or in the mean: they can only contradict
GRACE = 0.02  # nats by which intervals may miss each other and still agree


class Verdict(NamedTuple):
    """One line of text, and its kind: 'believe', 'lower limit', 'disagree' or 'nothing'."""

    text: str
    outcome: str


def reach_verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """Returns what the rows of a table of estimates say together, in nats and bits.

    The estimators whose intervals mean to hold the truth come first. Where one can only give a lower limit and the
    others lie below it, the limit is the answer. Where the intervals do not meet, or a lower bound lies above them all,
    the estimators disagree.

    Args:
      rows: each with method, nats, low, high (infinite for a lower limit) and sound.
    """
    sound = [row for row in rows if row["sound"]]
    asked = [row for row in sound if row["method"] in TWO_SIDED and row["low"] == row["low"]]
    others = [row for row in sound if row["method"] in LOWER and row["low"] == row["low"]]
    if not asked:
        if not sound:
            return Verdict("verdict: nothing is known from these samples", "nothing")
        names = _names(sound)
        return Verdict(f"verdict: none from {names} alone; add ksg or info_nce to --methods", "nothing")
    floor = max(row["low"] for row in asked)
    standing = [row for row in asked if row["high"] >= floor - GRACE]
    limits = [row for row in standing if row["high"] == math.inf]
    above = [row for row in others if row["low"] > min(row["high"] for row in standing) + GRACE]
    if len(limits) == len(standing):
        best = max(limits, key=lambda row: row["low"])
        beyond = [row for row in others if row["low"] > best["low"] + GRACE]
        more = "".join(f"; {row['method']} reads {_both(row['nats'])}" for row in beyond)
        below = [row for row in asked if row not in standing]
        less = f"; {_names(below)} reads less, which says nothing against it" if below else ""
        if best["low"] <= 0:
            return Verdict("verdict: a lower limit, and it is 0: these samples are too few to tell more", "lower limit")
        least = f"at least {_both(best['low'])} ({best['method']})"
        return Verdict(f"verdict: a lower limit: {least}{more}{less}", "lower limit")
    two_sided = [row for row in standing if row["high"] < math.inf]
    if len(standing) < len(asked) or above:
        least = min(max(row["low"], 0.0) for row in asked)
        parts = ", ".join(f"{row['method']} {row['nats']:.3f}" for row in [*asked, *above])
        text = f"verdict: the estimators disagree ({parts}): believe no number, only at least {_both(least)}"
        return Verdict(text, "disagree")
    nats = sum(row["nats"] for row in two_sided) / len(two_sided)
    low, high = min(row["low"] for row in two_sided), max(row["high"] for row in two_sided)
    interval = f"90 % interval {max(low, 0.0):.3f} to {max(high, 0.0):.3f} nats"
    agree = f"{_names(two_sided)} agree" if len(two_sided) > 1 else f"by {two_sided[0]['method']}"
    return Verdict(f"verdict: believe {_both(max(nats, 0.0))}, {interval} ({agree})", "believe")


def _both(nats: float) -> str:
    return f"{nats:.3f} nats ({nats / math.log(2):.3f} bits)"


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [row["method"] for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
