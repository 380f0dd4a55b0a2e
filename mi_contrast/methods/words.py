"""The words of a term: supports and forms as plain data, checked, and what the estimators make of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Progress, Schedule

SUPPORTS: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "ball": ("lower",),
    "ring": ("lower", "upper"),
    "cave": ("lower", "upper"),
    "nearest": ("k",),
    "close": ("by", "of"),
    "drawn": ("k", "of"),
}
LABELS = ("label", "clusters")  # what close candidates share with the anchor
FORMS: Mapping[str, Mapping[str, Any]] = {  # fields and their defaults
    "softmax": {"reduce": "logsumexp"},
    "decoupled": {},
    "hard": {"beta": 1.0, "prior": 0.0, "clamp": True},
    "binary": {"momentum": 1.0},
}
MADE = {"all": mi.All, "ball": mi.Ball, "ring": mi.Ring, "cave": mi.Cave}


def word(what: str, given: object, table: Iterable[str]) -> str:
    """The word, or UserError where the table lacks it."""
    if given not in tuple(table):
        raise unknown(what, given, table)
    return str(given)


def whole(what: str, given: object, low: int = 1) -> int:
    """The whole number of at least `low`, else UserError."""
    if isinstance(given, bool) or not isinstance(given, int) or given < low:
        raise UserError(f"{what} is {given!r}", fix=f"give a whole number above {low - 1}")
    return given


def number(what: str, schedule: Any, low: float, high: float = np.inf, *, above: bool = False) -> Schedule:
    """The schedule, every value of which lies in [low, high], or above low; else UserError."""
    schedules.check(schedule, what)
    for point in schedules.extreme_values(schedule):
        if not (low < point if above else low <= point) or point > high:
            bounds = f"{'above' if above else 'at least'} {low:g}" + (
                "" if np.isinf(high) else f" and at most {high:g}"
            )
            raise UserError(f"{what} is {point:g}", fix=f"give a number {bounds}")
    return schedule


def support(what: str, given: Any) -> Mapping[str, Any]:
    """The support, checked: its kind and fields, and that its band stays open whenever its percentiles move."""
    kind = given.get("kind") if isinstance(given, Mapping) else None
    needed = SUPPORTS[word(f"kind of {what}", kind, SUPPORTS)]
    check_section(what, given, ("kind", *needed))
    if "of" in needed:
        inner = support(f"{what}.of", given["of"])
        if inner["kind"] in ("cave", "close", "drawn"):
            fix = "take all, ball, ring or nearest"
            raise UserError(f"{what} is {kind} of {inner['kind']}: one choice has been made there already", fix=fix)
    if "by" in needed:
        word(f"label in {what}.by", given["by"], LABELS)
    if "k" in needed:
        whole(f"{what}.k", given["k"])
    percentiles = [name for name in ("lower", "upper") if name in needed]
    for name in percentiles:
        number(f"{what}.{name}", given[name], 0.0, 1.0)
    if percentiles:
        _stays_open(what, given.get("lower", 0.0), given.get("upper", 1.0))
    return given


def _stays_open(what: str, lower: Schedule, upper: Schedule) -> None:
    """UserError where a band closes at any time: both ends move."""
    fix = "percentiles run from least (0) to most similar (1); give lower < upper"
    if schedules.pace(lower) or schedules.pace(upper):
        ends = schedules.extreme_values(lower), schedules.extreme_values(upper)
        if schedules.pace(lower) != schedules.pace(upper):  # one may be anywhere while the other moves
            ends = (max(ends[0]),), (min(ends[1]),)
        for at_lower, at_upper in zip(*ends, strict=True):
            if not at_lower < at_upper:
                raise UserError(f"{what} may come to lower {at_lower:.4g} >= upper {at_upper:.4g}", fix=fix)
        return
    times = np.linspace(0.0, 1.0, 257)
    moving = [np.asarray(jax.vmap(partial(schedules.value, end))(jnp.asarray(times))) for end in (lower, upper)]
    for t, at_lower, at_upper in zip(times, *moving, strict=True):
        if not at_lower < at_upper:
            raise UserError(f"{what} has lower {at_lower:.4g} >= upper {at_upper:.4g} at progress {t:.3g}", fix=fix)


def form(what: str, given: Any, support: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form, checked, with its defaults: a word, or a dict of its kind and fields."""
    given = {"kind": given} if isinstance(given, str) else given
    kind = given.get("kind") if isinstance(given, Mapping) else given
    known = FORMS[word(f"form in {what}", kind, FORMS)]
    check_section(what, given, ("kind",), known)
    filled = {"kind": kind, **known, **{name: value for name, value in given.items() if name != "kind"}}
    if kind != "softmax" and support["kind"] in ("cave", "close"):
        fix = "take softmax, or another support"
        raise UserError(f"{what}: {kind} scores one positive, {support['kind']} has several", fix=fix)
    if "reduce" in known:
        word(f"reduce in {what}", filled["reduce"], ("logsumexp", "mean"))
    if "beta" in known:
        number(f"{what}.beta", filled["beta"], 0.0)
        number(f"{what}.prior", filled["prior"], 0.0, 0.999)
        if not isinstance(filled["clamp"], bool):
            raise UserError(f"{what}.clamp is {filled['clamp']!r}", fix="give True (as released) or False")
    if "momentum" in known:
        number(f"{what}.momentum", filled["momentum"], 0.0, 1.0)
    return filled


def percentiles_at(support: Mapping[str, Any], t: Progress) -> dict[str, Float[Array, ""]]:
    """The percentiles of a support, or of what it is taken from, at progress t, by name."""
    if "of" in support:
        return percentiles_at(support["of"], t)
    return {name: schedules.value(support[name], t) for name in ("lower", "upper") if name in support}


def support_at(support: Mapping[str, Any], t: Progress) -> Any:
    """The support at progress t, its percentiles as traced float32."""
    match support["kind"]:
        case "nearest":
            return mi.Nearest(support["k"])
        case "close":
            return mi.Close(support_at(support["of"], t))
        case "drawn":
            return mi.Drawn(support["k"], support_at(support["of"], t))
        case kind:
            return MADE[kind](**percentiles_at(support, t))


def form_at(
    form: Mapping[str, Any],
    t: Progress,
    temperature: Float[Array, ""],
    log_normaliser: Float[Array, ""] | float = 0.0,
    data_size: Float[Array, ""] | float = 1.0,
) -> Any:
    """The form at progress t. The clamp of `hard` is the released one, floor = -1 / temperature."""
    match form["kind"]:
        case "softmax":
            return mi.Softmax(form["reduce"])
        case "decoupled":
            return mi.Decoupled()
        case "hard":
            beta, prior = schedules.value(form["beta"], t), schedules.value(form["prior"], t)
            return mi.Hard(beta, prior, -1.0 / temperature if form["clamp"] else None)
        case _:
            return mi.Binary(jnp.asarray(log_normaliser, jnp.float32), jnp.asarray(data_size, jnp.float32))
