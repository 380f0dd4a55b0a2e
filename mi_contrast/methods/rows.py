"""Rows: a method as plain data, checked once, every mistake named with the nearest right word.

A row names the views, the target network, the pools and the terms. A term says: take this view as the anchor and that
one as its positive, score them against a support drawn from a pool, turn the scores into nats by a form, at a
temperature, and weigh the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.config import plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule
from mi_contrast.views.two_crops import SOURCES

VIEWS = {"two_crops": SOURCES}
TARGETS = ("ema",)
POOLS = {"queue": ("size",)}
SUPPORTS = {"all": (), "ball": ("lower",), "ring": ("lower", "upper")}
FORMS = {"softmax": mi.Softmax}

ROW_FIELDS = ("views", "target", "momentum", "pools", "terms")
TERM_FIELDS = ("anchor", "positive", "pool", "support", "form", "temperature", "weight")


@dataclass(frozen=True)
class Term:
    """One term of the objective: weight x mean over anchors of `form` over `support` of `pool`, in nats."""

    anchor: str
    positive: str
    pool: str
    support: Mapping[str, Any]
    form: str
    temperature: Schedule
    weight: Schedule


@dataclass(frozen=True)
class Row:
    """A checked method. `pools` maps a pool's name to its settings, with its kind under 'kind'."""

    views: str
    target: str
    momentum: Schedule
    pools: Mapping[str, Mapping[str, Any]]
    terms: tuple[Term, ...]

    @property
    def source(self) -> Mapping[str, int]:
        """For each view, which of the example's sources it is made from: an index into axis 1 of `sources`."""
        return VIEWS[self.views]


def _fields(what: str, given: Any, needed: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{what} is {given!r}", fix=f"give a dict with {', '.join(needed)}")
    for name in given:
        if name not in needed:
            raise unknown(f"field of {what}", name, needed)
    for name in needed:
        if name not in given:
            raise UserError(f"{what} has no {name!r}", fix=f"it takes {', '.join(needed)}")


def _word(what: str, word: Any, table: Any) -> str:
    if word not in table:
        raise unknown(what, word, table)
    return word


def _number(what: str, schedule: Any, low: float, high: float = np.inf, *, above: bool = False) -> Schedule:
    schedules.check(schedule, what)
    for point in schedules.points(schedule):
        if not (low < point if above else low <= point) or point > high:
            bounds = f"{'above' if above else 'at least'} {low:g}" + (
                "" if np.isinf(high) else f" and at most {high:g}"
            )
            raise UserError(f"{what} is {point:g}", fix=f"give a number {bounds}")
    return schedule


def _support(what: str, support: Any) -> Mapping[str, Any]:
    kind = support.get("kind") if isinstance(support, Mapping) else None
    _word(f"kind of {what}", kind, SUPPORTS)
    needed = SUPPORTS[str(kind)]
    _fields(what, support, ("kind", *needed))
    for name in needed:
        _number(f"{what}.{name}", support[name], 0.0, 1.0)
    lower, upper = support.get("lower", 0.0), support.get("upper", 1.0)
    for t in np.linspace(0.0, 1.0, 257):  # both ends move; the band must stay open throughout
        at_lower, at_upper = float(schedules.value(lower, t)), float(schedules.value(upper, t))
        if needed and not at_lower < at_upper:
            raise UserError(
                f"{what} has lower {at_lower:.4g} >= upper {at_upper:.4g} at progress {t:.3g}",
                fix="percentiles run from least (0) to most similar (1); give lower < upper",
            )
    return support


def _term(at: int, term: Any, views: tuple[str, ...], pools: Mapping[str, Any]) -> Term:
    what = f"config.method.terms.{at}"
    _fields(what, term, TERM_FIELDS)
    if term["anchor"] == term["positive"]:
        raise UserError(f"{what} has {term['anchor']!r} as anchor and positive", fix=f"give two of {', '.join(views)}")
    return Term(
        anchor=_word(f"view in {what}.anchor", term["anchor"], views),
        positive=_word(f"view in {what}.positive", term["positive"], views),
        pool=_word(f"pool in {what}.pool", term["pool"], pools),
        support=_support(f"{what}.support", term["support"]),
        form=_word(f"form in {what}.form", term["form"], FORMS),
        temperature=_number(f"{what}.temperature", term["temperature"], 0.0, above=True),
        weight=_number(f"{what}.weight", term["weight"], 0.0),
    )


def build(method: Any) -> Row:
    """The row that `config.method` describes. UserError on any unknown word, wrong type or closed band."""
    method = plain(method, "config.method")
    _fields("config.method", method, ROW_FIELDS)
    views = tuple(VIEWS[_word("word in config.method.views", method["views"], VIEWS)])
    if not isinstance(method["pools"], Mapping):
        raise UserError(
            f"config.method.pools is {method['pools']!r}", fix="give a dict such as dict(queue=dict(size=65536))"
        )
    for name, pool in method["pools"].items():
        _word("pool in config.method.pools", name, POOLS)
        _fields(f"config.method.pools.{name}", pool, POOLS[name])
        size = pool["size"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UserError(f"config.method.pools.{name}.size is {size!r}", fix="give a whole number above 0")
    if not isinstance(method["terms"], tuple) or not method["terms"]:
        raise UserError("config.method.terms is empty", fix="give at least one term")
    return Row(
        views=method["views"],
        target=_word("word in config.method.target", method["target"], TARGETS),
        momentum=_number("config.method.momentum", method["momentum"], 0.0, 1.0),
        pools=method["pools"],
        terms=tuple(_term(i, term, views, method["pools"]) for i, term in enumerate(method["terms"])),
    )
